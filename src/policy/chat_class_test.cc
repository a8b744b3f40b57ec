// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "policy/chat_class.h"

#include <doctest/doctest.h>

#include <numeric>
#include <string>
#include <vector>

namespace kvist {
namespace {

ChatClassification Classify(const std::vector<std::string>& texts) {
  std::vector<ChatTurn> turns;
  for (size_t i = 0; i < texts.size(); ++i) turns.push_back({i % 2 == 0, texts[i]});
  return ClassifyChat({.recent_turns = turns});
}

TEST_CASE("chat class: plain cases in both languages, with a reason, and probabilities that add up") {
  const std::pair<std::string, ChatClass> cases[] = {
      {"hey, how was your weekend?", ChatClass::kShortChat},
      {"你好呀,今天天气真不错", ChatClass::kShortChat},
      {"```\nint main() { return foo(bar_baz); }\n```\nWhy does this not compile?", ChatClass::kCode},
      {"我的函数在循环里报错:undefined variable user_id,怎么调试?", ChatClass::kCode},
      {"Write a short poem about a lighthouse.", ChatClass::kCreative},
      {"帮我写一首关于大海的诗", ChatClass::kCreative},
      {"Summarise section 3 of the attached report and list the main conclusions of the paper.",
       ChatClass::kLongDocument},
      {"根据以下合同,总结甲方和乙方的义务,列出第三章的条款", ChatClass::kLongDocument}};
  for (const auto& [text, wanted] : cases) {
    CAPTURE(text);
    const ChatClassification result = Classify({text});
    CHECK(ChatClassName(result.best) == std::string(ChatClassName(wanted)));
    CHECK_FALSE(result.why.empty());
    CHECK(std::accumulate(result.probabilities.begin(), result.probabilities.end(), 0.0) == doctest::Approx(1));
  }
}

TEST_CASE("chat class: names are read and written, and unknown ones refused with what there is") {
  for (const ChatClass chat_class : kAllChatClasses)
    CHECK(ParseChatClass(ChatClassName(chat_class)).value() == chat_class);
  CHECK(ParseChatClass("poetry").error().message.find("long_document") != std::string::npos);
}

TEST_CASE("chat class: nothing said, and texts that are no UTF-8, are classified, too") {
  CHECK(Classify({""}).probabilities[0] >= 0);
  CHECK(Classify({"\xff\xfe\x80 \xe4"}).probabilities[0] >= 0);
}

ChatClassification Surely(ChatClass chat_class) {
  ChatClassification result{.best = chat_class, .probabilities = {}, .why = {}};
  result.probabilities[size_t(chat_class)] = 1;
  return result;
}

TEST_CASE("chat class: a conversation that goes to and fro stays what it is, and a real change is followed in time") {
  ChatClassTracker tracker;
  CHECK(tracker.Update(Surely(ChatClass::kCode)) == ChatClass::kCode);  // the first message decides
  for (int i = 0; i < 20; ++i) {
    CHECK(tracker.Update(Surely(i % 2 == 0 ? ChatClass::kCreative : ChatClass::kCode)) == ChatClass::kCode);
  }
  CHECK(tracker.Update(Surely(ChatClass::kCreative)) == ChatClass::kCode);
  int turns = 1;
  while (tracker.Update(Surely(ChatClass::kCreative)) == ChatClass::kCode) REQUIRE(++turns < 4);
  CHECK(tracker.current() == ChatClass::kCreative);
  ChatClassTracker fresh;
  fresh.Update(Surely(ChatClass::kCode));
  CHECK(fresh.Update(Surely(ChatClass::kCreative)) == ChatClass::kCode);
}

}  // namespace
}  // namespace kvist
