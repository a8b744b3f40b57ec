// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "bench_speed.h"

#include <cstdio>

#include "option_checks.h"
#include "record.h"
#include "report.h"
#include "threads.h"

namespace kvist {
namespace {

std::string ListText(const std::vector<int64_t>& numbers) {
  std::string text;
  for (const int64_t number : numbers) text += (text.empty() ? "" : ",") + std::to_string(number);
  return text;
}

Json ParamsOf(const SpeedTiming& timing, const SpeedArguments& arguments, const std::string& model) {
  return {{"model", model},
          {"form", FormName(timing.form)},
          {"weights", arguments.model.weights},
          {"depth", timing.depth},
          {"tokens", arguments.speed.num_tokens},
          {"sequences", arguments.speed.num_sequences},
          {"threads", timing.num_threads}};
}

std::string Line(const SpeedTiming& timing) {
  char text[128];
  const std::string pages = timing.page_tokens == 0 ? "all" : std::to_string(timing.page_tokens);
  std::snprintf(text, sizeof(text), "%8lld %8d  %-10s %6s %10.1f %12s\n", static_cast<long long>(timing.depth),
                timing.num_threads, FormName(timing.form).c_str(), pages.c_str(), timing.tokens_per_s,
                BytesText(double(timing.kv_bytes)).c_str());
  return text;
}

Status BenchSpeed(const char* bench, const SpeedArguments& arguments, Output& out, MeasureSpeed* measure) {
  SpeedBench speed = arguments.speed;
  for (const std::string& form : arguments.forms) {
    KVIST_TRY(speed.forms.emplace_back(), ParseForm(form));
  }
  speed.page_tokens.insert(speed.page_tokens.end(), arguments.pages.begin(), arguments.pages.end());
  Progress progress(bench, "runs", arguments.progress);
  std::vector<SpeedTiming> timings;
  std::string name;
  for (const int num_threads : arguments.threads) {
    ModelArguments model = arguments.model;
    model.num_threads = num_threads;
    KVIST_TRY(const LoadedModel loaded, LoadModelOnly(model));
    name = ModelName(loaded);
    KVIST_TRY(const auto of_threads, measure(*loaded.model, speed, [&](int64_t done, int64_t all) {
                progress.Show(done, all);
                return !interrupted();
              }));
    timings.insert(timings.end(), of_threads.begin(), of_threads.end());
  }
  progress.Clear();
  if (!arguments.json) out.Write("   depth  threads  form         read   tokens/s           KV\n");
  for (const SpeedTiming& timing : timings) {
    if (!arguments.json) {
      out.Write(Line(timing));
      continue;
    }
    Json params = ParamsOf(timing, arguments, name);
    if (!arguments.pages.empty()) params["pages"] = timing.page_tokens;
    WriteRecord({.bench = bench, .params = params, .metric = "tokens_per_s", .value = timing.tokens_per_s}, out);
  }
  return {};
}

}  // namespace

void AddSpeedOptions(CLI::App* command, SpeedArguments* arguments) {
  SpeedBench* speed = &arguments->speed;
  arguments->threads = {NumAvailableCores()};
  AddModelFileOptions(command, &arguments->model);
  command->add_option("--form", arguments->forms, "Forms of keys and values, timed in turn")
      ->delimiter(',')
      ->check(CheckForm)
      ->type_name("FORM,...")
      ->default_str("f16");
  command->add_option("--depth", speed->depths, "Tokens that are stored before; they are filled in, not computed")
      ->delimiter(',')
      ->check(CheckCountOrZero)
      ->type_name("N,...")
      ->default_str(ListText(speed->depths));
  command->add_option("--tokens", speed->num_tokens, "Tokens of one run")
      ->check(CheckCount)
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--threads", arguments->threads, "Threads that compute; the default is the cores there are")
      ->delimiter(',')
      ->check(CheckThreads)
      ->type_name("N,...")
      ->default_str(std::to_string(NumAvailableCores()));
  command->add_option("--rounds", speed->num_rounds, "How often each is timed; the median counts")
      ->check(CheckCount)
      ->type_name("N")
      ->capture_default_str();
  command->add_flag("--json", arguments->json, "Print one JSON object a metric");
  command->add_flag("--progress", arguments->progress, "Show progress also when stderr is not a terminal");
}

int RunSpeedBench(const char* bench, const SpeedArguments& arguments, MeasureSpeed* measure) {
  CatchInterrupts(true);
  Output out;
  const Status status = BenchSpeed(bench, arguments, out, measure);
  return status ? out.ExitCode(kExitOk) : Report(status.error());
}

}  // namespace kvist
