// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "kvist/error.h"

// What kind of conversation this is, told from its words. English and Chinese are understood; another language is
// judged by the shape of its text alone. Pure functions of their arguments.
namespace kvist {

enum class ChatClass : uint8_t {
  kShortChat,     // questions and talk
  kLongDocument,  // work on a long factual text: summaries, questions about it, its next section
  kCode,          // programs, shells, queries, and what is wrong with them
  kCreative,      // something composed: stories, verse, role play, slogans, a letter
};
inline constexpr ChatClass kAllChatClasses[] = {ChatClass::kShortChat, ChatClass::kLongDocument, ChatClass::kCode,
                                                ChatClass::kCreative};
inline constexpr size_t kNumChatClasses = std::size(kAllChatClasses);

// "short_chat", "long_document", "code", "creative".
const char* ChatClassName(ChatClass chat_class);
// kInvalidArgument when there is no such class; the message names those there are.
Result<ChatClass> ParseChatClass(std::string_view name);

struct ChatTurn {
  bool is_user = true;    // said by the user; otherwise by the model
  std::string_view text;  // UTF-8
};

struct ChatEvidence {
  std::span<const ChatTurn> recent_turns;  // oldest first; the last 10 are looked at
  int64_t num_tokens = 0;                  // of the whole conversation; 0: unknown
};

struct ChatClassification {
  ChatClass best = ChatClass::kShortChat;
  std::array<double, kNumChatClasses> probabilities = {1, 0, 0, 0};  // [class]
  std::string why;  // what weighed most against the second best, for people: "fenced code, identifiers"
};

// One message judged on its own; a conversation whose turns differ will get different answers from turn to turn
// (ChatClassTracker). A conversation without a turn is a short chat. Takes about 0.2 ms, and 0.4 ms more for each
// 10,000 bytes of the turns.
ChatClassification ClassifyChat(const ChatEvidence& evidence);

// The class that a conversation is treated as. It changes when another class has come first for two turns in a row and
// leads by a clear margin of probabilities that are smoothed over the last few turns: so it stays when turns alternate,
// and follows a real change within two or three turns. The first classification counts at once.
// Not thread-safe: one conversation's.
class ChatClassTracker {
 public:
  // Call once for each turn of the user. Returns current().
  ChatClass Update(const ChatClassification& classification);
  ChatClass current() const { return current_; }

 private:
  ChatClass current_ = ChatClass::kShortChat;
  ChatClass last_best_ = ChatClass::kShortChat;
  int num_in_a_row_ = 0;  // turns that were classified as last_best_
  bool has_begun_ = false;
  std::array<double, kNumChatClasses> smoothed_ = {};
};

}  // namespace kvist
