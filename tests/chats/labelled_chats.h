// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "policy/chat_class.h"

// The labelled conversations of tests/data/chats, and how well a classifier does on them.
namespace kvist {

struct LabelledChat {
  ChatClass label;
  std::string language;  // "en" or "zh"
  bool is_held_out;      // not looked at when features and weights were made
  int64_t num_tokens = 0;
  std::vector<std::unique_ptr<const std::string>> texts = {};
  std::vector<ChatTurn> turns = {};  // views of texts, which stay where they are when the chat is moved

  ChatEvidence evidence() const { return {turns, num_tokens}; }
};

// kNotFound when the file can't be read; kCorrupt with the line's number when a line is not what it should be.
Result<std::vector<LabelledChat>> ReadLabelledChats(const std::string& path);

using ChatClassifier = std::function<ChatClass(const LabelledChat&)>;
ChatClass ClassOf(const LabelledChat& chat);

// The rule of the article this project began with: keywords anywhere in the lower-cased text, then more than 2,000
// characters. It is what the classifier is measured against.
ChatClass ArticleRule(const LabelledChat& chat);

// How many of each label were taken for what.
struct Confusion {
  std::array<std::array<int, kNumChatClasses>, kNumChatClasses> count = {};  // [label][taken for]

  int num_right() const;
  int num_all() const;
  double accuracy() const { return double(num_right()) / num_all(); }
};

// Of the chats of one half, in one language or (empty) in both.
Confusion Score(const std::vector<LabelledChat>& chats, bool held_out, const std::string& language,
                const ChatClassifier& classifier);

// A table for people.
std::string ScoreText(const std::vector<LabelledChat>& chats, bool held_out, const ChatClassifier& classifier);

}  // namespace kvist
