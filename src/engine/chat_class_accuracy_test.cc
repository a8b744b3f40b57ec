// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
//
// The classifier on conversations that it was not fitted to, beside the article's rule.
#include <doctest/doctest.h>

#include <algorithm>
#include <cctype>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "policy/chat_class.h"

namespace kvist {
namespace {

// As the article has it: keywords anywhere in the text, then its length.
ChatClass ArticleClass(const std::vector<ChatTurn>& turns) {
  std::string text;
  size_t length = 0;
  for (const ChatTurn& turn : turns) {
    text += std::string(turn.text) + " ";
    length += size_t(std::ranges::count_if(turn.text, [](char c) { return (c & 0xc0) != 0x80; }));
  }
  std::ranges::transform(text, text.begin(), [](unsigned char c) { return char(std::tolower(c)); });
  const auto has_any = [&](std::initializer_list<const char*> words) {
    return std::ranges::any_of(words, [&](const char* word) { return text.contains(word); });
  };
  if (has_any({"def", "function", "class", "import", "for", "while"})) return ChatClass::kCode;
  if (has_any({"story", "character", "plot", "imagine", "create"})) return ChatClass::kCreative;
  return length > 2000 ? ChatClass::kLongDocument : ChatClass::kShortChat;
}

struct Tally {
  int right = 0, of_article = 0, all = 0;
  double share() const { return double(right) / all; }
  double article_share() const { return double(of_article) / all; }
};

TEST_CASE("chat class: of conversations it was not fitted to it gets far more right than the article's rule") {
  std::ifstream file(KVIST_SOURCE_DIR "/tests/data/chats/conversations.jsonl");
  REQUIRE(file);
  std::map<std::string, Tally> tallies;  // by language, by label, and all
  int num_conversations = 0;
  for (std::string line; std::getline(file, line); ++num_conversations) {
    const auto chat = nlohmann::json::parse(line);
    if (chat["split"] != "held_out") continue;
    std::vector<ChatTurn> turns;
    for (const auto& message : chat["messages"]) {
      turns.push_back({message["role"] == "user", message["content"].get_ref<const std::string&>()});
    }
    const ChatClass wanted = ParseChatClass(chat["label"].get<std::string>()).value();
    for (const std::string& key :
         {chat["language"].get<std::string>(), chat["label"].get<std::string>(), std::string("all")}) {
      ++tallies[key].all;
      tallies[key].right += ClassifyChat({.recent_turns = turns}).best == wanted;
      tallies[key].of_article += ArticleClass(turns) == wanted;
    }
  }
  CHECK(num_conversations >= 300);
  for (const auto& [key, tally] : tallies) {
    MESSAGE(key, ": ", tally.right, " of ", tally.all, " right, the article's rule ", tally.of_article);
  }
  CHECK(tallies["all"].all >= 150);
  CHECK(tallies["all"].share() >= 0.70);
  CHECK(tallies["en"].share() >= 0.65);
  CHECK(tallies["zh"].share() >= 0.65);
  CHECK(tallies["all"].share() >= tallies["all"].article_share() + 0.3);
}

}  // namespace
}  // namespace kvist
