// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "policy/chat_class.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "policy/chat_features.h"
#include "policy/chat_terms.h"

namespace kvist::chat_class_test {
namespace {

double FeatureOf(ChatFeature feature, std::initializer_list<ChatTurn> turns, int64_t num_tokens = 0) {
  const std::vector<ChatTurn> list(turns);
  return ChatFeatures({list, num_tokens})[size_t(feature)];
}

ChatClassification Classify(std::initializer_list<std::string_view> user_turns) {
  std::vector<ChatTurn> turns;
  for (const std::string_view text : user_turns) turns.push_back({true, text});
  return ClassifyChat({turns, 0});
}

ChatClassification Sure(ChatClass chat_class, double probability = 1) {
  ChatClassification c{chat_class, {}, ""};
  c.probabilities.fill((1 - probability) / (kNumChatClasses - 1));
  c.probabilities[size_t(chat_class)] = probability;
  return c;
}

TEST_CASE("chat terms: English ones are whole words, Chinese ones are found anywhere") {
  constexpr std::string_view kGroup[] = {"class", "poem*", "new york", "诗"};
  CHECK(CountTerms("a classic classroom, a first-class class.", kGroup) == 2);
  CHECK(CountTerms("poems and poets, poemless", kGroup) == 2);
  CHECK(CountTerms("in new york, new yorkers", kGroup) == 1);
  CHECK(CountTerms("写首诗吧，古诗", kGroup) == 2);
  CHECK(CountTerms("", kGroup) == 0);
  CHECK(LowerAscii("ÄB 诗 Z") == "Äb 诗 z");
}

TEST_CASE("chat terms: each group knows both languages") {
  const std::pair<TermGroup, std::string_view> groups[] = {
      {kProgrammingWords, "python compiler 代码 编译"},    {kAmbiguousWords, "class table 循环 接口"},
      {kCodeObjects, "function query 函数 脚本"},          {kCreativeObjects, "poem limericks 故事 歌词"},
      {kCreativeWords, "villains knight 主角 伏笔"},       {kRoleWords, "pretend, act as 扮演 假设你"},
      {kStyleWords, "funnier, in the style of 续写 口吻"}, {kMakingVerbs, "write invent 写 编"},
      {kFixingVerbs, "debug optimise 优化 调试"},          {kDocumentWords, "contract thesis 论文 条款"},
      {kTextWorkWords, "summarise proofread 概括 提炼"},   {kGivenTextWords, "attached pasted 上传 原文"},
      {kEverydayWords, "dinner landlord 感冒 高铁"},       {kSmallTalkWords, "thanks hello 晚安 在吗"},
  };
  for (const auto& [group, text] : groups) {
    CAPTURE(text);
    CHECK(CountTerms(text, group) >= 4);
  }
}

TEST_CASE("chat terms: a wish is a verb and its object, near each other in one sentence") {
  CHECK(CountRequests("please write me a short, sad poem", kMakingVerbs, kCreativeObjects) == 1);
  CHECK(CountRequests("帮我写一首关于外卖小哥的诗", kMakingVerbs, kCreativeObjects) > 0);
  CHECK(CountRequests("the poem was fine. write soon", kMakingVerbs, kCreativeObjects) == 0);
  CHECK(CountRequests("i must write. the poem is old", kMakingVerbs, kCreativeObjects) == 0);
  CHECK(CountRequests("write to the tax office about the money that they owe me since june and, later, a poem",
                      kMakingVerbs, kCreativeObjects) == 0);
}

TEST_CASE("chat terms: numbers make sections and lengths of words") {
  CHECK(CountSectionNumbers("see chapter 3, clause 14.2 and page 7") == 3);
  CHECK(CountSectionNumbers("the chapter on page numbers") == 0);
  CHECK(CountSectionNumbers("第三章和第12条") == 2);
  CHECK(CountWantedLengths("about 300 words or a 4-panel comic") == 2);
  CHECK(CountWantedLengths("两百字左右") == 1);
  CHECK(CountWantedLengths("in other words") == 0);
}

TEST_CASE("chat features: the shapes of code are seen without its words") {
  constexpr std::string_view kSource = "int total = 0;\nfor (auto x : values) {\n  total += x;\n}\n";
  CHECK(FeatureOf(ChatFeature::kCodeLines, {{true, kSource}}) > 1.5);
  CHECK(FeatureOf(ChatFeature::kCodeSymbols, {{true, kSource}}) > 1);
  CHECK(FeatureOf(ChatFeature::kFencedCode, {{true, "```\nx\n```"}}) > 1);
  CHECK(FeatureOf(ChatFeature::kIdentifiers, {{true, "call load_rows() or fileSize, see std::min and a.size()"}}) > 2);
  CHECK(FeatureOf(ChatFeature::kEnglishInChinese, {{true, "把props解构之后reactive的对象不更新"}}) > 1);
  CHECK(FeatureOf(ChatFeature::kErrorShapes, {{true, "Traceback: ValueError: no"}}) > 0.9);
  constexpr std::string_view kProse =
      "We waited for a while; then, at last, the class (all of it) went home.\nI was tired.";
  for (const ChatFeature feature : {ChatFeature::kCodeLines, ChatFeature::kFencedCode, ChatFeature::kIdentifiers,
                                    ChatFeature::kErrorShapes, ChatFeature::kEnglishInChinese}) {
    CAPTURE(ChatFeatureName(feature));
    CHECK(FeatureOf(feature, {{true, kProse}}) == 0);
  }
}

TEST_CASE("chat features: lengths are in tokens, so that Chinese counts as much as English") {
  CHECK(RoughTokens("forty ASCII bytes come to ten tokens, so") == doctest::Approx(10));
  CHECK(RoughTokens("十个汉字约合七个词元") == doctest::Approx(7));
  const std::string document(2000, 'x');
  CHECK(FeatureOf(ChatFeature::kProseTurn, {{true, document}}) > 3);
  CHECK(FeatureOf(ChatFeature::kLongestTurn, {{true, "short"}, {false, document}, {true, "short"}}) < 0.1);
  CHECK(FeatureOf(ChatFeature::kUnseenTokens, {{true, "and then?"}}) == 0);
  CHECK(FeatureOf(ChatFeature::kUnseenTokens, {{true, "and then?"}}, 100) == 0);
  CHECK(FeatureOf(ChatFeature::kUnseenTokens, {{true, "and then?"}}, 20'000) > 3);
}

TEST_CASE("chat features: recent turns weigh more, the model's less, and what is before the last ten nothing") {
  const ChatTurn code = {true, "a python script"}, talk = {true, "ok"}, reply = {false, "a python script"};
  const auto terms = [](std::initializer_list<ChatTurn> turns) {
    return FeatureOf(ChatFeature::kProgrammingTerms, turns);
  };
  CHECK(terms({talk, code}) > terms({code, talk}));
  CHECK(terms({code, talk}) > terms({code, talk, talk}));
  CHECK(terms({talk, code}) > terms({talk, reply}));
  CHECK(terms({talk, reply}) > 0);
  CHECK(terms({code, talk, talk, talk, talk, talk, talk, talk, talk, talk}) > 0);
  CHECK(terms({code, talk, talk, talk, talk, talk, talk, talk, talk, talk, talk}) == 0);
}

TEST_CASE("chat features: words within a pasted text don't say what is wanted") {
  const std::string document = "Summarise this. " + std::string(400, 'x') + " python compiler regex mutex " +
                               std::string(400, 'x') + " In five points, please.";
  CHECK(FeatureOf(ChatFeature::kProgrammingTerms, {{true, document}}) == 0);
  CHECK(FeatureOf(ChatFeature::kTextWork, {{true, document}}) > 0);
  const std::string fenced = "What is this?\n```\nwrite a story // python\n```";
  CHECK(FeatureOf(ChatFeature::kCreativeRequest, {{true, fenced}}) == 0);
}

TEST_CASE("chat class: the article's keywords in ordinary talk make no code and no story") {
  CHECK(Classify({"I waited for a while in the yoga class, is it rude to leave early?"}).best == ChatClass::kShortChat);
  CHECK(Classify({"Is importing a car worth it? I'd like to create less paperwork for my dad"}).best ==
        ChatClass::kShortChat);
  CHECK(Classify({"每天上班下班无限循环，好无聊啊，怎么办"}).best == ChatClass::kShortChat);
}

TEST_CASE("chat class: each class in both languages, with its reasons") {
  const auto code = Classify({"Why does this throw?\n```python\nx = load_rows(path)\nprint(x[0])\n```"});
  CHECK(code.best == ChatClass::kCode);
  CHECK(code.why.find("code") != std::string::npos);
  CHECK(Classify({"这个函数编译报错，帮我看看指针哪里用错了"}).best == ChatClass::kCode);
  const auto creative = Classify({"Write a short story about a lighthouse"});
  CHECK(creative.best == ChatClass::kCreative);
  CHECK(creative.why.find("made up") != std::string::npos);
  CHECK(Classify({"写一首关于秋天的诗，要押韵"}).best == ChatClass::kCreative);
  CHECK(Classify({"Summarise the attached report, chapter 3 first"}).best == ChatClass::kLongDocument);
  CHECK(Classify({"总结一下上面这份合同的要点，第三条说了什么"}).best == ChatClass::kLongDocument);
  CHECK(Classify({"thanks, good night"}).best == ChatClass::kShortChat);
}

TEST_CASE("chat class: probabilities are probabilities; nothing said is a short chat") {
  const auto some = Classify({"Explain recursion to my son", "and write it as a fable"});
  CHECK(std::accumulate(some.probabilities.begin(), some.probabilities.end(), 0.0) == doctest::Approx(1));
  CHECK(some.probabilities[size_t(some.best)] == std::ranges::max(some.probabilities));
  const auto none = ClassifyChat({});
  CHECK(none.best == ChatClass::kShortChat);
  CHECK(none.probabilities[0] == 1);
  const ChatTurn only_model[] = {{false, "Hello, what can I do for you?"}};
  CHECK(ClassifyChat({only_model, 0}).best == ChatClass::kShortChat);
}

TEST_CASE("chat class: any bytes are taken") {
  std::string bytes;
  for (int i = 0; i < 100'000; ++i) bytes.push_back(char(i * 7 + i / 256));
  const auto c = Classify({bytes, std::string("\0\n```", 5), "```", "\xE4", ""});
  CHECK(std::isfinite(c.probabilities[size_t(c.best)]));
}

TEST_CASE("chat class: names go both ways") {
  for (const ChatClass chat_class : kAllChatClasses) CHECK(ParseChatClass(ChatClassName(chat_class)) == chat_class);
  const auto wrong = ParseChatClass("poetry");
  REQUIRE_FALSE(wrong);
  CHECK(wrong.error().code == ErrorCode::kInvalidArgument);
  CHECK(wrong.error().message.find("short_chat, long_document, code, creative") != std::string::npos);
}

TEST_CASE("chat class tracker: the first classification counts at once") {
  ChatClassTracker tracker;
  CHECK(tracker.current() == ChatClass::kShortChat);
  CHECK(tracker.Update(Sure(ChatClass::kCode)) == ChatClass::kCode);
}

TEST_CASE("chat class tracker: turns that alternate change nothing") {
  for (const double probability : {0.6, 1.0}) {
    CAPTURE(probability);
    ChatClassTracker tracker;
    tracker.Update(Sure(ChatClass::kCode));
    for (int i = 0; i < 40; ++i) {
      const ChatClass turn = i % 2 == 0 ? ChatClass::kShortChat : ChatClass::kCode;
      CHECK(tracker.Update(Sure(turn, probability)) == ChatClass::kCode);
    }
  }
}

TEST_CASE("chat class tracker: a real change is followed after two turns, also when it is not quite sure") {
  for (const double probability : {0.8, 1.0}) {
    CAPTURE(probability);
    ChatClassTracker tracker;
    for (int i = 0; i < 20; ++i) tracker.Update(Sure(ChatClass::kShortChat, probability));
    CHECK(tracker.Update(Sure(ChatClass::kCode, probability)) == ChatClass::kShortChat);
    CHECK(tracker.Update(Sure(ChatClass::kCode, probability)) == ChatClass::kCode);
  }
}

TEST_CASE("chat class tracker: a class that is hardly better never takes over") {
  ChatClassTracker tracker;
  tracker.Update(Sure(ChatClass::kCreative));
  const ChatClassification close{ChatClass::kCode, {0.1, 0.1, 0.45, 0.35}, ""};
  for (int i = 0; i < 50; ++i) CHECK(tracker.Update(close) == ChatClass::kCreative);
}

TEST_CASE("chat class tracker: the less sure the turns, the more of them it takes") {
  ChatClassTracker tracker;
  for (int i = 0; i < 5; ++i) tracker.Update(Sure(ChatClass::kShortChat));
  const ChatClassification likely{ChatClass::kCode, {0.35, 0, 0.65, 0}, ""};
  for (int i = 0; i < 3; ++i) CHECK(tracker.Update(likely) == ChatClass::kShortChat);
  for (int i = 0; i < 3; ++i) tracker.Update(likely);
  CHECK(tracker.current() == ChatClass::kCode);
}

TEST_CASE("chat class tracker: turns of two different classes don't add up") {
  ChatClassTracker tracker;
  tracker.Update(Sure(ChatClass::kShortChat));
  for (int i = 0; i < 20; ++i) {
    CHECK(tracker.Update(Sure(ChatClass::kCode)) == ChatClass::kShortChat);
    CHECK(tracker.Update(Sure(ChatClass::kCreative)) == ChatClass::kShortChat);
  }
}

TEST_CASE("chat class tracker: a conversation that turns from talk to code is followed, one question is not") {
  const char* const user[] = {"hi, how was your weekend?",
                              "mine was nice, we went hiking with friends",
                              "my knee hurts a bit now",
                              "python: TypeError: 'NoneType' object is not iterable, why?",
                              "here:\n```python\nfor row in load_rows(path):\n    print(row[0])\n```",
                              "and how do I unit test load_rows() with pytest"};
  ChatClassTracker tracker;
  std::vector<ChatTurn> turns;
  std::vector<ChatClass> seen;
  for (const char* const text : user) {
    turns.push_back({true, text});
    seen.push_back(tracker.Update(ClassifyChat({turns, 0})));
  }
  CHECK(seen[2] == ChatClass::kShortChat);
  CHECK(seen[3] == ChatClass::kShortChat);
  CHECK(seen[5] == ChatClass::kCode);
}

}  // namespace
}  // namespace kvist::chat_class_test
