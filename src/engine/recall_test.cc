// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "engine/recall.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

#include "engine/letters.h"

namespace kvist::recall_test {
namespace {

std::shared_ptr<const Tokenizer> OpenLetters() {
  auto letters = Tokenizer::Open(LettersVocabulary(62, {}));
  REQUIRE(letters);
  return *letters;
}

// Where the whole of `part` lies in `all`.
int64_t PlaceOf(const std::vector<Token>& part, const std::vector<Token>& all) {
  const auto found = std::ranges::search(all, part);
  return found.empty() ? -1 : found.begin() - all.begin();
}

TEST_CASE("recall: a pass key lies where it is said to, in a context of the right length, and is what is asked for") {
  const auto tokenizer = OpenLetters();
  const std::vector<Token> filler = SomeTokens(3000, 1);
  const RecallSizes sizes{.context_tokens = 600, .count = 5};
  const auto keys = MakePasskeys(*tokenizer, filler, sizes, Token{0});
  REQUIRE_MESSAGE(keys, (keys ? "" : keys.error().message));
  REQUIRE(keys->size() == 5);
  for (size_t i = 0; i < keys->size(); ++i) {
    const Recall& key = (*keys)[i];
    CHECK(key.context.size() == 600);
    CHECK(key.context[0] == 0);
    CHECK(key.depth == doctest::Approx((double(i) + 0.5) / 5));
    CHECK(key.answer.size() == 5);
    const int64_t place = PlaceOf(key.answer, key.context);
    CHECK(double(place) / 600 == doctest::Approx(key.depth).epsilon(0.3));
    CHECK_FALSE(key.cue.empty());
    CHECK(PlaceOf(key.answer, key.cue) < 0);
    for (size_t j = 0; j < i; ++j) CHECK((*keys)[j].answer != key.answer);
  }
  const auto again = MakePasskeys(*tokenizer, filler, sizes, Token{0});
  CHECK(again->back().context == keys->back().context);
}

TEST_CASE("recall: a passage is in its context once, and its cue is how it begins") {
  const std::vector<Token> filler = SomeTokens(3000, 2);
  const auto passages = MakePassages(filler, {.context_tokens = 600, .count = 3}, {});
  REQUIRE(passages);
  REQUIRE(passages->size() == 3);
  for (const Recall& passage : *passages) {
    CHECK(passage.context.size() == 599);  // no token begins it
    CHECK(passage.cue.size() == kPassageCueTokens);
    CHECK(passage.answer.size() == kPassageTokens - kPassageCueTokens);
    const std::vector<Token> whole = Join(passage.cue, passage.answer);
    CHECK(PlaceOf(whole, passage.context) >= 0);
    CHECK(PlaceOf(whole, filler) < 0);
  }
}

TEST_CASE("recall: texts that are too short are refused") {
  const auto tokenizer = OpenLetters();
  const auto code = [](const auto& made) { return made ? ErrorCode::kIo : made.error().code; };
  CHECK(code(MakePasskeys(*tokenizer, SomeTokens(900, 1), {.context_tokens = 800}, {})) == ErrorCode::kInvalidArgument);
  CHECK(code(MakePasskeys(*tokenizer, SomeTokens(900, 1), {.context_tokens = 50}, {})) == ErrorCode::kInvalidArgument);
  CHECK(code(MakePassages(SomeTokens(8, 1), {}, {})) == ErrorCode::kInvalidArgument);
  CHECK(code(MakePassages(SomeTokens(500, 1), {.context_tokens = 100}, {})) == ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace kvist::recall_test
