// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bench/scenario/load.h"
#include "bench_commands.h"
#include "model_options.h"
#include "option_checks.h"
#include "record.h"
#include "report.h"

namespace kvist {
namespace {

struct LoadArguments {
  ModelArguments model;
  int num_requests = 32, prompt_tokens = 512, output_tokens = 64;
  double shared_share = 0.5;
  bool json = false;
  bool progress = false;
};

void WriteLoad(const LoadResult& result, const LoadArguments& arguments, const LoadedModel& loaded, Output& out) {
  const std::pair<const char*, double> metrics[] = {{"wanted_bytes", double(result.wanted_bytes)},
                                                    {"budget_bytes", double(result.budget_bytes)},
                                                    {"peak_committed_bytes", double(result.peak_committed_bytes)},
                                                    {"peak_resident_bytes", double(result.peak_resident_bytes)},
                                                    {"failed", double(result.num_failed)},
                                                    {"parked", double(result.scheduler.num_parked)},
                                                    {"computed_tokens", double(result.scheduler.num_computed_tokens)},
                                                    {"reused_tokens", double(result.scheduler.num_reused_tokens)},
                                                    {"output_tokens_per_s", result.output_tokens_per_s},
                                                    {"first_token_mean_ms", result.first_token_mean_s * 1e3},
                                                    {"first_token_p95_ms", result.first_token_p95_s * 1e3}};
  Json params = ModelParams(arguments.model, loaded);
  params["requests"] = arguments.num_requests;
  params["prompt_tokens"] = arguments.prompt_tokens;
  params["output_tokens"] = arguments.output_tokens;
  params["shared_share"] = arguments.shared_share;
  for (const auto& [metric, value] : metrics) {
    if (arguments.json) {
      WriteRecord({.bench = "load", .params = params, .metric = metric, .value = value}, out);
      continue;
    }
    char line[96];
    const bool is_bytes = std::string_view(metric).ends_with("_bytes");
    std::snprintf(line, sizeof(line), "%-22s %14s\n", metric,
                  is_bytes ? BytesText(value).c_str() : Json(value).dump().c_str());
    out.Write(line);
  }
}

Status BenchLoad(const LoadArguments& arguments, Output& out) {
  KVIST_TRY(const LoadedModel loaded, LoadModel(arguments.model));
  Progress progress("load", "requests", arguments.progress);
  const LoadOptions options{.num_requests = arguments.num_requests,
                            .prompt_tokens = arguments.prompt_tokens,
                            .output_tokens = arguments.output_tokens,
                            .shared_share = arguments.shared_share};
  KVIST_TRY(const LoadResult result,
            RunLoad(*loaded.model, loaded.tokenizer, *loaded.cache, options, [&](int64_t done, int64_t all) {
              progress.Show(done, all);
              return !interrupted();
            }));
  progress.Clear();
  WriteLoad(result, arguments, loaded, out);
  return {};
}

int RunLoadBench(const LoadArguments& arguments) {
  CatchInterrupts(true);
  Output out;
  const Status status = BenchLoad(arguments, out);
  return status ? out.ExitCode(kExitOk) : Report(status.error());
}

}  // namespace

void AddBenchLoad(CLI::App* bench, Command* chosen) {
  CLI::App* command = bench->add_subcommand(
      "load", "Many requests at once in whatever memory --kv-memory allows: they wait, share and park, none fails");
  auto arguments = std::make_shared<LoadArguments>();
  AddModelOptions(command, &arguments->model);
  AddTierOption(command, &arguments->model);
  arguments->model.shares_prefixes = true;
  const auto count = [&](const char* name, int& value, const char* help) {
    command->add_option(name, value, help)->check(CheckCount)->type_name("N")->capture_default_str();
  };
  count("--requests", arguments->num_requests, "Requests, all at once");
  count("--prompt-tokens", arguments->prompt_tokens, "Tokens of each prompt");
  count("--output-tokens", arguments->output_tokens, "Tokens of each answer at most");
  command->add_option("--shared", arguments->shared_share, "Share of each prompt that is the same in all, 0 to 1")
      ->check(CLI::Range(0.0, 1.0))
      ->type_name("X")
      ->capture_default_str();
  command->add_flag("--json", arguments->json, "Print one JSON object a metric");
  command->add_flag("--progress", arguments->progress, "Show progress also when stderr is not a terminal");
  command->callback([=] { *chosen = [=] { return RunLoadBench(*arguments); }; });
}

}  // namespace kvist
