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
#include "engine/chat_manager.h"
#include "generate_options.h"
#include "generation_output.h"
#include "model_path.h"
#include "option_checks.h"
#include "read_file.h"
#include "report.h"
#include "terminal.h"
#include "tier/open_tier.h"

namespace kvist {
namespace {

constexpr char kHelp[] =
    "/help   this list\n"
    "/new    forget the conversation and begin another; /new NAME keeps it and begins one of that name beside it\n"
    "/use NAME       go on with the conversation of that name\n"
    "/strategy NAME  how this one's keys and values are kept from now on; auto: by its class (with --strategy)\n"
    "/stats  tokens, speed and memory so far, and what each conversation is\n"
    "/quit   leave (also Ctrl-D, and Ctrl-C while nothing is being answered)\n"
    "A message that begins with / has a space before it.\n";
constexpr char kExitCodes[] =
    "Lines that begin with / are commands; /help lists them. At a terminal the exit code is 0, in a script that of the "
    "last line that failed: 1 when a message could not be answered or a conversation not be found, 2 for a command "
    "that is wrong; the lines after it are answered all the same. 130 after Ctrl-C between answers.";

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

// What is known of each conversation, a line each.
std::string ListText(const std::vector<ChatInfo>& chats) {
  std::string text;
  for (const ChatInfo& chat : chats) {
    char line[512];
    std::snprintf(
        line, sizeof(line), "%c %-12s %3zu messages, %5lld tokens, %6.0f held in %s; %lld reused, %lld computed",
        chat.is_current ? '*' : ' ', chat.name.c_str(), chat.num_messages, (long long)chat.num_tokens, chat.held_tokens,
        BytesText(double(chat.held_bytes)).c_str(), (long long)chat.reused_tokens, (long long)chat.computed_tokens);
    text += line;
    if (chat.chat_class) {
      text += std::string("; ") + ChatClassName(*chat.chat_class) + " (" + chat.why + "), " +
              (chat.strategy.empty() ? "no strategy yet" : chat.strategy) + (chat.is_chosen ? ", as you chose" : "");
      if (chat.num_switches > 0) text += ", changed " + std::to_string(chat.num_switches) + " times";
    }
    text += "\n";
  }
  return text;
}

class Chat {
 public:
  Chat(const GenerateArguments& arguments, const LoadedModel& loaded, ChatManager manager, Output& out)
      : arguments_(arguments), loaded_(loaded), manager_(std::move(manager)), out_(out) {}

  // Goes on with the saved or open conversation of that name.
  Status Use(const std::string& name) {
    KVIST_TRY(const std::optional<ResumedChat> resumed, manager_.Use(name));
    if (!resumed) {
      Note("conversation '" + name + "' " + (manager_.conversation().num_messages() > 0 ? "goes on" : "begins"));
      return {};
    }
    std::string text = "session '" + name + "' goes on: " + std::to_string(manager_.conversation().num_messages()) +
                       " messages, " + std::to_string(resumed->num_restored_tokens) + " of " +
                       std::to_string(resumed->num_tokens) + " tokens restored";
    for (const ReuseReport::FromTier& from : resumed->reuse.loaded) {
      text += " in " + std::to_string(int(from.seconds * 1e3 + 0.5)) + " ms";
    }
    if (resumed->reuse.reason != MissReason::kNone) {
      text += std::string("; the others are computed again (") + MissReasonName(resumed->reuse.reason) + ")";
    }
    Note(text);
    return {};
  }

  // Returns the exit code, as kExitCodes has it.
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
      const bool is_command = line->starts_with('/');
      const Status done = is_command ? DoCommand(*line) : Answer(*line);
      if (done) continue;
      const int command_code = Report(done.error());
      if (!has_prompt) exit_code = is_command ? command_code : kExitFailure;
    }
    if (arguments_.stats) ShowStatistics();
    return out_.ExitCode(exit_code);
  }

