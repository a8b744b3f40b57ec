// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "bench/micro/attention.h"

#include <algorithm>
#include <memory>

#include "model/attention_contest.h"

namespace kvist {
namespace {

constexpr int kPrefillStepTokens = 512;

struct Contestant {
  std::string impl, form;
  std::unique_ptr<AttentionContestant> contestant;
  std::vector<double> times_ms;
};

double Median(std::vector<double> numbers) {
  std::ranges::sort(numbers);
  return numbers[numbers.size() / 2];
}

Result<std::vector<Contestant>> OpenContestants(const AttentionBench& bench, const AttentionTask& task) {
  std::vector<Contestant> contestants;
  for (const std::string& name : bench.forms) {
    KVIST_TRY(const Form form, ParseForm(name));
    KVIST_TRY(auto contestant, AttentionContestant::OpenKvist(task, form));
    contestants.push_back({"kvist", name, std::move(contestant), {}});
  }
  for (const std::string& type : bench.ggml_types) {
    KVIST_TRY(auto contestant, AttentionContestant::OpenGgml(task, type));
    contestants.push_back({"ggml", type, std::move(contestant), {}});
  }
  return contestants;
}

Status MeasureCase(const AttentionBench& bench, const std::string& phase, int tokens, const AttentionTask& task,
                   std::vector<AttentionTiming>& timings) {
  KVIST_TRY(std::vector<Contestant> contestants, OpenContestants(bench, task));
  for (Contestant& each : contestants) each.contestant->RunOnce();  // memory and threads warm up
  for (int round = 0; round < bench.num_rounds; ++round) {
    for (Contestant& each : contestants) each.times_ms.push_back(each.contestant->RunOnce());
  }
  for (const Contestant& each : contestants) {
    const double median_ms = Median(each.times_ms);
    timings.push_back({each.impl, each.form, phase, tokens, task.num_threads, median_ms,
                       double(each.contestant->num_bytes_read()) / median_ms / 1e6});
  }
  return {};
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

Result<std::vector<AttentionTiming>> MeasureAttention(const AttentionBench& bench,
                                                      const std::function<bool(int done, int all)>& progress) {
  KVIST_TRY(const CacheGeometry geometry, AttentionGeometry(bench.model));
  std::vector<AttentionTiming> timings;
  const auto num_cases = int(bench.phases.size() * bench.threads.size() * bench.tokens.size());
  int done = 0;
  for (const std::string& phase : bench.phases) {
    for (const int threads : bench.threads) {
      for (const int tokens : bench.tokens) {
        if (!progress(done++, num_cases)) return Fail(ErrorCode::kCancelled, "stopped");
        const int step_tokens = phase == "decode" ? 1 : std::min(tokens, kPrefillStepTokens);
        KVIST_TRY_VOID(
            MeasureCase(bench, phase, tokens, {geometry, tokens - step_tokens, step_tokens, threads}, timings));
      }
    }
  }
  return timings;
}

}  // namespace kvist
