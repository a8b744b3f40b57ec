// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors

// How well conversations are classified that neither features nor weights were made from.

#include <doctest/doctest.h>

#include "tests/chats/labelled_chats.h"

namespace kvist::chat_class_accuracy_test {
namespace {

std::vector<LabelledChat> ReadOrFail() {
  auto chats = ReadLabelledChats(std::string(KVIST_SOURCE_DIR) + "/tests/data/chats/conversations.jsonl");
  REQUIRE_MESSAGE(chats.has_value(), chats.error().message);
  return *std::move(chats);
}

int NumOf(const Confusion& confusion, ChatClass label) {
  int num = 0;
  for (const int count : confusion.count[size_t(label)]) num += count;
  return num;
}

TEST_CASE("chat class: the labelled conversations are balanced") {
  const auto chats = ReadOrFail();
  for (const bool held_out : {false, true}) {
    for (const char* language : {"en", "zh"}) {
      const Confusion all = Score(chats, held_out, language, ClassOf);
      for (const ChatClass label : kAllChatClasses) CHECK(NumOf(all, label) >= 20);
    }
  }
}

TEST_CASE("chat class: accuracy on the held-out half") {
  const auto chats = ReadOrFail();
  INFO("classifier\n" << ScoreText(chats, true, ClassOf) << "article's rule\n" << ScoreText(chats, true, ArticleRule));
  CHECK(Score(chats, true, "", ClassOf).accuracy() >= 0.89);
  CHECK(Score(chats, true, "en", ClassOf).accuracy() >= 0.88);
  CHECK(Score(chats, true, "zh", ClassOf).accuracy() >= 0.88);
  const Confusion all = Score(chats, true, "", ClassOf);
  for (const ChatClass label : kAllChatClasses) {
    CAPTURE(ChatClassName(label));
    CHECK(all.count[size_t(label)][size_t(label)] >= 0.82 * NumOf(all, label));
  }
}

TEST_CASE("chat class: the article's rule is beaten by a wide margin, in both languages") {
  const auto chats = ReadOrFail();
  for (const char* language : {"en", "zh"}) {
    CAPTURE(language);
    CHECK(Score(chats, true, language, ClassOf).accuracy() >
          0.5 + Score(chats, true, language, ArticleRule).accuracy());
  }
}

LabelledChat OneTurn(const std::string& text) {
  LabelledChat chat{.label = ChatClass::kShortChat, .language = "en", .is_held_out = true};
  chat.texts.push_back(std::make_unique<const std::string>(text));
  chat.turns.push_back({true, *chat.texts.back()});
  return chat;
}

TEST_CASE("chat class: the article's rule is what the article says") {
  CHECK(ArticleRule(OneTurn("thanks FOR that")) == ChatClass::kCode);
  CHECK(ArticleRule(OneTurn("a character")) == ChatClass::kCreative);
  CHECK(ArticleRule(OneTurn("a character and a classic")) == ChatClass::kCode);
  std::string document;
  for (int i = 0; i < 2000; ++i) document += "长";
  CHECK(ArticleRule(OneTurn(document)) == ChatClass::kShortChat);
  CHECK(ArticleRule(OneTurn(document + "长")) == ChatClass::kLongDocument);
}

}  // namespace
}  // namespace kvist::chat_class_accuracy_test
