// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>

#include "commands.h"
#include "model/golden.h"
#include "model_options.h"
#include "record.h"
#include "report.h"

namespace kvist {
namespace {

struct Arguments {
  ModelArguments model;
  std::string golden_path;
  bool json = false;
  bool progress = false;
};

void WriteRecords(const GoldenReport& report, const Json& params, Output& out) {
  const std::pair<const char*, Json> metrics[] = {
      {"prompts", report.prompts}, {"ids_equal", report.ids_equal},         {"kl_mean", report.kl_mean},
      {"kl_max", report.kl_max},   {"greedy_tokens", report.greedy_tokens}, {"greedy_equal", report.greedy_equal},
  };
  for (const auto& [metric, value] : metrics) {
    WriteRecord({.bench = "eval", .params = params, .metric = metric, .value = value}, out);
  }
}

std::string ReportText(const GoldenReport& report, const Golden& golden) {
  std::string different;
  for (const std::string& name : report.ids_different) different += (different.empty() ? "; not: " : ", ") + name;
  char numbers[256];
  std::snprintf(numbers, sizeof(numbers),
                "KL divergence  %.3g mean, %.3g at most\n"
                "greedy tokens  %d of %d equal\n",
                report.kl_mean, report.kl_max, report.greedy_equal, report.greedy_tokens);
  return "reference      " + golden.model + " by " + golden.reference + "\n" + "token ids      " +
         std::to_string(report.ids_equal) + " of " + std::to_string(report.prompts) + " prompts equal" + different +
         "\n" + numbers;
}

Status Eval(const Arguments& arguments, Output& out) {
  KVIST_TRY(const Golden golden, ReadGolden(arguments.golden_path));
  KVIST_TRY(const LoadedModel loaded, LoadModel(arguments.model));
  Progress progress("eval", "prompts", arguments.progress);
  KVIST_TRY(const GoldenReport report, CompareGolden(golden, *loaded.model, *loaded.cache, *loaded.tokenizer,
                                                     [&](int done, int all) { progress.Show(done, all); }));
  progress.Clear();
  Json params = {{"golden", std::filesystem::path(arguments.golden_path).stem().string()}};
  params.update(ModelParams(arguments.model, loaded));
  arguments.json ? WriteRecords(report, params, out) : out.Write(ReportText(report, golden));
  return {};
}

int RunEval(const Arguments& arguments) {
  Output out;
  const Status status = Eval(arguments, out);
  return status ? out.ExitCode(kExitOk) : Report(status.error());
}

}  // namespace

void AddEvalCommand(CLI::App& program, Command* chosen) {
  CLI::App* command = program.add_subcommand("eval", "Compare a model's results with recorded right values");
  auto arguments = std::make_shared<Arguments>();
  command->add_option("--golden", arguments->golden_path, "File of right values (docs/formats.md)")
      ->required()
      ->type_name("FILE");
  AddModelOptions(command, &arguments->model);
  command->add_flag("--json", arguments->json, "Print one JSON object a metric");
  command->add_flag("--progress", arguments->progress, "Show progress also when stderr is not a terminal");
  command->callback([=] { *chosen = [=] { return RunEval(*arguments); }; });
}

}  // namespace kvist
