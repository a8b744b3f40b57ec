// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "bench/micro/attention.h"

#include <algorithm>
#include <cstdio>
#include <memory>

#include "bench/micro/free_memory.h"
#include "bench/micro/median.h"
#include "kvist/kv_size.h"

namespace kvist {
namespace {

constexpr int kPrefillStepTokens = 512;
constexpr size_t kTorchBytes = size_t{512} << 20;  // the library itself, in a process of its own

struct Contestant {
  std::string impl, form;
  std::function<Result<double>()> run_once;  // milliseconds
  size_t num_bytes_read = 0;
  std::vector<double> times_ms = {};
};

// One line of results for each contestant.
struct Case {
  std::string model, phase;
  int num_model_layers = 0;
  AttentionTask task;
};

Result<std::vector<Case>> CasesOf(const AttentionBench& bench) {
  std::vector<Case> cases;
  for (const std::string& model : bench.models) {
    KVIST_TRY(CacheGeometry geometry, AttentionGeometry(model));
    const size_t num_model_layers = geometry.layers.size();
    if (bench.num_layers > 0) geometry.layers.resize(std::min(num_model_layers, size_t(bench.num_layers)));
    for (const std::string& phase : bench.phases) {
      for (const int threads : bench.threads) {
        for (const int tokens : bench.tokens) {
          const int step_tokens = phase == "decode" ? 1 : std::min(tokens, kPrefillStepTokens);
          cases.push_back(
              {model, phase, int(num_model_layers), {geometry, tokens - step_tokens, step_tokens, threads}});
        }
      }
    }
  }
  return cases;
}

template <class Opened>
Contestant MakeContestant(std::string impl, std::string form, std::unique_ptr<Opened> opened) {
  std::shared_ptr<Opened> shared = std::move(opened);
  const size_t num_bytes_read = shared->num_bytes_read();
  return {std::move(impl), std::move(form), [shared] { return Result<double>(shared->RunOnce()); }, num_bytes_read};
}

Result<std::vector<Contestant>> OpenContestants(const AttentionBench& bench, const AttentionTask& task) {
  std::vector<Contestant> contestants;
  for (const std::string& name : bench.forms) {
    KVIST_TRY(const Form form, ParseForm(name));
    KVIST_TRY(auto contestant, AttentionContestant::OpenKvist(task, form));
    contestants.push_back(MakeContestant("kvist", name, std::move(contestant)));
  }
  for (const std::string& type : bench.ggml_types) {
    KVIST_TRY(auto contestant, AttentionContestant::OpenGgml(task, type));
    contestants.push_back(MakeContestant("ggml", type, std::move(contestant)));
  }
  for (const std::string& type : bench.torch_types) {
    KVIST_TRY(auto contestant, TorchAttention::Open(bench.torch, task, type));
    contestants.push_back(MakeContestant("torch", type, std::move(contestant)));
  }
  return contestants;
}

Status MeasureCase(const AttentionBench& bench, const Case& each_case, const std::function<bool()>& go_on,
                   std::vector<AttentionTiming>& timings) {
  const AttentionTask& task = each_case.task;
  KVIST_TRY(std::vector<Contestant> contestants, OpenContestants(bench, task));
  for (int round = -1; round < bench.num_rounds; ++round) {
    for (Contestant& each : contestants) {
      if (!go_on()) return Fail(ErrorCode::kCancelled, "stopped");
      KVIST_TRY(const double time_ms, each.run_once());
      if (round >= 0) each.times_ms.push_back(time_ms);  // in the first, memory and threads warm up
    }
  }
  for (const Contestant& each : contestants) {
    const double median_ms = Median(each.times_ms);
    timings.push_back({.model = each_case.model,
                       .num_layers = int(task.geometry.layers.size()),
                       .num_model_layers = each_case.num_model_layers,
                       .impl = each.impl,
                       .form = each.form,
                       .phase = each_case.phase,
                       .tokens = int(task.num_tokens()),
                       .threads = task.num_threads,
                       .median_ms = median_ms,
                       .gb_per_s = double(each.num_bytes_read) / median_ms / 1e6,
                       .work = AttentionWork(task, each.form, each.num_bytes_read)});
  }
  return {};
}

// Each time's best: what others do on the machine only takes away from it.
Status MeasureRooflines(const AttentionBench& bench, std::map<int, Roofline>& threads_to_roofline) {
  for (const int threads : bench.threads) {
    KVIST_TRY(const Roofline now, MeasureRoofline(threads));
    Roofline& best = threads_to_roofline[threads];
    best = {std::max(best.read_bytes_per_s, now.read_bytes_per_s), std::max(best.float_ops_per_s, now.float_ops_per_s),
            std::max(best.int_ops_per_s, now.int_ops_per_s)};
  }
  return {};
}

bool IsFloat(std::string_view codec) {
  return codec == "f32" || codec == "f16" || codec == "bf16";
}

// Of all contestants side by side: keys and values, and each layer's queries and outputs in f32.
Result<size_t> NeededBytes(const AttentionBench& bench, const AttentionTask& task) {
  size_t activation_bytes = 0;
  for (const LayerGeometry& layer : task.geometry.layers) {
    activation_bytes +=
        sizeof(float) * size_t(task.num_step_tokens * layer.num_query_heads * (layer.key_dim + layer.value_dim));
  }
  size_t bytes = 0;
  for (const std::string& name : bench.forms) {
    KVIST_TRY(const Form form, ParseForm(name));
    bytes += KvBytes(task.geometry, {.form = form}, task.num_tokens(), kPrefillStepTokens) + activation_bytes;
  }
  for (const std::string& type : bench.ggml_types) {
    KVIST_TRY(const size_t kv_bytes, GgmlKvBytes(task, type));
    bytes += kv_bytes + activation_bytes;
  }
  for (const std::string& type : bench.torch_types) {
    KVIST_TRY(const size_t kv_bytes, TorchKvBytes(task, type));
    bytes += kv_bytes + activation_bytes + kTorchBytes;
  }
  return bytes + bytes / 32;  // masks, partial results
}

// The most layers, from the first on, that fit; 0: not one does.
Result<int> NumLayersThatFit(const AttentionBench& bench, AttentionTask task, size_t free_bytes) {
  for (; !task.geometry.layers.empty(); task.geometry.layers.pop_back()) {
    KVIST_TRY(const size_t needed_bytes, NeededBytes(bench, task));
    if (needed_bytes <= free_bytes) return int(task.geometry.layers.size());
  }
  return 0;
}

std::string GigabytesText(size_t bytes) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.1f GB", double(bytes) / 1e9);
  return text;
}

}  // namespace

