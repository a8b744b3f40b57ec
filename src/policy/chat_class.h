// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "kvist/error.h"

// What a conversation is about, so far as it matters for keeping its keys and values. English and Chinese. Pure
// functions of the texts.
namespace kvist {

enum class ChatClass : uint8_t { kShortChat, kLongDocument, kCode, kCreative };
inline constexpr size_t kNumChatClasses = 4;
inline constexpr ChatClass kAllChatClasses[kNumChatClasses] = {ChatClass::kShortChat, ChatClass::kLongDocument,
                                                               ChatClass::kCode, ChatClass::kCreative};
const char* ChatClassName(ChatClass chat_class);  // "short_chat", "long_document", "code", "creative"
// The inverse. kInvalidArgument names the known ones.
Result<ChatClass> ParseChatClass(std::string_view name);

struct ChatTurn {
  bool is_user = true;
  std::string_view text;
};

struct ChatEvidence {
  std::span<const ChatTurn> recent_turns;  // oldest first; one of the user's at least
  int64_t num_tokens = 0;                  // of the whole conversation so far, 0: not known
};

// What is looked at: the numbers that the model weighs (chat_class.cc says what each is).
inline constexpr size_t kNumChatFeatures = 20;
using ChatFeatures = std::array<double, kNumChatFeatures>;
ChatFeatures FeaturesOf(const ChatEvidence& evidence);
const char* ChatFeatureName(size_t feature);

struct ChatClassification {
  ChatClass best = ChatClass::kShortChat;
  std::array<double, kNumChatClasses> probabilities = {};
  std::string why;  // what spoke for it most, for people: "code punctuation, programming words"
};
// Multinomial logistic regression on the features; weights by tools/fit_chat_classes.py.
ChatClassification ClassifyChat(const ChatEvidence& evidence);

// The class that a conversation is treated as. The first message decides; after that another class has to be clearly
// more probable, smoothed over the turns, twice in a row: a conversation that goes to and fro is left as it is, and a
// real change is followed by the third turn.
class ChatClassTracker {
 public:
  // After each of the user's messages. Returns current().
  ChatClass Update(const ChatClassification& classification);
  ChatClass current() const { return current_; }

 private:
  ChatClass current_ = ChatClass::kShortChat;
  std::optional<std::array<double, kNumChatClasses>> smoothed_;
  int num_turns_better_ = 0;  // in a row, that another class was
};

}  // namespace kvist
