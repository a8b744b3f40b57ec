// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/conversation.h"
#include "engine/generator.h"
#include "engine/strategy.h"
#include "kvist/cache.h"
#include "model/model.h"
#include "model/tokenizer.h"
#include "policy/chat_class.h"

namespace kvist {

struct ChatManagerOptions {
  // Each conversation is kept by one of these, by its class or by name; without them as the cache and the caller's
  // GenerateOptions say.
  std::optional<StrategySet> strategies = {};
  std::string strategy = "auto";  // of new conversations: "auto", or a name
  bool saves_sessions = false;    // conversations are sessions of the cache, saved after each answer
};

// Of one conversation, for people.
struct ChatInfo {
  std::string name;
  bool is_current = false;
  size_t num_messages = 0;
  int64_t num_tokens = 0;       // in memory, those that were given up included
  double held_tokens = 0;       // of them
  size_t held_bytes = 0;        // shared ones count in each conversation
  int64_t reused_tokens = 0;    // of all its prompts
  int64_t computed_tokens = 0;  // likewise
  std::optional<ChatClass> chat_class = {};
  std::string why;         // the class
  std::string strategy;    // empty without strategies
  bool is_chosen = false;  // the strategy was, by name
  int num_switches = 0;    // from one strategy to another
};

// What came back with a saved conversation.
struct ResumedChat {
  int64_t num_tokens = 0;
  int64_t num_restored_tokens = 0;
  ReuseReport reuse;
};

// Many conversations with one model, in one cache and its budget. Each is classified with every message, and its
// strategy follows its class when that has been another for some turns (ChatClassTracker); a strategy is changed in
// place: no keys or values are moved, and none of another conversation are touched. When the budget has no room for an
// answer, the conversations that have waited longest give up their memory (they are computed or loaded again when they
// go on), and then the current one is sealed, if its cache has a quantised form.
// Borrows model and cache, which must outlive it. One thread at a time.
class ChatManager {
 public:
  // `empty`: a conversation without messages, but for the system's; all begin as it. There is one, called `name`.
  // kInvalidArgument for a name, or a strategy that is unknown.
  static Result<ChatManager> Open(Model* model, std::shared_ptr<const Tokenizer> tokenizer, Cache* cache,
                                  Conversation empty, ChatManagerOptions options, const std::string& name);

  // Goes on with the conversation of that name: one that is open, or was saved, which is told. kNotFound; errors as
  // Cache::Resume.
  Result<std::optional<ResumedChat>> Use(const std::string& name);
  // Begins another, which is the current one then. kInvalidArgument for a name that is taken, also by a saved
  // conversation, or is none (1 to 100 letters, digits, - _ and dots, not a dot first). Errors as Cache::ListSessions.
  Status Begin(const std::string& name);
  void Clear();  // forgets what was said in the current one

  // The current conversation goes on with the user's message; `options` tell afterwards what its strategy has decided.
  // After an error the message is not part of it. Errors as Conversation::Tokenize and Generator::Generate.
  Result<Generation> Answer(const std::string& message, GenerateOptions& options, GenerateEvents events);
  // Makes the current conversation durable, where they are sessions. When another program has saved one of its name
  // meanwhile, it is another one from now on: NAME-2, say. Errors as Cache::Save.
  Status Save();
  const std::string& name() const { return current_->name; }

  // Of the current conversation: "auto", or a strategy's name. kInvalidArgument lists them.
  Status ChooseStrategy(const std::string& strategy);

  bool saves_sessions() const { return options_->saves_sessions; }
  // Of the current conversation's last answer; empty without strategies.
  std::string strategy() const { return current_->strategy != nullptr ? current_->strategy->name : ""; }
  const Conversation& conversation() const { return current_->conversation; }
  std::vector<ChatInfo> List() const;  // in the order in which they began

 private:
  bool IsOpen(const std::string& name) const;
  // That nothing is saved under the name, damaged or not. The cache notes it: what others save under it from now on is
  // not replaced.
  bool IsUnsaved(const std::string& name) const;

  struct Chat {
    Chat(std::string name_in, Conversation conversation_in, Generator generator_in)
        : name(std::move(name_in)), conversation(std::move(conversation_in)), generator(std::move(generator_in)) {}
    std::string name;
    Conversation conversation;
    Generator generator;
    ChatClassTracker tracker;
    std::optional<ChatClassification> classification;  // of the last message
    const Strategy* chosen = nullptr;                  // by name; null: by class
    const Strategy* strategy = nullptr;                // of the last answer
    bool is_sealed_for_room = false;
    int num_switches = 0;
    uint64_t used_at = 0;    // in answers
    int64_t num_tokens = 0;  // of its text, in memory or not
    GenerationStats total;
  };

  ChatManager(Model* model, std::shared_ptr<const Tokenizer> tokenizer, Cache* cache, Conversation empty,
              ChatManagerOptions options);
  Chat NewChat(const std::string& name) const;
  void Add(const std::string& name);
  Result<std::optional<ResumedChat>> Resume(const std::string& name);
  void SwitchTo(Chat& chat);
  void ChooseByClass();
  void Follow(const Strategy& strategy, GenerateOptions& options);
  bool MakeRoom();
  static void Park(Chat& chat);

  Model* model_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  Cache* cache_;
  Conversation empty_;
  std::unique_ptr<ChatManagerOptions> options_;  // chats refer to its strategies
  std::vector<std::unique_ptr<Chat>> chats_;
  Chat* current_ = nullptr;
  uint64_t num_answers_ = 0;
};

}  // namespace kvist
