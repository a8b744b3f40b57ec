// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "tests/chats/labelled_chats.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

namespace kvist {
namespace {

// Throws what nlohmann::json throws.
Result<LabelledChat> Parse(const std::string& line) {
  const auto json = nlohmann::json::parse(line);
  KVIST_TRY(const ChatClass label, ParseChatClass(json.at("label").get<std::string>()));
  LabelledChat chat{.label = label,
                    .language = json.at("language"),
                    .is_held_out = json.at("split") == "held_out",
                    .num_tokens = json.value("num_tokens", int64_t{0})};
  for (const auto& message : json.at("messages")) {
    chat.texts.push_back(std::make_unique<const std::string>(message.at("content")));
    chat.turns.push_back({message.at("role") == "user", *chat.texts.back()});
  }
  return chat;
}

size_t NumCharacters(std::string_view text) {
  return size_t(std::ranges::count_if(text, [](unsigned char c) { return (c & 0xC0) != 0x80; }));
}

std::string Row(const char* name, const std::array<int, kNumChatClasses>& counts) {
  char line[128];
  std::snprintf(line, sizeof(line), "  %-14s%6d%15d%6d%10d\n", name, counts[0], counts[1], counts[2], counts[3]);
  return line;
}

}  // namespace

Result<std::vector<LabelledChat>> ReadLabelledChats(const std::string& path) {
  std::ifstream in(path);
  if (!in) return Fail(ErrorCode::kNotFound, path + " can't be read");
  std::vector<LabelledChat> chats;
  for (std::string line; std::getline(in, line);) {
    try {
      KVIST_TRY(LabelledChat chat, Parse(line));
      chats.push_back(std::move(chat));
    } catch (const nlohmann::json::exception& error) {
      return Fail(ErrorCode::kCorrupt, path + ":" + std::to_string(chats.size() + 1) + ": " + error.what());
    }
  }
  return chats;
}

ChatClass ClassOf(const LabelledChat& chat) {
  return ClassifyChat(chat.evidence()).best;
}

ChatClass ArticleRule(const LabelledChat& chat) {
  std::string joined;
  size_t num_characters = 0;
  for (const ChatTurn& turn : chat.turns) {
    joined += std::string(joined.empty() ? "" : " ") + std::string(turn.text);
    num_characters += NumCharacters(turn.text);
  }
  std::ranges::transform(joined, joined.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? char(c + 32) : c; });
  const auto is_in_text = [&](const char* word) { return joined.find(word) != std::string::npos; };
  constexpr const char* kCodeWords[] = {"def", "function", "class", "import", "for", "while"};
  constexpr const char* kCreativeWords[] = {"story", "character", "plot", "imagine", "create"};
  if (std::ranges::any_of(kCodeWords, is_in_text)) return ChatClass::kCode;
  if (std::ranges::any_of(kCreativeWords, is_in_text)) return ChatClass::kCreative;
  return num_characters > 2000 ? ChatClass::kLongDocument : ChatClass::kShortChat;
}

int Confusion::num_right() const {
  int right = 0;
  for (size_t c = 0; c < kNumChatClasses; ++c) right += count[c][c];
  return right;
}

int Confusion::num_all() const {
  int all = 0;
  for (const auto& row : count) {
    for (const int value : row) all += value;
  }
  return all;
}

Confusion Score(const std::vector<LabelledChat>& chats, bool held_out, const std::string& language,
                const ChatClassifier& classifier) {
  Confusion confusion;
  for (const LabelledChat& chat : chats) {
    if (chat.is_held_out != held_out || (!language.empty() && chat.language != language)) continue;
    ++confusion.count[size_t(chat.label)][size_t(classifier(chat))];
  }
  return confusion;
}

std::string ScoreText(const std::vector<LabelledChat>& chats, bool held_out, const ChatClassifier& classifier) {
  std::string text;
  for (const char* language : {"", "en", "zh"}) {
    const Confusion confusion = Score(chats, held_out, language, classifier);
    char line[128];
    std::snprintf(line, sizeof(line), "  %-14s%3d of %3d right: %.1f %%\n", *language ? language : "both",
                  confusion.num_right(), confusion.num_all(), 100 * confusion.accuracy());
    text += line;
  }
  const Confusion confusion = Score(chats, held_out, "", classifier);
  text += "  label \\ taken for: short_chat  long_document  code  creative\n";
  for (const ChatClass label : kAllChatClasses) text += Row(ChatClassName(label), confusion.count[size_t(label)]);
  return text;
}

}  // namespace kvist
