// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "engine/chat_manager.h"

#include <doctest/doctest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/tiny_engine.h"
#include "kvist/kv_size.h"
#include "tier/tier_test_kit.h"

namespace kvist::chat_manager_test {
namespace {

constexpr int64_t kAnswerTokens = 40;

// Conversations without a template: lines of User: and Assistant:, of which the tiny model's tokenizer knows the
// letters.
struct Rig : TinyEngine {
  explicit Rig(CacheOptions options = {}, std::string strategy = "auto", bool saves_sessions = false)
      : TinyEngine(TinyModel{.context = 1000}) {
    auto strategies = StrategySet::Parse(StrategySet::DefaultText());
    REQUIRE(strategies);
    options.form = strategies->cache_form();
    options.shares_prefixes = true;
    cache = Cache::Open(model->geometry(), options).value();
    auto gguf = GgufFile::Open(file.path());
    REQUIRE(gguf);
    auto empty = Conversation::Open(**gguf, false, "");
    REQUIRE(empty);
    auto opened = ChatManager::Open(model.get(), tokenizer, cache.get(), *std::move(empty),
                                    {.strategies = strategy.empty() ? std::nullopt : std::optional(*strategies),
                                     .strategy = strategy,
                                     .saves_sessions = saves_sessions},
                                    "main");
    REQUIRE(opened);
    manager.emplace(*std::move(opened));
  }
  Generation Answer(const std::string& message) {
    GenerateOptions options{.max_tokens = kAnswerTokens};
    const auto generation = manager->Answer(message, options, {});
    REQUIRE_MESSAGE(generation, (generation ? "" : generation.error().message));
    return *generation;
  }
  ChatInfo Info(const std::string& name) const {
    for (const ChatInfo& info : manager->List())
      if (info.name == name) return info;
    FAIL("no such conversation");
    return {};
  }

