// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "bench/scenario/moved.h"
#include "bench_commands.h"
#include "model_options.h"
#include "option_checks.h"
#include "read_file.h"
#include "record.h"
#include "report.h"

namespace kvist {
namespace {

struct MovedArguments {
  ModelArguments model;
  std::string text_path;
  MovedOptions moved;
  bool json = false;
  bool progress = false;
};

void WriteRecords(const MovedReport& report, const Json& params, Output& out) {
  for (const MovedPoint& point : report.points) {
    Json of_point = params;
    of_point["way"] = point.recomputed_tokens ? "moved" : "no_beginning";
    if (point.recomputed_tokens) of_point["recomputed_tokens"] = *point.recomputed_tokens;
    const std::pair<const char*, Json> metrics[] = {
        {"tokens", point.quality.num_tokens},
        {"kl_mean", point.quality.kl.mean},
        {"kl_se", point.quality.kl.standard_error},
        {"kl_p99", point.quality.kl_p99},
        {"same_top", point.quality.same_top},
        {"perplexity", point.quality.perplexity},
        {"ln_perplexity_difference", point.quality.ln_perplexity_difference.mean},
        {"document_ms", point.document_ms},
        {"computed_document_ms", report.computed_document_ms},
    };
    for (const auto& [metric, value] : metrics) {
      WriteRecord({.bench = "moved", .params = of_point, .metric = metric, .value = value}, out);
    }
  }
}

void WriteTable(const MovedReport& report, Output& out) {
  char line[192];
  std::snprintf(line, sizeof(line), "computing the document takes %.0f ms\n\n", report.computed_document_ms);
  out.Write(line);
  out.Write("recomputed   document      KL, nats: mean  99 % below  same top  perplexity  ln perplexity more\n");
  for (const MovedPoint& point : report.points) {
    const std::string way = point.recomputed_tokens ? std::to_string(*point.recomputed_tokens) : "no beginning";
    const FormQuality& quality = point.quality;
    std::snprintf(line, sizeof(line), "%-12s %5.0f ms  %8.4f +- %6.4f  %10.3f  %7.1f%%  %10.4g  %+.4f +- %.4f\n",
                  way.c_str(), point.document_ms, quality.kl.mean, quality.kl.standard_error, quality.kl_p99,
                  100 * quality.same_top, quality.perplexity, quality.ln_perplexity_difference.mean,
                  quality.ln_perplexity_difference.standard_error);
    out.Write(line);
  }
}

Json Params(const MovedArguments& arguments, const LoadedModel& loaded) {
  return {{"text", std::filesystem::path(arguments.text_path).stem().string()},
          {"model", ModelName(loaded)},
          {"form", FormName(arguments.moved.cache.form)},
          {"weights", arguments.model.weights},
          {"threads", loaded.model->num_threads()},
          {"rounds", arguments.moved.num_rounds},
          {"document_tokens", arguments.moved.document_tokens}};
}

Status BenchMoved(MovedArguments arguments, Output& out) {
  KVIST_TRY(const std::string text, ReadFile(arguments.text_path));
  KVIST_TRY(arguments.moved.cache.form, ParseForm(arguments.model.form));
  KVIST_TRY(const LoadedModel loaded, LoadModelOnly(arguments.model));
  arguments.moved.cache.budget_bytes = arguments.model.kv_memory_bytes;
  const std::vector<Token> start = loaded.tokenizer->Encode("");
  if (!start.empty()) arguments.moved.bos = start.front();
  const std::vector<Token> tokens = loaded.tokenizer->Encode(text, {.add_special = false, .parse_special = false});
  Progress progress("moved", "rounds", arguments.progress);
  KVIST_TRY(const MovedReport report,
            MeasureMoved(*loaded.model, tokens, arguments.moved, [&](int64_t done, int64_t all) {
              progress.Show(done, all);
              return !interrupted();
            }));
  progress.Clear();
  arguments.json ? WriteRecords(report, Params(arguments, loaded), out) : WriteTable(report, out);
  return {};
}

int RunMoved(const MovedArguments& arguments) {
  CatchInterrupts(true);
  Output out;
  const Status status = BenchMoved(arguments, out);
  return status ? out.ExitCode(kExitOk) : Report(status.error());
}

}  // namespace

void AddBenchMoved(CLI::App* bench, Command* chosen) {
  CLI::App* command = bench->add_subcommand(
      "moved", "What reusing a document behind another beginning (--reuse-moved) does to what a model predicts");
  auto arguments = std::make_shared<MovedArguments>();
  AddModelOptions(command, &arguments->model);
  command->add_option("-f,--file", arguments->text_path, "A text to take beginnings, documents and continuations from")
      ->required()
      ->type_name("FILE");
  command->add_option("--rounds", arguments->moved.num_rounds, "Documents, each behind two beginnings")
      ->check(CheckCount)
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--document", arguments->moved.document_tokens, "Tokens of a document")
      ->check(CheckCount)
      ->type_name("N")
      ->capture_default_str();
  command
      ->add_option("--recomputed", arguments->moved.recomputed_tokens, "First tokens of a document that are recomputed")
      ->delimiter(',')
      ->check(CheckCountOrZero)
      ->type_name("N,N,...")
      ->default_str("0,16,32,64,128");
  command->add_flag("--json", arguments->json, "Print one JSON object a metric");
  command->add_flag("--progress", arguments->progress, "Show progress also when stderr is not a terminal");
  command->callback([=] { *chosen = [=] { return RunMoved(*arguments); }; });
}

}  // namespace kvist