 private:
  Status DoCommand(const std::string& line) {
    const size_t space = std::min(line.find(' '), line.size());
    const std::string command = line.substr(0, space), argument = line.substr(std::min(space + 1, line.size()));
    if (command == "/help") {
      std::fputs(kHelp, stderr);
    } else if (command == "/stats") {
      ShowStatistics();
      const std::string tiers = TiersText(*loaded_.cache);
      std::fputs(tiers.c_str(), stderr);
      if (!tiers.empty() && !manager_.saves_sessions()) Note("a conversation is written to the tiers when it ends");
    } else if (command == "/new" && argument.empty()) {
      manager_.Clear();
      ForgetStatistics();
      if (manager_.saves_sessions()) Note("the next answer takes the saved conversation's place; /new NAME keeps it");
    } else if (command == "/new") {
      KVIST_TRY_VOID(manager_.Begin(argument));
      ForgetStatistics();
      Note("conversation '" + argument + "' begins");
    } else if (command == "/use") {
      KVIST_TRY_VOID(Use(argument));
      ForgetStatistics();
    } else if (command == "/strategy") {
      KVIST_TRY_VOID(manager_.ChooseStrategy(argument));
    } else {
      return Fail(ErrorCode::kInvalidArgument, "there is no command " + command +
                                                   "; /help lists them; a message that begins with / has a space "
                                                   "before it");
    }
    return {};
  }

  // A message that can't be answered is dropped from the conversation, so that the next one has a chance.
  Status Answer(const std::string& message) {
    if (message.find_first_not_of(" \t") == std::string::npos) return {};
    GenerateArguments followed = arguments_;
    auto generation = GenerateTo(out_, arguments_, [&](const GenerateEvents& events) {
      return manager_.Answer(message, followed.options, events);
    });
    interrupted() = false;  // it stopped the answer, not the chat
    if (!generation) {
      if (generation.error().code == ErrorCode::kOutOfMemory) NoteWhatFitsMore(arguments_);
      Note("the message is no part of the conversation; /new begins another one");
      return std::unexpected(std::move(generation.error()));
    }
    total_ += generation->stats;
    reuse_ = generation->reuse;
    retained_ = generation->retained;
    stream_ = generation->stream;
    if (arguments_.json) WriteJson(GenerationJson("chat", *generation, followed, loaded_, manager_.strategy()), out_);
    if (generation->finish == FinishReason::kContext) {
      Note("the model's context is full; /new begins another conversation");
    }
    const std::string name = manager_.name();
    const Status saved = manager_.Save();
    if (manager_.name() != name) {
      Note("another program has saved '" + name + "' meanwhile; this conversation is '" + manager_.name() + "' now");
    }
    if (!saved) Note("the answer is part of this conversation, but not of the saved one");
    return saved;
  }

  void ForgetStatistics() {
    total_ = {};
    reuse_.reset();
    retained_ = {};
    stream_.reset();
  }

  void ShowStatistics() const {
    if (reuse_) std::fputs(ReuseText(*reuse_, *loaded_.tokenizer).c_str(), stderr);
    std::fputs(
        (RetainedText(retained_) + StreamText(stream_) + StatisticsText(total_, loaded_) + ListText(manager_.List()))
            .c_str(),
        stderr);
  }

  const GenerateArguments& arguments_;
  const LoadedModel& loaded_;
  ChatManager manager_;
  Output& out_;
  LineReader lines_;
  GenerationStats total_;
  std::optional<ReuseReport> reuse_;   // of the last message, since the conversation was chosen
  RetainStats retained_;               // likewise
  std::optional<StreamStats> stream_;  // likewise
};

struct ChatArguments : GenerateArguments {
  std::string session;
  std::string strategy;         // empty: none
  std::string strategies_path;  // empty: those that are built in
};

Result<std::optional<StrategySet>> LoadStrategies(const ChatArguments& arguments) {
  if (arguments.strategy.empty()) return std::nullopt;
  if (arguments.strategies_path.empty()) return StrategySet::Parse(StrategySet::DefaultText());
  KVIST_TRY(const std::string text, ReadFile(arguments.strategies_path));
  auto strategies = StrategySet::Parse(text);
  if (!strategies) strategies.error().message = arguments.strategies_path + ": " + strategies.error().message;
  return strategies;
}

