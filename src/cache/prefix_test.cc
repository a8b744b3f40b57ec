// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "codec/block_layout.h"
#include "kvist/cache.h"
#include "tests/property/naive_cache.h"

namespace kvist::prefix_test {
namespace {

using testing::Last;
using testing::RandomStep;
using testing::RunRest;
using testing::RunStep;
using testing::SmallGeometry;
using testing::StepData;
using testing::StepOutput;

constexpr int64_t kBlock = 16;
constexpr size_t kBudget = 64 << 20;

std::unique_ptr<Cache> OpenSharing(const CacheGeometry& geometry, Form form = {}, size_t budget_bytes = kBudget) {
  return Cache::Open(geometry, {.form = form, .budget_bytes = budget_bytes, .shares_prefixes = true}).value();
}

// The same tokens and numbers up to `num_common`, others after it.
StepData Branch(std::mt19937& random, const CacheGeometry& geometry, const StepData& data, int64_t num_common,
                int64_t num_more) {
  StepData branch = data.Part(geometry, 0, num_common);
  const StepData more = RandomStep(random, geometry, num_more);
  branch.tokens.insert(branch.tokens.end(), more.tokens.begin(), more.tokens.end());
  auto add = [](auto& to, const auto& from) {
    for (size_t i = 0; i < to.size(); ++i) to[i].insert(to[i].end(), from[i].begin(), from[i].end());
  };
  add(branch.keys, more.keys);
  add(branch.values, more.values);
  add(branch.queries, more.queries);
  return branch;
}

TEST_CASE("prefix: who finds no room takes nothing from others that run") {
  std::mt19937 random(3);
  const CacheGeometry geometry = SmallGeometry(0);
  const size_t block_bytes = LayOutGroups(geometry, Form{})[0].block_bytes;
  const auto cache = OpenSharing(geometry, {}, 20 * block_bytes);
  const StepData text = RandomStep(random, geometry, 3 * kBlock);
  Sequence whole = cache->Begin(), part = cache->Begin(), filler = cache->Begin();
  RunRest(geometry, text, whole);
  REQUIRE(part.Reuse(text.tokens, 40).num_tokens() == 40);
  const StepData more = RandomStep(random, geometry, 17 * kBlock);
  RunRest(geometry, more, filler, kBlock);
  const std::vector<Token> next{1};
  CHECK(part.Prepare(next).error().code == ErrorCode::kOutOfMemory);
  CHECK(cache->Begin().Reuse(text.tokens).num_tokens() == 3 * kBlock);
}

TEST_CASE("prefix: what was reused gives the same bits as what was computed") {
  for (const int window : {0, 24, 100}) {
    for (const bool is_running : {false, true}) {
      for (const int64_t num_common : {1, 15, 16, 17, 64, 200, 299}) {
        CAPTURE(window);
        CAPTURE(is_running);
        CAPTURE(num_common);
        std::mt19937 random(7);
        const CacheGeometry geometry = SmallGeometry(window);
        const auto cold_cache = OpenSharing(geometry), cache = OpenSharing(geometry);
        const StepData first = RandomStep(random, geometry, 300);
        const StepData second = Branch(random, geometry, first, num_common, 50);
        Sequence other = cache->Begin();
        RunRest(geometry, first, other, 64);
        if (!is_running) other = cache->Begin();
        Sequence cold = cold_cache->Begin(), warm = cache->Begin();
        const StepOutput expected = RunRest(geometry, second, cold, 64);
        const ReuseReport report = warm.Reuse(second.tokens, std::ssize(second.tokens) - 1);
        CHECK(report.num_tokens() == warm.num_tokens());
        // A running sequence offers whole blocks; the last of one that ended is offered as far as it goes.
        const bool has_tail = !is_running || num_common / kBlock < 300 / kBlock;
        CHECK(report.shared_tokens == (has_tail ? num_common : num_common / kBlock * kBlock));
        CHECK(std::ranges::equal(warm.tokens(), std::span(second.tokens).first(size_t(warm.num_tokens()))));
        if (has_tail) {
          CHECK(report.reason == MissReason::kOtherToken);
          CHECK(report.miss_position == num_common);
          CHECK(report.stored_token == first.tokens[size_t(num_common)]);
        }
        const int64_t num_computed = std::ssize(second.tokens) - warm.num_tokens();
        CHECK(RunRest(geometry, second, warm, 64) == Last(expected, std::ssize(second.tokens), num_computed));
      }
    }
  }
}

TEST_CASE("prefix: the same prompt again computes its last token only") {
  for (const int window : {0, 24}) {
    for (const int64_t num_tokens : {1, 16, 63, 64, 65}) {
      CAPTURE(window);
      CAPTURE(num_tokens);
      std::mt19937 random(2);
      const CacheGeometry geometry = SmallGeometry(window);
      const auto cache = OpenSharing(geometry);
      const StepData text = RandomStep(random, geometry, num_tokens);
      StepOutput expected;
      {
        Sequence cold = cache->Begin();
        expected = RunRest(geometry, text, cold, 32);
      }
      for (int time = 0; time < 2; ++time) {
        Sequence warm = cache->Begin();
        CHECK(warm.Reuse(text.tokens, num_tokens - 1).num_tokens() == num_tokens - 1);
        CHECK(RunRest(geometry, text, warm, 32) == Last(expected, num_tokens, 1));
      }
    }
  }
}

TEST_CASE("prefix: a chat that goes on computes only its new tokens, in every form") {
  for (const Form form :
       {Form{Codec::kF16, Codec::kF16}, Form{Codec::kQ4, Codec::kQ4}, Form{Codec::kQ8, Codec::kF32}}) {
    for (const int window : {0, 40}) {
      CAPTURE(FormName(form));
      CAPTURE(window);
      std::mt19937 random(3);
      const CacheGeometry geometry = SmallGeometry(window);
      const auto cold_cache = OpenSharing(geometry, form), cache = OpenSharing(geometry, form);
      StepData text = RandomStep(random, geometry, 333);
      Sequence cold = cold_cache->Begin(), warm = cache->Begin();
      RunRest(geometry, text, cold, 64);
      RunRest(geometry, text, warm, 64);
      for (int turn = 0; turn < 3; ++turn) {
        text = Branch(random, geometry, text, std::ssize(text.tokens), 41);
        warm = cache->Begin();
        const ReuseReport report = warm.Reuse(text.tokens, std::ssize(text.tokens) - 1);
        CHECK(report.shared_tokens == std::ssize(text.tokens) - 41);
        CHECK(report.reason == MissReason::kNothingStored);
        CHECK(RunRest(geometry, text, cold, 64) == RunRest(geometry, text, warm, 64));
      }
    }
  }
}

TEST_CASE("prefix: many sequences with one prefix cost one prefix") {
  for (const Form form : {Form{}, Form{Codec::kQ4, Codec::kQ4}}) {
    CAPTURE(FormName(form));
    std::mt19937 random(5);
    const CacheGeometry geometry = SmallGeometry(0);
    const auto cache = OpenSharing(geometry, form);
    const StepData prefix = RandomStep(random, geometry, 40 * kBlock);
    std::vector<Sequence> sequences;
    size_t after_one = 0;
    for (int i = 0; i < 50; ++i) {
      const StepData text = Branch(random, geometry, prefix, 40 * kBlock, 10);
      sequences.push_back(cache->Begin());
      sequences.back().Reuse(text.tokens, std::ssize(text.tokens) - 1);
      RunRest(geometry, text, sequences.back(), 64);
      if (i == 0) after_one = cache->stats().num_live_blocks;
    }
    // Each has one block of its own.
    CHECK(cache->stats().num_live_blocks == after_one + 49);
  }
}

TEST_CASE("prefix: sequences that compute the same tokens at once end up with one copy, sealed ones, too") {
  for (const Form form : {Form{}, Form{Codec::kQ4, Codec::kQ4}}) {
    CAPTURE(FormName(form));
    std::mt19937 random(6);
    const CacheGeometry geometry = SmallGeometry(0);
    const auto cache = OpenSharing(geometry, form);
    const StepData text = RandomStep(random, geometry, 40 * kBlock);
    Sequence one = cache->Begin(), two = cache->Begin();
    while (one.num_tokens() < std::ssize(text.tokens)) {
      const StepData step = text.Part(geometry, one.num_tokens(), one.num_tokens() + 40);
      CHECK(RunStep(geometry, step, one).value() == RunStep(geometry, step, two).value());
    }
    const size_t num_blocks = cache->stats().num_live_blocks;
    two = cache->Begin();
    CHECK(cache->stats().num_live_blocks == num_blocks);
    CHECK(num_blocks == 40);
  }
}

TEST_CASE("prefix: idle ones make room, the least recently used first, and the budget holds") {
  std::mt19937 random(8);
  const CacheGeometry geometry = SmallGeometry(0);
  const size_t block_bytes = LayOutGroups(geometry, Form{})[0].block_bytes;
  const auto cache = OpenSharing(geometry, {}, 64 * block_bytes);
  std::vector<StepData> texts;
  for (int i = 0; i < 10; ++i) {
    texts.push_back(RandomStep(random, geometry, 15 * kBlock));
    Sequence sequence = cache->Begin();
    RunRest(geometry, texts.back(), sequence, 64);
    CHECK(cache->stats().committed_bytes <= 64 * block_bytes);
  }
  CHECK(cache->stats().num_evicted_blocks > 0);
  CHECK(cache->stats().idle_bytes == cache->stats().live_bytes);
  CHECK(cache->Begin().Reuse(texts.back().tokens).shared_tokens == 15 * kBlock);
  const ReuseReport evicted = cache->Begin().Reuse(texts.front().tokens);
  CHECK(evicted.shared_tokens == 0);
  CHECK(evicted.reason == MissReason::kEvicted);
  // A prefix goes from its end.
  bool any_in_part = false;
  for (const StepData& text : texts) {
    const int64_t num_shared = cache->Begin().Reuse(text.tokens).shared_tokens;
    any_in_part |= num_shared > 0 && num_shared < 15 * kBlock;
  }
  CHECK(any_in_part);
}

TEST_CASE("prefix: what a sequence can do alone it can do beside what it left behind itself") {
  std::mt19937 random(12);
  const CacheGeometry geometry = SmallGeometry(0);
  const size_t block_bytes = LayOutGroups(geometry, Form{})[0].block_bytes;
  const auto cache = OpenSharing(geometry, {}, 3 * block_bytes);
  const StepData text = RandomStep(random, geometry, 3 * kBlock);
  {
    Sequence sequence = cache->Begin();
    RunRest(geometry, text.Part(geometry, 0, 40), sequence, 64);
  }
  Sequence sequence = cache->Begin();
  CHECK(sequence.Reuse(text.tokens).num_tokens() == 40);
  // The last block is a prefix, too, and there is no room for a copy.
  RunRest(geometry, text, sequence, 64);
  CHECK(sequence.num_tokens() == 3 * kBlock);
}

TEST_CASE("prefix: other salts, removed tokens and caches that do not share find nothing") {
  std::mt19937 random(9);
  const CacheGeometry geometry = SmallGeometry(0);
  const StepData text = RandomStep(random, geometry, 100);
  SUBCASE("salt") {
    const auto cache = OpenSharing(geometry);
    Sequence mine = cache->Begin("mine");
    RunRest(geometry, text, mine, 64);
    CHECK(cache->Begin("yours").Reuse(text.tokens).num_tokens() == 0);
    CHECK(cache->Begin("yours").Reuse(text.tokens).reason == MissReason::kOtherSalt);
    CHECK(cache->Begin("yours").Reuse(RandomStep(random, geometry, 50).tokens).reason == MissReason::kNothingStored);
    CHECK(cache->Begin().Reuse(text.tokens).num_tokens() == 0);
    CHECK(cache->Begin("mine").Reuse(text.tokens).num_tokens() == 96);
  }
  SUBCASE("removed") {
    const auto cache = OpenSharing(geometry);
    {
      Sequence sequence = cache->Begin();
      RunRest(geometry, text, sequence, 64);
      REQUIRE(sequence.Remove(20, 30));
      const StepData more = RandomStep(random, geometry, 60);
      REQUIRE(RunStep(geometry, more, sequence));
      CHECK(sequence.Reuse(sequence.tokens()).own_tokens == 150);
      std::vector<Token> longer(sequence.tokens().begin(), sequence.tokens().end());
      longer.push_back(1);
      CHECK(sequence.Reuse(longer).reason == MissReason::kUnshared);
    }
    // Tokens as if the gap had never been: their keys saw what was removed.
    std::vector<Token> without(text.tokens.begin(), text.tokens.end());
    without.erase(without.begin() + 20, without.begin() + 30);
    CHECK(cache->Begin().Reuse(without).num_tokens() == 20);
    CHECK(cache->Begin().Reuse(text.tokens).num_tokens() == 96);
  }
  SUBCASE("not shared") {
    const auto cache = Cache::Open(geometry, {.form = {}, .budget_bytes = kBudget}).value();
    Sequence sequence = cache->Begin();
    RunRest(geometry, text, sequence, 64);
    const ReuseReport report = cache->Begin().Reuse(text.tokens);
    CHECK(report.num_tokens() == 0);
    CHECK(report.reason == MissReason::kUnshared);
  }
}

TEST_CASE("prefix: after truncating, other tokens do not change what was shared") {
  std::mt19937 random(10);
  const CacheGeometry geometry = SmallGeometry(0);
  const auto cache = OpenSharing(geometry), cold_cache = OpenSharing(geometry);
  const StepData text = RandomStep(random, geometry, 100), other = Branch(random, geometry, text, 70, 40);
  const StepData again = Branch(random, geometry, text, 99, 20);
  Sequence sequence = cache->Begin(), cold = cold_cache->Begin();
  RunRest(geometry, text, sequence, 64);
  REQUIRE(sequence.Truncate(70));
  RunRest(geometry, other, sequence, 64);
  const StepOutput expected = RunRest(geometry, again, cold, 64);
  Sequence warm = cache->Begin();
  CHECK(warm.Reuse(again.tokens, std::ssize(again.tokens) - 1).shared_tokens == 96);
  CHECK(RunRest(geometry, again, warm, 64) == Last(expected, 119, 119 - 96));
}

TEST_CASE("prefix: a block of which a part was reused makes room when it is wanted") {
  std::mt19937 random(12);
  const CacheGeometry geometry = SmallGeometry(0);
  const StepData text = RandomStep(random, geometry, 40);
  const auto cache = OpenSharing(geometry);
  {
    Sequence sequence = cache->Begin();
    RunRest(geometry, text, sequence, 64);
  }
  REQUIRE(cache->stats().num_idle_blocks == 3);
  {
    Sequence sequence = cache->Begin();
    REQUIRE(sequence.Reuse(text.tokens, 38).shared_tokens == 38);
  }  // ends, and the last block is stored as one of 8 tokens and as one of 6
  CHECK(cache->stats().num_idle_blocks == 3);
  CHECK(cache->stats().idle_bytes == cache->stats().live_bytes);
}

TEST_CASE("prefix: a sequence is continued by what another has computed meanwhile") {
  std::mt19937 random(11);
  const CacheGeometry geometry = SmallGeometry(30);
  const auto cache = OpenSharing(geometry), cold_cache = OpenSharing(geometry);
  const StepData text = RandomStep(random, geometry, 200);
  Sequence first = cache->Begin(), second = cache->Begin(), cold = cold_cache->Begin();
  const StepOutput expected = RunRest(geometry, text, cold, 50);
  REQUIRE(RunStep(geometry, text.Part(geometry, 0, 37), second));
  RunRest(geometry, text, first, 50);
  const ReuseReport report = second.Reuse(text.tokens, std::ssize(text.tokens) - 1);
  CHECK(report.own_tokens == 37);
  CHECK(report.shared_tokens == 192 - 37);
  CHECK(RunRest(geometry, text, second, 50) == Last(expected, 200, 8));
}

}  // namespace
}  // namespace kvist::prefix_test