Result<CacheGeometry> AttentionGeometry(const std::string& name) {
  auto of_layers = [](int count, const LayerGeometry& layer) {
    CacheGeometry geometry;
    geometry.layers.assign(size_t(count), layer);
    return geometry;
  };
  if (name == "smollm2")
    return of_layers(30, {.num_query_heads = 9, .num_kv_heads = 3, .key_dim = 64, .value_dim = 64});
  if (name == "llama3-8b") {
    return of_layers(32, {.num_query_heads = 32, .num_kv_heads = 8, .key_dim = 128, .value_dim = 128});
  }
  if (name == "qwen2.5-7b") {
    return of_layers(28, {.num_query_heads = 28, .num_kv_heads = 4, .key_dim = 128, .value_dim = 128});
  }
  if (name == "gemma3") {
    auto geometry =
        of_layers(18, {.num_query_heads = 4, .num_kv_heads = 1, .key_dim = 256, .value_dim = 256, .window = 512});
    for (size_t i = 5; i < geometry.layers.size(); i += 6) geometry.layers[i].window = 0;
    return geometry;
  }
  return Fail(ErrorCode::kInvalidArgument, "no geometry '" + name + "'; known: smollm2, gemma3, llama3-8b, qwen2.5-7b");
}

RooflineWork AttentionWork(const AttentionTask& task, std::string_view form, size_t num_bytes_read) {
  const size_t slash = form.find('/');
  const bool k_is_float = IsFloat(form.substr(0, slash));
  const bool v_is_float = slash == form.npos ? k_is_float : IsFloat(form.substr(slash + 1));
  RooflineWork work{.read_bytes = double(num_bytes_read)};
  for (const LayerGeometry& layer : task.geometry.layers) {
    const double pairs = double(NumVisiblePairs(task, layer)) * layer.num_query_heads;
    (k_is_float ? work.float_ops : work.int_ops) += 2 * pairs * layer.key_dim;
    (v_is_float ? work.float_ops : work.int_ops) += 2 * pairs * layer.value_dim;
  }
  return work;
}

Status CheckAttentionMemory(const AttentionBench& bench, size_t free_bytes) {
  KVIST_TRY(const std::vector<Case> cases, CasesOf(bench));
  for (const Case& each : cases) {
    KVIST_TRY(const size_t needed_bytes, NeededBytes(bench, each.task));
    if (needed_bytes <= free_bytes) continue;
    KVIST_TRY(const int num_layers, NumLayersThatFit(bench, each.task, free_bytes));
    return Fail(ErrorCode::kOutOfMemory,
                each.model + " with " + std::to_string(each.task.num_tokens()) + " tokens takes " +
                    GigabytesText(needed_bytes) + " for all contestants side by side and " + GigabytesText(free_bytes) +
                    " are free; " + (num_layers > 0 ? "--layers " + std::to_string(num_layers) + " fits, or" : "") +
                    " compare fewer forms or tokens");
  }
  return {};
}

Result<AttentionResults> MeasureAttention(const AttentionBench& bench,
                                          const std::function<bool(int done, int all)>& progress) {
  KVIST_TRY_VOID(CheckAttentionMemory(bench, FreeMemoryBytes()));
  KVIST_TRY(const std::vector<Case> cases, CasesOf(bench));
  AttentionResults results;
  KVIST_TRY_VOID(MeasureRooflines(bench, results.threads_to_roofline));
  for (size_t i = 0; i < cases.size(); ++i) {
    const auto go_on = [&] { return progress(int(i), int(cases.size())); };
    KVIST_TRY_VOID(MeasureCase(bench, cases[i], go_on, results.timings));
  }
  KVIST_TRY_VOID(MeasureRooflines(bench, results.threads_to_roofline));
  for (AttentionTiming& timing : results.timings) {
    timing.least_time = LeastTime(results.threads_to_roofline[timing.threads], timing.work);
    timing.roofline_share = timing.least_time.seconds * 1e3 / timing.median_ms;
  }
  return results;
}

}  // namespace kvist