Status Begin(ChatArguments& arguments, const LoadedModel& loaded, std::optional<StrategySet> strategies, Output& out,
             int* exit_code) {
  KVIST_TRY(Conversation empty, Conversation::Open(*loaded.file, arguments.use_template, arguments.system));
  const bool saves = !arguments.session.empty();
  const std::string name = saves ? arguments.session : "main";
  KVIST_TRY(ChatManager manager,
            ChatManager::Open(
                loaded.model.get(), loaded.tokenizer, loaded.cache.get(), std::move(empty),
                {.strategies = std::move(strategies), .strategy = arguments.strategy, .saves_sessions = saves}, name));
  {
    Chat chat(arguments, loaded, std::move(manager), out);
    if (saves) KVIST_TRY_VOID(chat.Use(name));
    *exit_code = chat.Run();
  }
  loaded.cache->Flush();  // the conversations have ended
  if (arguments.stats) std::fputs(TiersText(*loaded.cache).c_str(), stderr);
  if (!arguments.stats) NoteFailures(*loaded.cache);
  return {};
}

int RunChat(ChatArguments arguments) {
  auto strategies = LoadStrategies(arguments);
  if (!strategies) return Report(strategies.error());
  if (*strategies) arguments.model.form = FormName((*strategies)->cache_form());
  std::vector<std::string>& tiers = arguments.model.tiers;
  const bool needs_disk = !arguments.session.empty() && std::ranges::none_of(tiers, IsDiskSpec);
  if (needs_disk) tiers.insert(tiers.begin(), "disk:" + DefaultStorePath());
  const auto loaded = LoadModel(ModelToLoad(arguments));
  if (!loaded) return Report(loaded.error());
  CatchInterrupts(false);
  Output out;
  int exit_code = kExitOk;
  const Status begun = Begin(arguments, *loaded, *std::move(strategies), out, &exit_code);
  return begun ? exit_code : Report(begun.error());
}

}  // namespace

void AddChatCommand(CLI::App& program, Command* chosen) {
  auto arguments = std::make_shared<ChatArguments>();
  arguments->use_template = true;
  arguments->options.max_tokens = 1024;
  CLI::App* command = program.add_subcommand("chat", "Talk with a model; a message a line, from a terminal or a pipe");
  command->footer(kExitCodes);
  AddGenerateOptions(command, arguments.get());
  command
      ->add_option("--session", arguments->session,
                   "Go on with the conversation of that name, saved after each answer, as all of this chat are; in the "
                   "first disk tier, or without one in ~/.local/share/kvist/store")
      ->check(CheckNotEmpty)
      ->type_name("NAME");
  CLI::Option* strategy =
      command
          ->add_option(
              "--strategy", arguments->strategy,
              "Keep each conversation's keys and values as is best for it: auto, by its class, or a strategy's "
              "name (docs/strategies.md)")
          ->check(CheckNotEmpty)
          ->type_name("auto|NAME");
  for (const char* decided : {"--form", "--growth", "--pages", "--retain", "--stream"}) {
    strategy->excludes(command->get_option(decided));
  }
  command
      ->add_option("--strategies", arguments->strategies_path,
                   "A file with strategies of your own, in place of those that --print-strategies prints")
      ->type_name("FILE")
      ->needs(strategy);
  command->add_flag_callback(
      "--print-strategies",
      [] {
        std::fputs(std::string(StrategySet::DefaultText()).c_str(), stdout);
        throw CLI::Success();
      },
      "Print the strategies that are built in, to edit, and leave");
  command->add_flag_callback(
      "--no-template", [=] { arguments->use_template = false; },
      "Lines of User: and Assistant: instead of the model's chat template");
  command->callback([=] { *chosen = [=] { return RunChat(*arguments); }; });
}

}  // namespace kvist
