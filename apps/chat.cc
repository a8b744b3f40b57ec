// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "commands.h"
#include "conversation.h"
#include "generate_options.h"
#include "generation_output.h"
#include "model_path.h"
#include "report.h"
#include "terminal.h"
#include "tier/open_tier.h"

namespace kvist {
namespace {

constexpr char kHelp[] =
    "/help   this list\n"
    "/new    forget the conversation and begin another\n"
    "/stats  tokens, speed and memory so far\n"
    "/quit   leave (also Ctrl-D, and Ctrl-C while nothing is being answered)\n";

// Lines of standard input; a read ends at Ctrl-C, which std::getline does not.
class LineReader {
 public:
  // Nothing at the end of the input, and after Ctrl-C with interrupted() set.
  std::optional<std::string> Next() {
    while (true) {
      if (const size_t end = pending_.find('\n'); end != std::string::npos) {
        std::string line = pending_.substr(0, end);
        pending_.erase(0, end + 1);
        if (line.ends_with('\r')) line.pop_back();
        return line;
      }
      char buffer[4096];
      const ssize_t num_read = interrupted() ? -1 : read(STDIN_FILENO, buffer, sizeof(buffer));
      if (num_read < 0 && errno == EINTR && !interrupted()) continue;  // a window was resized
      if (num_read <= 0) break;
      pending_.append(buffer, static_cast<size_t>(num_read));
    }
    if (interrupted() || pending_.empty()) return std::nullopt;
    return std::exchange(pending_, "");  // a last line without its newline
  }

 private:
  std::string pending_;
};

class Chat {
 public:
  Chat(const GenerateArguments& arguments, const LoadedModel& loaded, Conversation conversation, Output& out)
      : arguments_(arguments),
        loaded_(loaded),
        conversation_(std::move(conversation)),
        generator_(loaded.model.get(), loaded.tokenizer, loaded.cache.get()),
        out_(out) {
    for (std::string& stop : conversation_.stops()) arguments_.options.stops.push_back(std::move(stop));
  }

  // Goes on with the saved session of that name, or begins one, and saves it after each answer.
  Status UseSession(const std::string& name) {
    session_ = name;
    auto resumed = loaded_.cache->Resume(name);
    if (!resumed && resumed.error().code == ErrorCode::kNotFound) {
      Note("session '" + name + "' begins");
      return {};
    }
    if (!resumed) return std::unexpected(std::move(resumed.error()));
    const auto* messages = reinterpret_cast<const char*>(resumed->notes.data());
    KVIST_TRY_VOID(conversation_.Restore({messages, resumed->notes.size()}));
    std::string text = "session '" + name + "' goes on: " + std::to_string(conversation_.num_messages()) +
                       " messages, " + std::to_string(resumed->sequence.num_tokens()) + " of " +
                       std::to_string(resumed->tokens.size()) + " tokens restored";
    for (const ReuseReport::FromTier& from : resumed->reuse.loaded) {
      text += " in " + std::to_string(int(from.seconds * 1e3 + 0.5)) + " ms";
    }
    if (resumed->reuse.reason != MissReason::kNone) {
      text += std::string("; the others are computed again (") + MissReasonName(resumed->reuse.reason) + ")";
    }
    Note(text);
    generator_.Continue(std::move(resumed->sequence));
    return {};
  }

  int Run() {
    const bool has_prompt = isatty(STDIN_FILENO) != 0;
    if (has_prompt) std::fputs("Type a message; /help lists the commands.\n", stderr);
    int exit_code = kExitOk;
    while (!out_.failed()) {
      if (has_prompt) std::fputs("> ", stderr);
      const std::optional<std::string> line = lines_.Next();
      if (!line) {
        if (has_prompt) std::fputs("\n", stderr);
        if (interrupted()) exit_code = kExitInterrupted;
        break;
      }
      if (*line == "/quit") break;
      if (!DoCommand(*line)) {
        if (const Status answered = Answer(*line); !answered) exit_code = Report(answered.error());
      }
    }
    if (arguments_.stats || exit_code == kExitInterrupted) ShowStatistics();
    return out_.ExitCode(exit_code);
  }

