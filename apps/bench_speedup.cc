// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "bench/scenario/speedup.h"
#include "bench_commands.h"
#include "model_options.h"
#include "option_checks.h"
#include "record.h"
#include "report.h"

namespace kvist {
namespace {

struct SpeedupArguments {
  ModelArguments model;
  std::string prompt = "The three most important inventions of the nineteenth century were";
  std::vector<int> tokens = {16, 32, 64};
  bool json = false;
  bool progress = false;
};

void WriteRecords(const std::vector<SpeedupPoint>& points, const Json& params, Output& out) {
  for (const SpeedupPoint& point : points) {
    Json with_tokens = params;
    with_tokens["tokens"] = point.num_tokens;
    const std::pair<const char*, double> metrics[] = {{"with_cache_ms", point.with_cache_ms},
                                                      {"without_cache_ms", point.without_cache_ms},
                                                      {"speedup", point.without_cache_ms / point.with_cache_ms}};
    for (const auto& [metric, value] : metrics) {
      WriteRecord({.bench = "speedup", .params = with_tokens, .metric = metric, .value = value}, out);
    }
  }
}

void WriteTable(const std::vector<SpeedupPoint>& points, Output& out) {
  out.Write("  tokens   with cache  recomputing   speedup\n");
  for (const SpeedupPoint& point : points) {
    char line[96];
    std::snprintf(line, sizeof(line), "%8d %9.0f ms %9.0f ms %8.1fx\n", point.num_tokens, point.with_cache_ms,
                  point.without_cache_ms, point.without_cache_ms / point.with_cache_ms);
    out.Write(line);
  }
}

Status BenchSpeedup(const SpeedupArguments& arguments, Output& out) {
  KVIST_TRY(const LoadedModel loaded, LoadModel(arguments.model));
  const std::vector<Token> prompt = loaded.tokenizer->Encode(arguments.prompt);
  Progress progress("speedup", "tokens", arguments.progress);
  KVIST_TRY(const std::vector<SpeedupPoint> points,
            MeasureSpeedup(*loaded.model, *loaded.cache, prompt, arguments.tokens, [&](int64_t done, int64_t all) {
              progress.Show(done, all);
              return !interrupted();
            }));
  progress.Clear();
  Json params = ModelParams(arguments.model, loaded);
  params["prompt_tokens"] = prompt.size();
  arguments.json ? WriteRecords(points, params, out) : WriteTable(points, out);
  return {};
}

int RunSpeedup(const SpeedupArguments& arguments) {
  CatchInterrupts(true);
  Output out;
  const Status status = BenchSpeedup(arguments, out);
  return status ? out.ExitCode(kExitOk) : Report(status.error());
}

}  // namespace

void AddBenchSpeedup(CLI::App* bench, Command* chosen) {
  CLI::App* command = bench->add_subcommand(
      "speedup", "Time to generate tokens with the cache, and by computing the whole text again for each");
  auto arguments = std::make_shared<SpeedupArguments>();
  AddModelOptions(command, &arguments->model);
  command->add_option("--tokens", arguments->tokens, "Lengths to generate; time grows with the square of the longest")
      ->delimiter(',')
      ->check(CheckCount)
      ->type_name("N,N,...")
      ->default_str("16,32,64");
  command->add_option("-p,--prompt", arguments->prompt, "The text to continue")
      ->type_name("TEXT")
      ->capture_default_str();
  command->add_flag("--json", arguments->json, "Print one JSON object a metric");
  command->add_flag("--progress", arguments->progress, "Show progress also when stderr is not a terminal");
  command->callback([=] { *chosen = [=] { return RunSpeedup(*arguments); }; });
}

}  // namespace kvist
