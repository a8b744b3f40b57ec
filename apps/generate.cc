// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include <cstdio>
#include <memory>
#include <optional>
#include <string>

#include "commands.h"
#include "engine/conversation.h"
#include "generate_options.h"
#include "generation_output.h"
#include "read_file.h"
#include "report.h"
#include "terminal.h"

namespace kvist {
namespace {

struct PromptArguments : GenerateArguments {
  std::optional<std::string> prompt;
  std::optional<std::string> prompt_path;
};

Result<std::string> ReadPrompt(const PromptArguments& arguments) {
  if (!arguments.prompt && !arguments.prompt_path) {
    return Fail(ErrorCode::kInvalidArgument,
                "give the prompt with -p TEXT, with -f FILE, or with both: a text about a file");
  }
  if (arguments.prompt && arguments.prompt->empty()) {
    return Fail(ErrorCode::kInvalidArgument, "the prompt is empty; give some text with -p, or a file of it with -f");
  }
  if (!arguments.prompt_path) return *arguments.prompt;
  KVIST_TRY(std::string text, ReadFile(*arguments.prompt_path));
  if (text.empty()) {
    return Fail(ErrorCode::kInvalidArgument, "the prompt file '" + *arguments.prompt_path + "' is empty");
  }
  return arguments.prompt ? text + "\n\n" + *arguments.prompt : text;
}

Result<std::vector<Token>> Tokenize(const PromptArguments& arguments, const LoadedModel& loaded,
                                    const std::string& prompt) {
  if (!arguments.use_template) return loaded.tokenizer->Encode(prompt);
  KVIST_TRY(Conversation conversation, Conversation::Open(*loaded.file, true, arguments.system));
  conversation.Add("user", prompt);
  return conversation.Tokenize(*loaded.tokenizer);
}

// Memory is told as the text took it, tiers as they are when it has been written to them: when its sequence has ended.
void Tell(const Generation& generation, const PromptArguments& arguments, const LoadedModel& loaded,
          Generator& generator, Output& out) {
  const bool has_statistics = arguments.stats || generation.finish == FinishReason::kCancelled;
  Json object;
  std::string statistics;
  if (arguments.json) object = GenerationJson("generate", generation, arguments, loaded);
  if (has_statistics) {
    statistics = ReuseText(generation.reuse, *loaded.tokenizer) + RetainedText(generation.retained) +
                 StreamText(generation.stream) + StatisticsText(generation.stats, loaded);
  }
  generator.Forget();
  loaded.cache->Flush();
  if (arguments.json) {
    object["statistics"]["tiers"] = TiersJson(*loaded.cache);
    WriteJson(object, out);
  }
  if (has_statistics) std::fputs((statistics + TiersText(*loaded.cache)).c_str(), stderr);
  if (!has_statistics) NoteFailures(*loaded.cache);
}

Status Generate(const PromptArguments& arguments, Output& out) {
  KVIST_TRY(const std::string prompt, ReadPrompt(arguments));
  KVIST_TRY(const LoadedModel loaded, LoadModel(ModelToLoad(arguments)));
  KVIST_TRY(const std::vector<Token> tokens, Tokenize(arguments, loaded, prompt));
  if (arguments.options.max_tokens == 0) Note("-n 0 asks for no tokens: the prompt is computed and that is all");
  Generator generator(loaded.model.get(), loaded.tokenizer, loaded.cache.get());
  KVIST_TRY(const Generation generation, GenerateTo(out, arguments, [&](const GenerateEvents& events) {
              return generator.Generate(tokens, arguments.options, events);
            }));
  Tell(generation, arguments, loaded, generator, out);
  if (generation.finish == FinishReason::kCancelled) return Fail(ErrorCode::kCancelled, "interrupted");
  return {};
}

int RunGenerate(const PromptArguments& arguments) {
  CatchInterrupts(true);
  Output out;
  const Status status = Generate(arguments, out);
  if (out.failed() || status) return out.ExitCode(kExitOk);
  const int exit_code = Report(status.error());
  if (status.error().code == ErrorCode::kOutOfMemory) NoteWhatFitsMore(arguments);
  return exit_code;
}

}  // namespace

void AddGenerateCommand(CLI::App& program, Command* chosen) {
  auto arguments = std::make_shared<PromptArguments>();
  CLI::App* command = program.add_subcommand("generate", "Continue a text");
  command
      ->add_option("-p,--prompt", arguments->prompt,
                   "The text to continue; with -f what comes after the file's, as a "
                   "question about it")
      ->type_name("TEXT");
  command->add_option("-f,--file", arguments->prompt_path, "A file of it, taken as it is; - is standard input")
      ->type_name("FILE");
  AddGenerateOptions(command, arguments.get());
  CLI::Option* chat = command->add_flag("--chat", arguments->use_template,
                                        "Give the prompt as the user's message in the model's chat template");
  command
      ->add_flag_callback(
          "--no-template", [] {}, "Give the prompt as it is, the default")
      ->excludes(chat);
  command->get_option("--system")->needs(chat);
  command->callback([=] { *chosen = [=] { return RunGenerate(*arguments); }; });
}

}  // namespace kvist
