// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "bench/micro/attention.h"
#include "bench_commands.h"
#include "option_checks.h"
#include "record.h"
#include "report.h"
#include "threads.h"

namespace kvist {
namespace {

struct Arguments {
  AttentionBench bench = {.forms = {"f16"},
                          .ggml_types = {"f16"},
                          .phases = {"decode"},
                          .tokens = {1024, 8192},
                          .threads = {NumAvailableCores()}};
  bool json = false;
  bool progress = false;
};

void WriteRecords(const std::vector<AttentionTiming>& timings, const std::string& model, Output& out) {
  for (const AttentionTiming& timing : timings) {
    const Json params = {{"model", model},
                         {"phase", timing.phase},
                         {"form", timing.form},
                         {"tokens", timing.tokens},
                         {"threads", timing.threads}};
    const std::pair<const char*, double> metrics[] = {{"time_ms", timing.median_ms}, {"gb_per_s", timing.gb_per_s}};
    for (const auto& [metric, value] : metrics) {
      WriteRecord({.bench = "attention", .impl = timing.impl, .params = params, .metric = metric, .value = value}, out);
    }
  }
}

// The fastest of ggml at the same task, 0 when there is none.
double GgmlMs(const std::vector<AttentionTiming>& timings, const AttentionTiming& ours) {
  double fastest = 0;
  for (const AttentionTiming& timing : timings) {
    const bool is_same_task =
        timing.phase == ours.phase && timing.tokens == ours.tokens && timing.threads == ours.threads;
    if (timing.impl != "ggml" || !is_same_task) continue;
    fastest = fastest > 0 ? std::min(fastest, timing.median_ms) : timing.median_ms;
  }
  return fastest;
}

void WriteTable(const std::vector<AttentionTiming>& timings, Output& out) {
  out.Write("phase     tokens  threads  impl   form           time      read rate   against ggml's best\n");
  for (const AttentionTiming& timing : timings) {
    const double ggml_ms = timing.impl == "kvist" ? GgmlMs(timings, timing) : 0;
    char line[160];
    std::snprintf(line, sizeof(line), "%-8s %7d %8d  %-6s %-10s %8.2f ms %9.1f GB/s", timing.phase.c_str(),
                  timing.tokens, timing.threads, timing.impl.c_str(), timing.form.c_str(), timing.median_ms,
                  timing.gb_per_s);
    out.Write(line);
    if (ggml_ms > 0) {
      std::snprintf(line, sizeof(line), "   %.1fx as fast", ggml_ms / timing.median_ms);
      out.Write(line);
    }
    out.Write("\n");
  }
}

int RunAttention(const Arguments& arguments) {
  CatchInterrupts(true);
  Output out;
  Progress progress("attention", "cases", arguments.progress);
  const auto timings = MeasureAttention(arguments.bench, [&](int done, int all) {
    progress.Show(done, all);
    return !interrupted();
  });
  progress.Clear();
  if (!timings) return Report(timings.error());
  arguments.json ? WriteRecords(*timings, arguments.bench.model, out) : WriteTable(*timings, out);
  return out.ExitCode(kExitOk);
}

}  // namespace

void AddBenchAttention(CLI::App* bench, Command* chosen) {
  CLI::App* command = bench->add_subcommand("attention",
                                            "Attention of all layers over stored keys and values, beside "
                                            "ggml's flash attention in the same run");
  auto arguments = std::make_shared<Arguments>();
  AttentionBench* options = &arguments->bench;
  command->add_option("--geometry", options->model, "Shape of the model: smollm2, gemma3, llama3-8b, qwen2.5-7b")
      ->type_name("NAME")
      ->capture_default_str();
  command->add_option("--form", options->forms, "Forms of our keys and values")
      ->delimiter(',')
      ->check(CheckForm)
      ->type_name("FORM,...")
      ->default_str("f16");
  command->add_option("--ggml", options->ggml_types, "Types of ggml's: f16, f32, bf16, q8_0, q4_0; none for none")
      ->delimiter(',')
      ->type_name("TYPE,...")
      ->default_str("f16");
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
    *chosen = [=] { return RunAttention(*arguments); };
  });
}

}  // namespace kvist
