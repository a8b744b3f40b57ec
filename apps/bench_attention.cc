// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bench/micro/attention.h"
#include "bench_commands.h"
#include "option_checks.h"
#include "python_script.h"
#include "record.h"
#include "report.h"
#include "threads.h"

namespace kvist {
namespace {

constexpr int kLongTokens = 131'072;

struct AttentionArguments {
  AttentionBench bench = {.forms = {"f16"},
                          .ggml_types = {"f16"},
                          .phases = {"decode"},
                          .tokens = {1024, 8192},
                          .threads = {NumAvailableCores()}};
  bool with_long = false;
  bool json = false;
  bool progress = false;
};

void WriteRecords(const AttentionResults& results, Output& out) {
  for (const auto& [threads, roofline] : results.threads_to_roofline) {
    const std::pair<const char*, double> metrics[] = {{"read_gb_per_s", roofline.read_bytes_per_s / 1e9},
                                                      {"float_gops_per_s", roofline.float_ops_per_s / 1e9},
                                                      {"int_gops_per_s", roofline.int_ops_per_s / 1e9}};
    for (const auto& [metric, value] : metrics) {
      WriteRecord(
          {.bench = "attention", .impl = "machine", .params = {{"threads", threads}}, .metric = metric, .value = value},
          out);
    }
  }
  for (const AttentionTiming& timing : results.timings) {
    const Json params = {{"model", timing.model}, {"layers", timing.num_layers}, {"phase", timing.phase},
                         {"form", timing.form},   {"tokens", timing.tokens},     {"threads", timing.threads}};
    const std::pair<const char*, Json> metrics[] = {
        {"time_ms", timing.median_ms},
        {"gb_per_s", timing.gb_per_s},
        {"roofline_share", timing.roofline_share},
        {"bound_by", timing.least_time.is_bound_by_memory ? "memory" : "compute"}};
    for (const auto& [metric, value] : metrics) {
      WriteRecord({.bench = "attention", .impl = timing.impl, .params = params, .metric = metric, .value = value}, out);
    }
  }
}

// The fastest of ggml at the same task, 0 when there is none.
double GgmlMs(const std::vector<AttentionTiming>& timings, const AttentionTiming& ours) {
  double fastest = 0;
  for (const AttentionTiming& timing : timings) {
    const bool is_same_task = timing.model == ours.model && timing.phase == ours.phase &&
                              timing.tokens == ours.tokens && timing.threads == ours.threads;
    if (timing.impl != "ggml" || !is_same_task) continue;
    fastest = fastest > 0 ? std::min(fastest, timing.median_ms) : timing.median_ms;
  }
  return fastest;
}

void WriteRooflines(const AttentionResults& results, Output& out) {
  for (const auto& [threads, roofline] : results.threads_to_roofline) {
    char line[160];
    std::snprintf(line, sizeof(line),
                  "roofline, %d thread%s: reads %.1f GB/s, computes %.0f Gop/s in f32 and %.0f Gop/s in int8\n",
                  threads, threads == 1 ? "" : "s", roofline.read_bytes_per_s / 1e9, roofline.float_ops_per_s / 1e9,
                  roofline.int_ops_per_s / 1e9);
    out.Write(line);
  }
}

// "llama3-8b" or "llama3-8b, 16 of 32 layers".
std::string ModelText(const AttentionTiming& timing) {
  if (timing.num_layers == timing.num_model_layers) return timing.model;
  return timing.model + ", " + std::to_string(timing.num_layers) + " of " + std::to_string(timing.num_model_layers) +
         " layers";
}

void WriteTiming(const AttentionTiming& timing, double ggml_ms, Output& out) {
  char line[192];
  std::snprintf(line, sizeof(line), "%-8s %7d %8d  %-6s %-10s %9.2f ms %9.2f GB/s %9.0f %% (%s)", timing.phase.c_str(),
                timing.tokens, timing.threads, timing.impl.c_str(), timing.form.c_str(), timing.median_ms,
                timing.gb_per_s, 100 * timing.roofline_share,
                timing.least_time.is_bound_by_memory ? "memory" : "compute");
  out.Write(line);
  if (ggml_ms > 0) {
    std::snprintf(line, sizeof(line), "%*s%.1fx as fast", timing.least_time.is_bound_by_memory ? 4 : 3, "",
                  ggml_ms / timing.median_ms);
    out.Write(line);
  }
  out.Write("\n");
}

void WriteTable(const AttentionResults& results, Output& out) {
  WriteRooflines(results, out);
  std::string model;
  for (const AttentionTiming& timing : results.timings) {
    if (std::exchange(model, ModelText(timing)) != ModelText(timing)) {
      out.Write("\n" + model +
                "\nphase     tokens  threads  impl   form             time      read rate  of the roofline    against "
                "ggml's best\n");
    }
    WriteTiming(timing, timing.impl == "kvist" ? GgmlMs(results.timings, timing) : 0, out);
  }
  const auto is_from_caches = [](const AttentionTiming& timing) {
    return timing.roofline_share > 1 && timing.least_time.is_bound_by_memory;
  };
  if (std::ranges::any_of(results.timings, is_from_caches)) {
    out.Write("Above 100 % (memory): caches still held keys and values of the run before.\n");
  }
}

Result<AttentionResults> Measure(const AttentionArguments& arguments) {
  AttentionBench bench = arguments.bench;
  if (arguments.with_long && std::ranges::find(bench.tokens, kLongTokens) == bench.tokens.end()) {
    bench.tokens.push_back(kLongTokens);
  }
  if (!bench.torch_types.empty()) {
    KVIST_TRY(bench.torch.worker_script, FindPythonScript("sdpa_worker.py"));
  }
  Progress progress("attention", "cases", arguments.progress);
  return MeasureAttention(bench, [&](int done, int all) {
    progress.Show(done, all);
    return !interrupted();
  });
}

int RunAttention(const AttentionArguments& arguments) {
  CatchInterrupts(true);
  const auto results = Measure(arguments);
  if (!results) return Report(results.error());
  Output out;
  arguments.json ? WriteRecords(*results, out) : WriteTable(*results, out);
  return out.ExitCode(kExitOk);
}

}  // namespace

void AddBenchAttention(CLI::App* bench, Command* chosen) {
  CLI::App* command = bench->add_subcommand("attention",
                                            "Attention of all layers over stored keys and values, beside "
                                            "ggml's flash attention and what the machine can do, in the same run");
  auto arguments = std::make_shared<AttentionArguments>();
  AttentionBench* options = &arguments->bench;
  command->add_option("--geometry", options->models, "Shapes of the models: smollm2, gemma3, llama3-8b, qwen2.5-7b")
      ->delimiter(',')
      ->type_name("NAME,...")
      ->default_str("smollm2");
  command->add_option("--layers", options->num_layers, "Compute only the first layers of each model, to save memory")
      ->check(CheckCount)
      ->type_name("N");
  command->add_option("--form", options->forms, "Forms of our keys and values")
      ->delimiter(',')
      ->check(CheckForm)
      ->type_name("FORM,...")
      ->default_str("f16");
  command->add_option("--ggml", options->ggml_types, "Types of ggml's: f16, f32, bf16, q8_0, q4_0; none for none")
      ->delimiter(',')
      ->type_name("TYPE,...")
      ->default_str("f16");
  CLI::Option* torch = command->add_option("--torch", options->torch.python,
                                           "Measure torch's scaled_dot_product_attention, too, with this Python");
  torch->type_name("PYTHON");
  command->add_option("--torch-type", options->torch_types, "Types of torch's: f32, bf16, f16; default: f32")
      ->delimiter(',')
      ->needs(torch)
      ->type_name("TYPE,...");
  command->add_option("--phase", options->phases, "decode: one token; prefill: the last tokens of a prompt")
      ->delimiter(',')
      ->check(CheckPhase)
      ->type_name("PHASE,...")
      ->default_str("decode");
  command->add_option("--tokens", options->tokens, "Tokens stored")
      ->delimiter(',')
      ->check(CheckCount)
      ->type_name("N,...")
      ->default_str("1024,8192");
  command->add_flag("--long", arguments->with_long, "131072 tokens, too; takes gigabytes and minutes");
  command->add_option("--threads", options->threads, "Threads that compute; the default is the cores there are")
      ->delimiter(',')
      ->check(CheckThreads)
      ->type_name("N,...")
      ->default_str(std::to_string(NumAvailableCores()));
  command->add_option("--rounds", options->num_rounds, "How often each is timed; the median counts")
      ->check(CheckCount)
      ->type_name("N")
      ->capture_default_str();
  command->add_flag("--json", arguments->json, "Print one JSON object a metric");
  command->add_flag("--progress", arguments->progress, "Show progress also when stderr is not a terminal");
  command->callback([=] {
    if (options->ggml_types == std::vector<std::string>{"none"}) options->ggml_types.clear();
    if (torch->count() > 0 && options->torch_types.empty()) options->torch_types = {"f32"};
    *chosen = [=] { return RunAttention(*arguments); };
  });
}

}  // namespace kvist
