// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "bench/scenario/tiers.h"
#include "bench_commands.h"
#include "model_options.h"
#include "option_checks.h"
#include "record.h"
#include "report.h"

namespace kvist {
namespace {

struct TierArguments {
  ModelArguments model;
  std::vector<std::string> forms = {"f16", "q4"};
  std::vector<int> tokens = {1024, 4096};
  TierBench bench;
  bool json = false;
  bool progress = false;
};

// A folder of the benchmark's own, where no tier is given; gone at its end.
class Scratch {
 public:
  Scratch() : path_(std::filesystem::temp_directory_path() / ("kvist-bench-" + std::to_string(getpid()))) {}
  ~Scratch() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

Status BenchTiers(const TierArguments& arguments, Output& out) {
  const Scratch scratch;
  TierBench bench = arguments.bench;
  bench.tokens.assign(arguments.tokens.begin(), arguments.tokens.end());
  bench.tiers = arguments.model.tiers;
  if (bench.tiers.empty()) bench.tiers = {"disk:" + scratch.path()};
  for (const std::string& form : arguments.forms) {
    KVIST_TRY(bench.forms.emplace_back(), ParseForm(form));
  }
  KVIST_TRY(const LoadedModel loaded, LoadModelOnly(arguments.model));
  const Fingerprint fingerprint = loaded.model->fingerprint();
  bench.identity = {ModelName(loaded), {fingerprint.low, fingerprint.high}};
  Progress progress("tiers", "runs", arguments.progress);
  KVIST_TRY(const std::vector<TierTiming> timings, MeasureTiers(*loaded.model, bench, [&](int64_t done, int64_t all) {
              progress.Show(done, all);
              return !interrupted();
            }));
  progress.Clear();
  if (!arguments.json) out.Write("path      form         tokens  what                       value\n");
  for (const TierTiming& timing : timings) {
    if (arguments.json) {
      const Json params = {{"model", ModelName(loaded)},
                           {"path", timing.path},
                           {"form", FormName(timing.form)},
                           {"tokens", timing.tokens},
                           {"threads", loaded.model->num_threads()}};
      WriteRecord({.bench = "tiers", .params = params, .metric = timing.metric, .value = timing.value}, out);
      continue;
    }
    char line[128];
    const bool is_bytes = timing.metric.ends_with("_bytes");
    std::snprintf(line, sizeof(line), "%-9s %-9s %9lld  %-18s %14s\n", timing.path.c_str(),
                  FormName(timing.form).c_str(), static_cast<long long>(timing.tokens), timing.metric.c_str(),
                  is_bytes ? BytesText(timing.value).c_str() : std::to_string(timing.value).c_str());
    out.Write(line);
  }
  return {};
}

int RunTiers(const TierArguments& arguments) {
  CatchInterrupts(true);
  Output out;
  const Status status = BenchTiers(arguments, out);
  return status ? out.ExitCode(kExitOk) : Report(status.error());
}

}  // namespace

void AddBenchTiers(CLI::App* bench, Command* chosen) {
  CLI::App* command = bench->add_subcommand(
      "tiers", "Time to keep a prefix in memory, on disk or in Redis and to have it back, beside computing it");
  auto arguments = std::make_shared<TierArguments>();
  AddModelFileOptions(command, &arguments->model);
  AddThreadsOption(command, &arguments->model);
  AddTierOption(command, &arguments->model);
  command->add_option("--form", arguments->forms, "Forms of keys and values")
      ->delimiter(',')
      ->check(CheckForm)
      ->type_name("FORM,...")
      ->default_str("f16,q4");
  command->add_option("--tokens", arguments->tokens, "Lengths of the prefix")
      ->delimiter(',')
      ->check(CheckCount)
      ->type_name("N,N,...")
      ->default_str("1024,4096");
  command->add_option("--rounds", arguments->bench.num_rounds, "Runs of which the median counts")
      ->check(CheckCount)
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--chats", arguments->bench.num_chats, "Sequences that share the shortest prefix")
      ->check(CheckCount)
      ->type_name("N")
      ->capture_default_str();
  command->add_flag_callback(
      "--no-prefill", [=] { arguments->bench.measures_prefill = false; }, "Don't measure what computing it takes");
  command->add_flag("--json", arguments->json, "Print one JSON object a metric");
  command->add_flag("--progress", arguments->progress, "Show progress also when stderr is not a terminal");
  command->callback([=] { *chosen = [=] { return RunTiers(*arguments); }; });
}

}  // namespace kvist
