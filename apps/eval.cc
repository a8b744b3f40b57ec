// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "commands.h"
#include "engine/quality.h"
#include "eval_retain.h"
#include "eval_stream.h"
#include "model/golden.h"
#include "model_options.h"
#include "option_checks.h"
#include "quality_output.h"
#include "read_file.h"
#include "record.h"
#include "report.h"

namespace kvist {
namespace {

struct EvalArguments {
  ModelArguments model;
  std::optional<std::string> golden_path;
  std::optional<std::string> text_path;
  std::vector<std::string> forms;
  std::vector<std::string> k_codecs;
  std::vector<std::string> v_codecs;
  QualityOptions quality;
  RetainArguments retain;
  StreamArguments stream;
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

Status EvalGolden(const EvalArguments& arguments, Output& out) {
  if (arguments.forms.size() > 1) {
    return Fail(ErrorCode::kInvalidArgument, "--golden compares one form at a time; give one with --form");
  }
  ModelArguments model = arguments.model;
  if (!arguments.forms.empty()) model.form = arguments.forms.front();
  KVIST_TRY(const Golden golden, ReadGolden(*arguments.golden_path));
  KVIST_TRY(const LoadedModel loaded, LoadModel(model));
  Progress progress("eval", "prompts", arguments.progress);
  KVIST_TRY(const GoldenReport report, CompareGolden(golden, *loaded.model, *loaded.cache, *loaded.tokenizer,
                                                     [&](int done, int all) { progress.Show(done, all); }));
  progress.Clear();
  Json params = {{"golden", std::filesystem::path(*arguments.golden_path).stem().string()}};
  params.update(ModelParams(model, loaded));
  arguments.json ? WriteRecords(report, params, out) : out.Write(ReportText(report, golden));
  return {};
}

// What is measured when no form is asked for: the noise, and every quantised codec.
std::vector<std::string> Ladder() {
  std::vector<std::string> names = {CodecName(Codec::kF16)};
  for (const Codec codec : kAllCodecs) {
    if (IsQuantised(codec)) names.push_back(CodecName(codec));
  }
  return names;
}

// Forms by name, or every pair of codecs, or the ladder.
Result<std::vector<Form>> FormsOf(const EvalArguments& arguments) {
  std::vector<std::string> names = arguments.forms;
  for (const std::string& k : arguments.k_codecs) {
    for (const std::string& v : arguments.v_codecs) names.push_back(k + "/" + v);
  }
  const bool measures_tokens = arguments.retain.is_asked_for() || !arguments.stream.streams.empty();
  if (names.empty()) names = measures_tokens ? std::vector<std::string>{"f16"} : Ladder();
  std::vector<Form> forms;
  for (const std::string& name : names) {
    KVIST_TRY(const Form form, ParseForm(name));
    forms.push_back(form);
  }
  return forms;
}

Result<std::string> ReadText(const std::string& path) {
  KVIST_TRY(std::string text, ReadFile(path));
  if (text.empty()) return Fail(ErrorCode::kInvalidArgument, "the file '" + path + "' is empty; give it some text");
  if (text.find('\0') != std::string::npos) {
    return Fail(ErrorCode::kInvalidArgument, "the file '" + path + "' is not text: it holds bytes of 0");
  }
  return text;
}

// The token that the model wants before every text, if it wants one.
std::optional<Token> WindowStart(const Tokenizer& tokenizer) {
  const std::vector<Token> start = tokenizer.Encode("");
  return !start.empty() && start.front() == tokenizer.bos() ? tokenizer.bos() : std::nullopt;
}

// The first window's first token is where others have one of the text that WindowStart stands for.
std::vector<Token> Tokenize(const std::string& text, const Tokenizer& tokenizer) {
  std::vector<Token> tokens = tokenizer.Encode(text, {.add_special = false, .parse_special = false});
  if (const auto start = WindowStart(tokenizer)) tokens.insert(tokens.begin(), *start);
  return tokens;
}

// What is held fixed in every measurement on a text.
Json TextParams(const EvalArguments& arguments, const LoadedModel& loaded) {
  const QualityOptions& quality = arguments.quality;
  return {{"text", std::filesystem::path(*arguments.text_path).stem().string()},
          {"model", ModelName(loaded)},
          {"weights", arguments.model.weights},
          {"threads", loaded.model->num_threads()},
          {"recent_tokens", quality.cache.sealing.recent_tokens},
          {"sink_tokens", quality.cache.sealing.sink_tokens}};
}

Json QualityParams(const EvalArguments& arguments, Json params) {
  const QualityOptions& quality = arguments.quality;
  params["context"] = quality.window_tokens;
  params["windows"] = quality.num_windows;
  params["regime"] = quality.after_the_fact ? "after_the_fact" : "online";
  return params;
}

Status EvalText(const EvalArguments& arguments, Output& out) {
  KVIST_TRY(const std::vector<Form> forms, FormsOf(arguments));
  KVIST_TRY(const std::string text, ReadText(*arguments.text_path));
  KVIST_TRY(const LoadedModel loaded, LoadModelOnly(arguments.model));
  QualityOptions options = arguments.quality;
  options.cache.budget_bytes = arguments.model.kv_memory_bytes;
  KVIST_TRY(options.cache.growth, ParseGrowth(arguments.model.growth));
  options.bos = WindowStart(*loaded.tokenizer);
  const std::vector<Token> tokens = Tokenize(text, *loaded.tokenizer);
  CatchInterrupts(true);
  Progress progress("eval", "tokens", arguments.progress);
  const Json params = TextParams(arguments, loaded);
  if (arguments.retain.is_asked_for()) {
    return EvalRetention(arguments.retain, forms, loaded, tokens, options, params, progress, arguments.json, out);
  }
  if (!arguments.stream.streams.empty()) {
    return EvalStreams(arguments.stream, forms, loaded, tokens, options, params, progress, arguments.json, out);
  }
  KVIST_TRY(const QualityReport report,
            MeasureQuality(*loaded.model, tokens, forms, options, [&](int64_t done, int64_t all) {
              progress.Show(done, all);
              return !interrupted();
            }));
  progress.Clear();
  arguments.json ? WriteQualityRecords(report, QualityParams(arguments, params), out)
                 : WriteQualityTable(report, options, out);
  return {};
}

Status Eval(const EvalArguments& arguments, Output& out) {
  if (arguments.golden_path.has_value() == arguments.text_path.has_value()) {
    return Fail(ErrorCode::kInvalidArgument,
                "give either a text with -f FILE or a file of recorded values with --golden FILE");
  }
  return arguments.golden_path ? EvalGolden(arguments, out) : EvalText(arguments, out);
}

int RunEval(const EvalArguments& arguments) {
  Output out;
  const Status status = Eval(arguments, out);
  return status ? out.ExitCode(kExitOk) : Report(status.error());
}

void AddFormOptions(CLI::App* command, CLI::Option* text, EvalArguments* arguments) {
  CLI::Option* forms =
      command
          ->add_option("--form", arguments->forms,
                       "Forms to measure, side by side; the default is f16 and all quantised ones. With --golden one, "
                       "by default f16")
          ->delimiter(',')
          ->check(CheckForm)
          ->type_name("FORM,...");
  CLI::Option* k_codecs = command->add_option("--form-k", arguments->k_codecs, "Or all pairs of these codecs of keys");
  CLI::Option* v_codecs = command->add_option("--form-v", arguments->v_codecs, "and these of values");
  for (CLI::Option* option : {k_codecs, v_codecs}) {
    option->delimiter(',')->check(CheckCodec)->type_name("CODEC,...")->needs(text)->excludes(forms);
  }
  k_codecs->needs(v_codecs);
  v_codecs->needs(k_codecs);
}

void AddQualityOptions(CLI::App* command, CLI::Option* text, QualityOptions* options) {
  command->add_option("--context", options->window_tokens, "Tokens of a window; its second half is compared")
      ->check(CheckCount)
      ->type_name("N")
      ->capture_default_str()
      ->needs(text);
  command->add_option("--windows", options->num_windows, "Windows of the text")
      ->check(CheckCount)
      ->type_name("N")
      ->capture_default_str()
      ->needs(text);
  SealingOptions* sealing = &options->cache.sealing;
  command->add_option("--recent", sealing->recent_tokens, "Last tokens that each token sees not yet quantised")
      ->check(CheckCountOrZero)
      ->type_name("N")
      ->capture_default_str()
      ->needs(text);
  command->add_option("--sinks", sealing->sink_tokens, "First tokens whose blocks are never quantised")
      ->check(CheckCountOrZero)
      ->type_name("N")
      ->capture_default_str()
      ->needs(text);
  command
      ->add_flag("--after-the-fact", options->after_the_fact,
                 "Quantise a window's first half when all of it is computed, not as it comes")
      ->needs(text);
}

}  // namespace

void AddEvalCommand(CLI::App& program, Command* chosen) {
  CLI::App* command = program.add_subcommand(
      "eval", "Measure what the forms of keys and values lose, or compare with recorded right values");
  auto arguments = std::make_shared<EvalArguments>();
  CLI::Option* text = command
                          ->add_option("-f,--file", arguments->text_path,
                                       "A text: how far a model's predictions with each form are from those with f32")
                          ->type_name("FILE");
  command->add_option("--golden", arguments->golden_path, "Or a file of right values (docs/formats.md)")
      ->type_name("FILE");
  AddModelFileOptions(command, &arguments->model);
  CLI::Option* weights = command->get_option("--weights")->default_str("f32 with -f, else file");
  AddFormOptions(command, text, arguments.get());
  AddQualityOptions(command, text, &arguments->quality);
  AddRetainOptions(command, text, &arguments->retain);
  AddStreamOptions(command, text, &arguments->stream);
  AddThreadsOption(command, &arguments->model);
  AddMemoryOptions(command, &arguments->model);
  command->add_flag("--json", arguments->json, "Print one JSON object a metric");
  command->add_flag("--progress", arguments->progress, "Show progress also when stderr is not a terminal");
  command->callback([=] {
    // Beside quantised weights ggml quantises activations, which is far more noise than most forms make.
    if (arguments->text_path && weights->count() == 0) arguments->model.weights = "f32";
    *chosen = [=] { return RunEval(*arguments); };
  });
}

}  // namespace kvist
