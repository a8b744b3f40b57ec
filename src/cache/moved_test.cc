// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include <doctest/doctest.h>

#include <algorithm>
#include <initializer_list>
#include <memory>
#include <random>
#include <vector>

#include "codec/block_layout.h"
#include "kvist/cache.h"
#include "storage/rolling_hash.h"
#include "tests/property/naive_cache.h"
#include "tier/tier_test_kit.h"

namespace kvist::moved_test {
namespace {

using testing::NaiveSequence;
using testing::RandomStep;
using testing::RunRest;
using testing::RunStep;
using testing::SmallGeometry;
using testing::StepData;
using testing::StepOutput;

constexpr int64_t kBlock = 16;

CacheOptions Options(Form form = {}, int64_t min_tokens = 64, int64_t recomputed_tokens = 0) {
  CacheOptions options{.form = form, .budget_bytes = 64 << 20, .shares_prefixes = true, .reuses_moved_chunks = true};
  options.moved_chunks = {.min_tokens = min_tokens, .recomputed_tokens = recomputed_tokens};
  options.sealing.recent_tokens = 40;
  return options;
}

std::unique_ptr<Cache> OpenMoving(const CacheGeometry& geometry, const CacheOptions& options) {
  auto cache = Cache::Open(geometry, options);
  REQUIRE(cache);
  return *std::move(cache);
}

// One text after another.
StepData Join(std::initializer_list<const StepData*> parts) {
  StepData all = **parts.begin();
  const auto add = [](auto& to, const auto& from) {
    for (size_t i = 0; i < to.size(); ++i) to[i].insert(to[i].end(), from[i].begin(), from[i].end());
  };
  for (const StepData* part : std::span(parts.begin(), parts.size()).subspan(1)) {
    all.tokens.insert(all.tokens.end(), part->tokens.begin(), part->tokens.end());
    add(all.keys, part->keys);
    add(all.values, part->values);
    add(all.queries, part->queries);
  }
  return all;
}

void Store(const CacheGeometry& geometry, const StepData& text, Cache& cache, const std::string& salt = {}) {
  Sequence sequence = cache.Begin(salt);
  RunRest(geometry, text, sequence, 64);
}

void Run(const CacheGeometry& geometry, const StepData& text, int64_t end, Sequence& sequence) {
  RunRest(geometry, text.Part(geometry, 0, end), sequence, 64);
}

TEST_CASE("moved: outputs are those of keys turned to the new position, in every layer and at any offset") {
  for (const int window : {0, 24, 150}) {
    for (const int64_t num_before : {0, 5, 37, 200}) {
      for (const int64_t num_recomputed : {0, 1, 20}) {
        CAPTURE(window);
        CAPTURE(num_before);
        CAPTURE(num_recomputed);
        std::mt19937 random(3);
        const CacheGeometry geometry = SmallGeometry(window);
        const auto cache = OpenMoving(geometry, Options({}, 64, num_recomputed));
        const StepData old = RandomStep(random, geometry, 53), document = RandomStep(random, geometry, 140);
        const StepData tail = RandomStep(random, geometry, 21), question = RandomStep(random, geometry, 30);
        Store(geometry, Join({&old, &document, &tail}), *cache);
        const StepData before = RandomStep(random, geometry, num_before);
        const StepData prompt = Join({&before, &document, &question});

        Sequence sequence = cache->Begin();
        const auto found = sequence.FindMoved(prompt.tokens);
        REQUIRE(found);
        CHECK(found->position == num_before + num_recomputed);
        CHECK(found->num_tokens == 140 - num_recomputed);
        Run(geometry, prompt, found->position, sequence);
        const size_t live_bytes = cache->stats().live_bytes;
        CHECK(sequence.ReuseMoved(prompt.tokens) == found->num_tokens);
        CHECK(cache->stats().live_bytes <= live_bytes);  // by reference; windows let go of what they had
        CHECK(sequence.num_tokens() == num_before + 140);
        CHECK(std::ranges::equal(sequence.tokens(), std::span(prompt.tokens).first(size_t(num_before + 140))));

        NaiveSequence naive(geometry, {});
        naive.Add(prompt.Part(geometry, 0, found->position));
        naive.Add(document.Part(geometry, num_recomputed, 140), num_before - 53);
        naive.Add(question);
        const auto out = RunStep(geometry, question, sequence);
        REQUIRE(out);
        CHECK(naive.WorstError(question, *out, random) < 2e-5);
      }
    }
  }
}

// A text whose middle is removed holds the very blocks that another sequence attaches behind the text's beginning.
struct SameBits {
  explicit SameBits(Form form) : cache(OpenMoving(geometry, Options(form))) {
    const StepData whole = Join({&beginning, &removed, &document});
    RunRest(geometry, whole, by_removing, 64);
    REQUIRE(by_removing.Remove(16, 46));
    REQUIRE(moved.Reuse(prompt.tokens, 16).shared_tokens == 16);
    const auto found = moved.FindMoved(prompt.tokens);
    REQUIRE(found);
    CHECK(found->position == 16);
    REQUIRE(moved.ReuseMoved(prompt.tokens) == 242);
  }
  void CheckNext(Sequence& one, Sequence& other, int64_t num_tokens) {
    const StepData next = RandomStep(random, geometry, num_tokens);
    const auto expected = RunStep(geometry, next, one), out = RunStep(geometry, next, other);
    REQUIRE(expected);
    REQUIRE(out);
    CHECK(*expected == *out);
  }

