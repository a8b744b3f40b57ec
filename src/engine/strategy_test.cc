// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "engine/strategy.h"

#include <doctest/doctest.h>

#include <string>
#include <utility>

namespace kvist::strategy_test {
namespace {

std::string Replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

TEST_CASE("strategies: the built-in ones are the article's, one for each class") {
  const auto set = StrategySet::Parse(StrategySet::DefaultText());
  REQUIRE(set);
  CHECK(set->Names() == "compressed, doubling, predictive, tiers");
  CHECK(set->cache_form() == Form{Codec::kQ4, Codec::kQ4});
  CHECK(set->Of(ChatClass::kShortChat).growth.kind == GrowthKind::kPredictive);
  CHECK(set->Of(ChatClass::kLongDocument).uses_tiers);
  CHECK(set->Of(ChatClass::kCode).growth.factor == 2.0);
  CHECK(IsQuantised(set->Of(ChatClass::kCreative).form));
  CHECK_FALSE(IsQuantised(set->Of(ChatClass::kCode).form));
  CHECK(set->Find("tiers") == &set->Of(ChatClass::kLongDocument));
  CHECK(set->Find("none") == nullptr);
}

TEST_CASE("strategies: a file of one's own may bundle what there is") {
  const std::string own =
      Replaced(Replaced(std::string(StrategySet::DefaultText()), R"("form": "q4"})",
                        R"("form": "q8", "pages": 1024, "retain": "window:tokens=512"})"),
               R"("form": "f16", "tiers": true})", R"("form": "q8", "stream": "window=2048", "tiers": false})");
  const auto set = StrategySet::Parse(own);
  REQUIRE(set);
  CHECK(set->cache_form() == Form{Codec::kQ8, Codec::kQ8});
  CHECK(set->Find("compressed")->retain == ParseRetain("window:tokens=512").value());
  CHECK(set->Find("compressed")->pages.num_tokens == 1024);
  CHECK(set->Find("tiers")->pages == PageSelection());
  CHECK(set->Find("tiers")->stream->window_tokens == 2048);
  const auto exact = StrategySet::Parse(Replaced(std::string(StrategySet::DefaultText()), "q4", "f16"));
  REQUIRE(exact);
  CHECK(exact->cache_form() == Form{});
}

TEST_CASE("strategies: what is wrong with a file is said") {
  const std::string text(StrategySet::DefaultText());
  const std::pair<std::string, const char*> wrong[] = {
      {"{", "not JSON"},
      {"{}", "\"classes\""},
      {R"({"strategies": {}, "classes": {}})", "there is none"},
      {Replaced(text, "dynamic:initial=512,factor=2", "dynamic:factor=9"),
       "'doubling', \"growth\": growth option factor"},
      {Replaced(text, "\"tiers\": true", "\"tiers\": 1"), "true or false"},
      {Replaced(text, "\"tiers\": true", "\"pages\": -1"), "number of tokens"},
      {Replaced(text, "\"tiers\": true", "\"disk\": true"), "\"disk\""},
      {Replaced(text, "\"q4\"", "4"), "text in quotes"},
      {Replaced(text, "\"form\": \"f16\"}", "\"form\": \"q8\"}"), "one quantised form"},
      {Replaced(text, "\"form\": \"f16\"}", "\"form\": \"f32\"}"), "one open form"},
      {Replaced(text, "\"code\": \"doubling\"", "\"code\": \"best\""), "there is no 'best'; there are compressed"},
      {Replaced(text, "\"code\":", "\"coding\":"), "coding"},
      {Replaced(text, "\"code\": \"doubling\",", ""), "class 'code' has none"},
      {Replaced(text, "\"predictive\": {", "\"auto\": {"), "'auto'"},
      {Replaced(text, "\"q4\"", "\"q4\", \"retain\": \"knorm\", \"stream\": \"\""), "both retain and stream"},
  };
  for (const auto& [json, says] : wrong) {
    CAPTURE(says);
    const auto refused = StrategySet::Parse(json);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == ErrorCode::kInvalidArgument);
    CHECK_MESSAGE(refused.error().message.find(says) != std::string::npos, refused.error().message);
  }
}

}  // namespace
}  // namespace kvist::strategy_test
