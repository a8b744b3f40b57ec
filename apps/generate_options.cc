// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "generate_options.h"

#include <cmath>
#include <string>

#include "option_checks.h"

namespace kvist {
namespace {

// A number in [least, most], or with `open` in (least, most].
CLI::Validator Within(double least, double most, const std::string& range, bool open = false) {
  const auto check = [=](const std::string& text) -> std::string {
    char* end = nullptr;
    const double number = std::strtod(text.c_str(), &end);
    const bool is_within = number <= most && (open ? number > least : number >= least);
    if (end != text.c_str() && *end == '\0' && std::isfinite(number) && is_within) return "";
    return "'" + text + "' is not " + range;
  };
  return CLI::Validator(check, "");
}

std::string CheckSeed(const std::string& text) {
  const bool is_number = !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
  return is_number ? "" : "'" + text + "' is not a whole number, 0 or more";
}

void AddSamplerOptions(CLI::App* command, GenerateArguments* arguments) {
  SamplerOptions* sampler = &arguments->options.sampler;
  const std::string group = "Sampling";
  command->add_option("--temperature", sampler->temperature, "0 takes the likeliest token; more is more varied")
      ->check(Within(0, 1e6, "0 or more"))
      ->type_name("X");
  command->add_option("--top-k", sampler->top_k, "Draw from the K likeliest tokens; 0 for all")
      ->check(Within(0, 1e9, "0 or more"))
      ->type_name("K");
  command->add_option("--top-p", sampler->top_p, "Draw from the likeliest tokens that make up probability P; 1 for all")
      ->check(Within(0, 1, "above 0 and at most 1", true))
      ->type_name("P");
  command
      ->add_option("--min-p", sampler->min_p, "Draw from tokens at least P times as likely as the likeliest; 0 for all")
      ->check(Within(0, 0.999999, "from 0 to below 1"))
      ->type_name("P");
  command->add_option("--repetition-penalty", sampler->repetition_penalty, "Above 1 makes recent tokens less likely")
      ->check(Within(0, 1e6, "above 0", true))
      ->type_name("X");
  command->add_option("--repetition-window", sampler->repetition_window, "Tokens that count as recent")
      ->check(Within(0, 1e9, "0 or more"))
      ->type_name("N");
  command->add_option("--seed", sampler->seed, "The same seed draws the same tokens")->check(CheckSeed)->type_name("N");
  for (const char* name :
       {"--temperature", "--top-k", "--top-p", "--min-p", "--repetition-penalty", "--repetition-window", "--seed"}) {
    command->get_option(name)->group(group)->capture_default_str();
  }
}

std::string RetainHelp() {
  RetainSettings defaults;
  defaults.options.policy = RetentionPolicy::kSnapKv;
  std::string shapes;
  for (const BudgetShape shape :
       {BudgetShape::kUniform, BudgetShape::kPyramid, BudgetShape::kAdaptive, BudgetShape::kGlobal}) {
    shapes += std::string(shapes.empty() ? "" : ", ") + BudgetShapeName(shape);
  }
  return "Give up tokens once the prompt is computed, and while the answer grows, as in " + RetainSpec(defaults) +
         ", which are the defaults of the options; or with tokens=1024 instead of keep, or margin=256, the tokens that "
         "an "
         "answer grows by before some are given up again (else a quarter of what is kept, 128 to 1024). Policies: " +
         RetentionPolicyNames() + "; shapes: " + shapes +
         " (kvzip's own; docs/compression.md). `kvist eval --retain` takes a list of policies instead";
}

}  // namespace

ModelArguments ModelToLoad(const GenerateArguments& arguments) {
  ModelArguments model = arguments.model;
  const bool gives_up = arguments.options.retain.is_on() || arguments.options.stream;
  if (gives_up && model.tiers.empty() && !model.reuses_moved_chunks) model.shares_prefixes = false;
  return model;
}

void AddGenerateOptions(CLI::App* command, GenerateArguments* arguments) {
  AddModelOptions(command, &arguments->model);
  AddTierOption(command, &arguments->model);
  arguments->model.shares_prefixes = true;
  command->add_flag("--reuse-moved", arguments->model.reuses_moved_chunks,
                    "Also reuse what was computed behind other text, at another position, as for a document behind "
                    "another beginning, of what is in this process's memory (tiers are not searched): faster, and only "
                    "approximately the same answer (docs/tiers.md)");
  command->add_option("-n,--max-tokens", arguments->options.max_tokens, "Tokens to generate at most")
      ->check(Within(0, 1e9, "0 or more"))
      ->type_name("N")
      ->capture_default_str();
  command
      ->add_option("--pages", arguments->options.sequence.pages.num_tokens,
                   "Tokens of output read so many tokens of each lane, those in the blocks that promise the largest "
                   "scores; nothing is given up; 0: all (docs/compression.md)")
      ->check(CheckCountOrZero)
      ->type_name("N")
      ->capture_default_str();
  command
      ->add_option_function<std::string>(
          "--retain", [=](const std::string& spec) { arguments->options.retain = ParseRetain(spec).value(); },
          RetainHelp())
      ->check(CheckRetain)
      ->type_name("POLICY[:OPTIONS]");
  command
      ->add_option_function<std::string>(
          "--stream", [=](const std::string& spec) { arguments->options.stream = ParseStream(spec).value(); },
          "A text without end in a window that slides: window=1024,overlap=128,sinks=4, or some of them "
          "(docs/strategies.md)")
      ->check(CheckStream)
      ->type_name("SPEC");
  command->add_option("--stop", arguments->options.stops, "End the output before this text; may be given several times")
      ->type_name("TEXT")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->check([](const std::string& text) { return std::string(text.empty() ? "the text is empty" : ""); });
  command->add_option("--system", arguments->system, "System message of the chat; the default is the template's own")
      ->type_name("TEXT");
  command->add_flag("--stats", arguments->stats, "Print statistics on stderr at the end");
  command->add_flag("--json", arguments->json, "Print one JSON object a result instead of the text");
  command->add_flag("--progress", arguments->progress, "Show progress also when stderr is not a terminal");
  AddSamplerOptions(command, arguments);
}

}  // namespace kvist