  std::mt19937 random{4};
  CacheGeometry geometry = SmallGeometry(0);
  StepData beginning = RandomStep(random, geometry, 16), removed = RandomStep(random, geometry, 30);
  StepData document = RandomStep(random, geometry, 242);  // ends where a block does
  StepData prompt = Join({&beginning, &document});
  std::unique_ptr<Cache> cache;
  Sequence by_removing = cache->Begin(), moved = cache->Begin();
};

constexpr Form kForms[] = {{}, {Codec::kF16, Codec::kF16}, {Codec::kQ4, Codec::kQ4}, {Codec::kQ8, Codec::kF32}};

TEST_CASE("moved: the same bits as after removing what was between, in every form") {
  for (const Form form : kForms) {
    CAPTURE(FormName(form));
    SameBits rig(form);
    for (const int64_t num_tokens : {1, 40, 7, 100, 64, 1}) rig.CheckNext(rig.by_removing, rig.moved, num_tokens);
    Sequence one = rig.by_removing.Fork(), other = rig.moved.Fork();
    rig.CheckNext(one, other, 30);
    rig.CheckNext(rig.by_removing, rig.moved, 5);
  }
}

TEST_CASE("moved: a chunk can be truncated and removed from like any other tokens") {
  for (const Form form : kForms) {
    CAPTURE(FormName(form));
    for (const int64_t num_kept : {250, 136, 129, 17, 16, 3}) {
      CAPTURE(num_kept);
      SameBits rig(form);
      REQUIRE(rig.by_removing.Truncate(num_kept));
      REQUIRE(rig.moved.Truncate(num_kept));
      rig.CheckNext(rig.by_removing, rig.moved, 50);
      REQUIRE(rig.by_removing.Remove(10, 15));
      REQUIRE(rig.moved.Remove(10, 15));
      rig.CheckNext(rig.by_removing, rig.moved, 100);
    }
  }
}

TEST_CASE("moved: open blocks before sealed ones are sealed when they are old enough") {
  std::mt19937 random(5);
  CacheGeometry geometry = SmallGeometry(0);
  for (LayerGeometry& layer : geometry.layers) layer.key_dim = layer.value_dim = 64;  // more than a page
  const Form form{Codec::kQ4, Codec::kQ4};
  const auto cache = OpenMoving(geometry, Options(form));
  const StepData old = RandomStep(random, geometry, 30), document = RandomStep(random, geometry, 320);
  Store(geometry, Join({&old, &document}), *cache);
  const StepData before = RandomStep(random, geometry, 64), prompt = Join({&before, &document});
  const std::vector<Form> forms(3, form);
  const size_t open_bytes = LayOutOpenGroups(geometry, forms)[0].block_bytes;
  const size_t sealed_bytes = LayOutGroups(geometry, forms)[0].block_bytes;
  REQUIRE(open_bytes > sealed_bytes);
  Sequence sequence = cache->Begin();
  Run(geometry, prompt, 64, sequence);
  REQUIRE(sequence.ReuseMoved(prompt.tokens, 264) == 200);
  const size_t live_bytes = cache->stats().live_bytes;
  REQUIRE(RunStep(geometry, RandomStep(random, geometry, 1), sequence));
  // One new block; all of the beginning's but the first, which is a sink, are sealed.
  CHECK(cache->stats().live_bytes == live_bytes + open_bytes - 3 * (open_bytes - sealed_bytes));
}

TEST_CASE("moved: nothing is found that is too short, of another salt, or another text with the same hash") {
  std::mt19937 random(6);
  const CacheGeometry geometry = SmallGeometry(0);
  const auto cache = OpenMoving(geometry, Options());
  const StepData old = RandomStep(random, geometry, 25), document = RandomStep(random, geometry, 64);
  const StepData tail = RandomStep(random, geometry, 40), before = RandomStep(random, geometry, 9);
  Store(geometry, Join({&old, &document, &tail}), *cache, "mine");
  const auto find = [&](const StepData& part, const std::string& salt) {
    const StepData prompt = Join({&before, &part, &before});
    return cache->Begin(salt).FindMoved(prompt.tokens).has_value();
  };
  CHECK(find(document, "mine"));
  CHECK_FALSE(find(document, "yours"));
  CHECK_FALSE(find(document, ""));
  CHECK_FALSE(find(document.Part(geometry, 1, 64), "mine"));
  CHECK_FALSE(find(document.Part(geometry, 0, 63), "mine"));
  // Where the stored text has its third block, the prompt has the same hash and other tokens.
  StepData other = document;
  const size_t changed = 2 * kBlock - 25 + 3;
  ++other.tokens[changed];
  other.tokens[changed + 1] -= Token(RollingHash::kBase);
  const auto hash = [](const StepData& data) {
    return RollingHash(std::span(data.tokens).subspan(2 * kBlock - 25, kBlock)).value();
  };
  REQUIRE(hash(other) == hash(document));
  CHECK_FALSE(find(other, "mine"));
}

TEST_CASE("moved: a chunk that has gone, or the middle of one, is computed") {
  std::mt19937 random(7);
  const CacheGeometry geometry = SmallGeometry(0);
  const auto cache = OpenMoving(geometry, Options({}, 64, 8));
  const StepData document = RandomStep(random, geometry, 150), before = RandomStep(random, geometry, 30);
  const StepData prompt = Join({&before, &document});
  Sequence sequence = cache->Begin();
  CHECK(sequence.ReuseMoved(prompt.tokens) == 0);  // before its first token
  Run(geometry, prompt, 38, sequence);
  CHECK(sequence.ReuseMoved(prompt.tokens) == 0);
  Store(geometry, document, *cache);
  for (const int64_t max_tokens : {38, 20, 0, -1}) {
    CHECK_FALSE(sequence.FindMoved(prompt.tokens, max_tokens));
    CHECK(sequence.ReuseMoved(prompt.tokens, max_tokens) == 0);
  }
  CHECK(sequence.ReuseMoved(prompt.tokens, 100) == 62);
  CHECK(sequence.num_tokens() == 100);
  const auto rest = sequence.FindMoved(prompt.tokens, 179);
  REQUIRE(rest);
  CHECK(rest->position == 108);
  CHECK(rest->num_tokens == 71);
}

TEST_CASE("moved: two documents are two chunks, and one that stands twice in a prompt is used twice") {
  std::mt19937 random(8);
  const CacheGeometry geometry = SmallGeometry(40);
  const auto cache = OpenMoving(geometry, Options());
  const StepData one = RandomStep(random, geometry, 90), two = RandomStep(random, geometry, 110);
  const StepData between = RandomStep(random, geometry, 11);
  Store(geometry, one, *cache);
  Store(geometry, two, *cache);
  const StepData prompt = Join({&between, &two, &between, &one, &two, &between});
  Sequence sequence = cache->Begin();
  std::vector<int64_t> chunks;
  while (const auto chunk = sequence.FindMoved(prompt.tokens)) {
    Run(geometry, prompt, chunk->position, sequence);
    REQUIRE(sequence.ReuseMoved(prompt.tokens) == chunk->num_tokens);
    chunks.push_back(chunk->position);
    chunks.push_back(chunk->num_tokens);
  }
  CHECK(chunks == std::vector<int64_t>{11, 110, 132, 90, 222, 110});
}

TEST_CASE("moved: what comes after a chunk is nobody's prefix, until it is truncated") {
  std::mt19937 random(9);
  const CacheGeometry geometry = SmallGeometry(0);
  const auto cache = OpenMoving(geometry, Options());
  const StepData old = RandomStep(random, geometry, 25), document = RandomStep(random, geometry, 100);
  const StepData before = RandomStep(random, geometry, 40), question = RandomStep(random, geometry, 60);
  Store(geometry, Join({&old, &document}), *cache);
  const StepData prompt = Join({&before, &document, &question});
  {
    Sequence sequence = cache->Begin();
    Run(geometry, prompt, 40, sequence);
    REQUIRE(sequence.ReuseMoved(prompt.tokens) == 100);
    RunRest(geometry, prompt, sequence, 64);
    CHECK(sequence.is_approximate());
    CHECK(sequence.Reuse(prompt.tokens).own_tokens == 200);
    CHECK(cache->Begin().Reuse(prompt.tokens).num_tokens() == 32);
  }
  CHECK(cache->Begin().Reuse(prompt.tokens).num_tokens() == 32);  // no more than whole blocks before the chunk
  CHECK_FALSE(cache->Begin().FindMoved(question.tokens));
  Sequence sequence = cache->Begin();
  Run(geometry, prompt, 40, sequence);
  REQUIRE(sequence.ReuseMoved(prompt.tokens) == 100);
  REQUIRE(sequence.Truncate(40));
  CHECK_FALSE(sequence.is_approximate());
  RunRest(geometry, prompt, sequence, 64);
  CHECK(cache->Begin().Reuse(prompt.tokens).num_tokens() == 192);
}

TEST_CASE("moved: a session ends before its first chunk, and the rest is computed again") {
  std::mt19937 random(10);
  const CacheGeometry geometry = SmallGeometry(0);
  const TestFolder folder;
  CacheOptions options = Options();
  options.tiers = {"disk:" + folder.path() + ",size=64M"};
  options.model.fingerprint = {1, 2};
  const auto cache = OpenMoving(geometry, options);
  const StepData old = RandomStep(random, geometry, 25), document = RandomStep(random, geometry, 100);
  const StepData before = RandomStep(random, geometry, 48), prompt = Join({&before, &document});
  Store(geometry, Join({&old, &document}), *cache);
  Sequence sequence = cache->Begin();
  Run(geometry, prompt, 48, sequence);
  REQUIRE(sequence.ReuseMoved(prompt.tokens) == 100);
  REQUIRE(cache->Save("one", sequence));
  const auto resumed = cache->Resume("one");
  REQUIRE(resumed);
  CHECK(resumed->tokens == prompt.tokens);
  CHECK(resumed->sequence.num_tokens() == 48);
}

TEST_CASE("moved: what a chunk is held by is in the budget once, and can't be evicted") {
  std::mt19937 random(11);
  const CacheGeometry geometry = SmallGeometry(0);
  const size_t block_bytes = LayOutGroups(geometry, Form{})[0].block_bytes;
  CacheOptions options = Options();
  options.budget_bytes = 12 * block_bytes;
  const auto cache = OpenMoving(geometry, options);
  const StepData document = RandomStep(random, geometry, 8 * kBlock), before = RandomStep(random, geometry, 10);
  Store(geometry, document, *cache);
  const StepData prompt = Join({&before, &document});
  Sequence sequence = cache->Begin();
  Run(geometry, prompt, 10, sequence);
  CHECK(cache->stats().num_idle_blocks == 8);
  REQUIRE(sequence.ReuseMoved(prompt.tokens) == 8 * kBlock);
  CHECK(cache->stats().num_live_blocks == 9);
  CHECK(cache->stats().num_idle_blocks == 0);
  const std::vector<Token> too_many(3 * kBlock + 1, 1), enough(3 * kBlock, 1);
  CHECK(sequence.Prepare(too_many).error().code == ErrorCode::kOutOfMemory);
  CHECK(sequence.Prepare(enough));
  sequence = cache->Begin();
  CHECK(cache->stats().num_idle_blocks == 8);  // the beginning was no whole block
}

TEST_CASE("moved: blocks that come from a tier are found, too, once they are in memory") {
  std::mt19937 random(12);
  const CacheGeometry geometry = SmallGeometry(0);
  const TestFolder folder;
  CacheOptions options = Options();
  options.tiers = {"disk:" + folder.path() + ",size=64M"};
  options.model.fingerprint = {1, 2};
  const StepData document = RandomStep(random, geometry, 160), before = RandomStep(random, geometry, 10);
  const StepData prompt = Join({&before, &document});
  {
    const auto cache = OpenMoving(geometry, options);
    Store(geometry, document, *cache);
    cache->Flush();
  }
  const auto cache = OpenMoving(geometry, options);
  CHECK_FALSE(cache->Begin().FindMoved(prompt.tokens));
  CHECK(cache->Begin().Reuse(document.tokens).loaded.size() == 1);
  CHECK(cache->Begin().FindMoved(prompt.tokens));
}

TEST_CASE("moved: without the option nothing is found, and options that make no sense are refused") {
  std::mt19937 random(13);
  const CacheGeometry geometry = SmallGeometry(0);
  CacheOptions options = Options();
  options.reuses_moved_chunks = false;
  const auto cache = OpenMoving(geometry, options);
  const StepData document = RandomStep(random, geometry, 160), before = RandomStep(random, geometry, 10);
  Store(geometry, document, *cache);
  const StepData prompt = Join({&before, &document});
  Sequence sequence = cache->Begin();
  CHECK_FALSE(sequence.FindMoved(prompt.tokens));
  Run(geometry, prompt, 10, sequence);
  CHECK(sequence.ReuseMoved(prompt.tokens) == 0);
  const auto code = [&](bool shares_prefixes, int64_t min_tokens, int64_t recomputed_tokens) {
    CacheOptions wrong = Options({}, min_tokens, recomputed_tokens);
    wrong.shares_prefixes = shares_prefixes;
    const auto opened = Cache::Open(geometry, wrong);
    return opened ? ErrorCode::kNotFound : opened.error().code;
  };
  CHECK(code(false, 64, 16) == ErrorCode::kInvalidArgument);
  CHECK(code(true, 64, 64) == ErrorCode::kInvalidArgument);
  CHECK(code(true, 64, -1) == ErrorCode::kInvalidArgument);
  CHECK(code(true, 0, 0) == ErrorCode::kInvalidArgument);
  CHECK(code(true, 1, 0) == ErrorCode::kNotFound);  // opened
}

}  // namespace
}  // namespace kvist::moved_test