  std::unique_ptr<Cache> cache;
  std::optional<ChatManager> manager;
};

TEST_CASE("chat manager: conversations go on side by side, and none sees another") {
  Rig rig({}, "predictive"), alone({}, "predictive");
  const std::vector<std::string> messages = {"tell me of bees", "and of birds", "more please"};
  std::vector<std::string> alone_texts;
  for (const std::string& message : messages) alone_texts.push_back(alone.Answer(message).text);
  REQUIRE(rig.manager->Begin("other"));
  for (size_t i = 0; i < messages.size(); ++i) {
    REQUIRE(rig.manager->Use("other"));
    rig.Answer("of stones " + std::to_string(i));
    REQUIRE(rig.manager->Use("main"));
    CHECK(rig.Answer(messages[i]).text == alone_texts[i]);
  }
  CHECK(rig.Info("main").num_messages == 6);
  CHECK(rig.Info("other").num_messages == 6);
  CHECK(rig.Info("main").is_current);
  rig.manager->Clear();
  CHECK(rig.Info("main").num_messages == 0);
  CHECK(rig.Answer(messages[0]).text == alone_texts[0]);
}

TEST_CASE("chat manager: the strategy follows the class, in place, and not at once") {
  Rig rig;
  rig.Answer("hi there, how are you");
  CHECK(rig.Info("main").strategy == "predictive");
  const int64_t num_tokens = rig.Info("main").num_tokens;
  const size_t bytes_before = rig.cache->stats().cumulative_bytes;
  int num_turns = 0;
  Generation generation;
  while (rig.Info("main").strategy != "compressed") {
    generation = rig.Answer("write a poem about the sea, a story in verse");
    REQUIRE(++num_turns <= 4);
  }
  CHECK(num_turns > 1);
  CHECK(rig.Info("main").chat_class == ChatClass::kCreative);
  CHECK(rig.Info("main").num_switches == 1);
  CHECK(generation.stats.reused_tokens >= num_tokens);  // nothing is computed again
  CHECK(rig.cache->stats().copied_bytes == 0);
  CHECK(rig.cache->stats().cumulative_bytes > bytes_before);
  REQUIRE(rig.manager->ChooseStrategy("doubling"));
  rig.Answer("write another poem");
  CHECK(rig.Info("main").strategy == "doubling");
  CHECK(rig.Info("main").is_chosen);
  REQUIRE(rig.manager->ChooseStrategy("auto"));
  rig.Answer("write another poem");
  CHECK(rig.Info("main").strategy == "compressed");
}

TEST_CASE("chat manager: one that uses tiers leaves memory, and goes on as if it had not") {
  Rig rig({}, "tiers"), alone({}, "predictive");
  rig.Answer("summarise the report");
  alone.Answer("summarise the report");
  REQUIRE(rig.manager->Begin("other"));
  CHECK(rig.Info("main").held_bytes == 0);
  rig.Answer("what is new");
  REQUIRE(rig.manager->Use("main"));
  const Generation next = rig.Answer("and section two");
  CHECK(next.text == alone.Answer("and section two").text);
  CHECK(next.reuse.shared_tokens > 0);
}

TEST_CASE("chat manager: in a budget for a few, many conversations are all answered") {
  const TinyEngine engine(TinyModel{.context = 1000});
  const size_t block_bytes = KvBlockBytes(engine.model->geometry(), Form{});
  Rig rig({.form = {}, .budget_bytes = 9 * block_bytes}, "doubling");
  for (int round = 0; round < 3; ++round) {
    for (const char* name : {"main", "a", "b", "c", "d", "e"}) {
      if (round == 0 && std::string(name) != "main") REQUIRE(rig.manager->Begin(name));
      REQUIRE(rig.manager->Use(name));
      CHECK(rig.Answer("say more").tokens.size() == kAnswerTokens);
      CHECK(rig.cache->stats().committed_bytes <= 9 * block_bytes);
    }
  }
  CHECK(rig.Info("a").num_messages == 6);
}

TEST_CASE("chat manager: conversations that are sessions come back in another process") {
  const TestFolder folder;
  CacheOptions options;
  options.model = {"test", {1, 2}};
  options.tiers = {"disk:" + folder.path() + ",size=64M"};
  Rig alone({}, "predictive");
  const std::string first = alone.Answer("tell me of bees").text, second = alone.Answer("and of birds").text;
  {
    Rig rig(options, "predictive", true);
    CHECK(rig.manager->Use("main").value() == std::nullopt);
    CHECK(rig.Answer("tell me of bees").text == first);
    REQUIRE(rig.manager->Save());
  }
  Rig rig(options, "predictive", true);
  const auto resumed = rig.manager->Use("main");
  REQUIRE(resumed);
  REQUIRE(resumed->has_value());
  CHECK((*resumed)->num_restored_tokens == (*resumed)->num_tokens);
  CHECK(rig.Info("main").num_messages == 2);
  CHECK(rig.Answer("and of birds").text == second);
  CHECK(rig.manager->Use("nobody").error().code == ErrorCode::kNotFound);
  // A new conversation must not take a saved one's place.
  REQUIRE(rig.manager->Begin("work"));
  rig.Answer("tell me of bees");
  REQUIRE(rig.manager->Save());
  Rig later(options, "predictive", true);
  const Status taken = later.manager->Begin("work");
  REQUIRE_FALSE(taken);
  CHECK(taken.error().code == ErrorCode::kInvalidArgument);
  CHECK(taken.error().message.find("/use") != std::string::npos);
  CHECK(later.manager->Use("work"));
}

TEST_CASE("chat manager: two programs with one session both keep their conversation") {
  const TestFolder folder;
  CacheOptions options;
  options.model = {"test", {1, 2}};
  options.tiers = {"disk:" + folder.path() + ",size=64M"};
  Rig first(options, "predictive", true), second(options, "predictive", true);
  for (Rig* rig : {&first, &second}) {
    CHECK(rig->manager->Use("main").value() == std::nullopt);  // each begins it
    REQUIRE(rig->manager->Begin("work"));
    REQUIRE(rig->manager->Use("main"));
  }
  first.Answer("tell me of bees");
  REQUIRE(first.manager->Save());
  second.Answer("tell me of birds");
  REQUIRE(second.manager->Save());
  CHECK(first.manager->name() == "main");
  CHECK(second.manager->name() == "main-2");
  second.Answer("say more");
  REQUIRE(second.manager->Save());
  CHECK(second.manager->name() == "main-2");
  // So do those that were begun by /new.
  for (Rig* rig : {&first, &second}) {
    REQUIRE(rig->manager->Use("work"));
    rig->Answer("tell me of bees");
  }
  REQUIRE(first.manager->Save());
  REQUIRE(second.manager->Save());
  CHECK(first.manager->name() == "work");
  CHECK(second.manager->name() == "work-2");
  Rig later(options, "predictive", true);
  for (const auto& [name, num_messages] : {std::pair{"main", 2}, {"main-2", 4}, {"work", 2}, {"work-2", 2}}) {
    REQUIRE(later.manager->Use(name));
    CHECK(later.Info(name).num_messages == size_t(num_messages));
  }
}

TEST_CASE("chat manager: what can't be done is said, and changes nothing") {
  Rig rig;
  CHECK(rig.manager->Begin("main").error().code == ErrorCode::kInvalidArgument);
  CHECK(rig.manager->Begin("../etc").error().code == ErrorCode::kInvalidArgument);
  CHECK(rig.manager->Use("nobody").error().code == ErrorCode::kNotFound);
  CHECK(rig.manager->ChooseStrategy("best").error().message.find("compressed") != std::string::npos);
  CHECK(rig.Info("main").is_current);
  rig.Answer("hello");
  GenerateOptions options;
  const auto failed = rig.manager->Answer(std::string(3000, 'a'), options, {});
  REQUIRE_FALSE(failed);
  CHECK(failed.error().code == ErrorCode::kOutOfRange);
  CHECK(rig.Info("main").num_messages == 2);
  Rig without({}, "");
  without.Answer("hello");
  CHECK(without.Info("main").strategy.empty());
  CHECK(without.manager->ChooseStrategy("auto").error().code == ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace kvist::chat_manager_test