 private:
  // False when the line is a message.
  bool DoCommand(const std::string& line) {
    if (line.find_first_not_of(" \t") == std::string::npos) return true;
    if (line[0] != '/') return false;
    if (line == "/help") {
      std::fputs(kHelp, stderr);
    } else if (line == "/stats") {
      ShowStatistics();
    } else if (line == "/new") {
      conversation_.Clear();
      generator_.Forget();
      total_ = {};
    } else {
      std::fprintf(stderr, "There is no command %s; /help lists them.\n", line.c_str());
    }
    return true;
  }

  // A message that can't be answered is dropped from the conversation, so that the next one has a chance.
  Status Answer(const std::string& message) {
    conversation_.Add("user", message);
    auto generation = Generate();
    if (!generation) {
      conversation_.DropLast();
      const ErrorCode code = generation.error().code;
      if (code == ErrorCode::kOutOfRange || code == ErrorCode::kOutOfMemory) Note("/new begins another conversation");
      return std::unexpected(std::move(generation.error()));
    }
    total_ += generation->stats;
    conversation_.Add("assistant", generation->text);
    if (!session_.empty()) {
      const std::string messages = conversation_.Save();
      KVIST_TRY_VOID(loaded_.cache->Save(session_, generator_.sequence(), std::as_bytes(std::span(messages))));
    }
    reuse_ = generation->reuse;
    if (arguments_.json) WriteJson(GenerationJson("chat", *generation, arguments_, loaded_), out_);
    if (generation->finish == FinishReason::kContext) {
      Note("the model's context is full; /new begins another conversation");
    }
    interrupted() = false;  // it stopped the answer, not the chat
    return {};
  }

  Result<Generation> Generate() {
    KVIST_TRY(const std::vector<Token> tokens, conversation_.Tokenize(*loaded_.tokenizer));
    return GenerateTo(out_, generator_, tokens, arguments_);
  }

  void ShowStatistics() const {
    if (reuse_) std::fputs(ReuseText(*reuse_, *loaded_.tokenizer).c_str(), stderr);
    std::fputs(StatisticsText(total_, loaded_).c_str(), stderr);
  }

  GenerateArguments arguments_;
  const LoadedModel& loaded_;
  Conversation conversation_;
  Generator generator_;
  Output& out_;
  LineReader lines_;
  GenerationStats total_;
  std::optional<ReuseReport> reuse_;  // of the last message
  std::string session_;               // empty: nothing is saved
};

struct ChatArguments : GenerateArguments {
  std::string session;
};

int RunChat(ChatArguments arguments) {
  std::vector<std::string>& tiers = arguments.model.tiers;
  const bool needs_disk = !arguments.session.empty() && std::ranges::none_of(tiers, IsDiskSpec);
  if (needs_disk) tiers.insert(tiers.begin(), "disk:" + DefaultStorePath());
  const auto loaded = LoadModel(arguments.model);
  if (!loaded) return Report(loaded.error());
  auto conversation = Conversation::Open(*loaded->file, arguments.use_template, arguments.system);
  if (!conversation) return Report(conversation.error());
  CatchInterrupts(false);
  Output out;
  Chat chat(arguments, *loaded, *std::move(conversation), out);
  if (!arguments.session.empty()) {
    if (const Status begun = chat.UseSession(arguments.session); !begun) return Report(begun.error());
  }
  return chat.Run();
}

}  // namespace

void AddChatCommand(CLI::App& program, Command* chosen) {
  auto arguments = std::make_shared<ChatArguments>();
  arguments->use_template = true;
  arguments->options.max_tokens = 1024;
  CLI::App* command = program.add_subcommand("chat", "Talk with a model; a message a line, from a terminal or a pipe");
  AddGenerateOptions(command, arguments.get());
  command
      ->add_option("--session", arguments->session,
                   "Go on with the conversation of that name, saved after each answer; in the first disk tier, or "
                   "without one in ~/.local/share/kvist/store")
      ->type_name("NAME");
  command->add_flag_callback(
      "--no-template", [=] { arguments->use_template = false; },
      "Lines of User: and Assistant: instead of the model's chat template");
  command->callback([=] { *chosen = [=] { return RunChat(*arguments); }; });
}

}  // namespace kvist
