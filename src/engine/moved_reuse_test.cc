// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "engine/moved_reuse.h"

#include <doctest/doctest.h>

#include <map>
#include <memory>
#include <utility>

#include "engine/generator.h"
#include "engine/scheduler.h"
#include "engine/tiny_engine.h"
#include "kvist/kv_size.h"

namespace kvist::moved_reuse_test {
namespace {

struct Rig : TinyEngine {
  explicit Rig(bool reuses_moved_chunks, size_t budget_blocks = 0) : TinyEngine({.context = 1000}) {
    CacheOptions options{.form = {Codec::kF16, Codec::kF16}, .shares_prefixes = true};
    options.budget_bytes = budget_blocks * KvBlockBytes(model->geometry(), options.form);
    options.reuses_moved_chunks = reuses_moved_chunks;
    options.moved_chunks.recomputed_tokens = 8;
    auto opened = Cache::Open(model->geometry(), options);
    REQUIRE(opened);
    cache = *std::move(opened);
  }
  Generation Generate(Generator& generator, const std::vector<Token>& prompt, int64_t max_tokens) {
    auto generation = generator.Generate(prompt, {.max_tokens = max_tokens, .sampler = {}, .stops = {}}, {});
    REQUIRE(generation);
    return *std::move(generation);
  }
  void Store(const std::vector<Token>& text) {
    Generator generator(model.get(), tokenizer, cache.get());
    Generate(generator, text, 0);
  }
  // All at once.
  std::map<RequestId, Finished> RunAll(const std::vector<std::vector<Token>>& prompts) {
    Scheduler scheduler(model.get(), tokenizer, cache.get(), {});
    for (const std::vector<Token>& prompt : prompts) {
      REQUIRE(scheduler.Submit({.prompt = prompt, .options = {.max_tokens = 5, .sampler = {}, .stops = {}}}));
    }
    std::map<RequestId, Finished> finished;
    for (int i = 0; scheduler.has_work() && i < 1000; ++i) {
      for (Finished& each : scheduler.Step()) finished.emplace(each.id, std::move(each));
    }
    CHECK(finished.size() == prompts.size());
    return finished;
  }

  std::unique_ptr<Cache> cache;
};

const std::vector<Token> kDocument = SomeTokens(200, 5);
const std::vector<Token> kStored = Join(SomeTokens(40, 1), kDocument);
const std::vector<Token> kPrompt = Join(Join(SomeTokens(77, 2), kDocument), SomeTokens(20, 3));

TEST_CASE("moved reuse: a generation computes up to a stored document, its first tokens, and what follows it") {
  Rig rig(true);
  rig.Store(kStored);
  Generator generator(rig.model.get(), rig.tokenizer, rig.cache.get());
  const Generation generation = rig.Generate(generator, kPrompt, 5);
  CHECK(generation.tokens.size() == 5);
  CHECK(generation.reuse.moved_tokens == 192);
  CHECK(generation.reuse.moved_chunks == 1);
  CHECK(generation.reuse.num_tokens() == 192);
  CHECK(generation.reuse.is_approximate);
  CHECK(generation.stats.reused_tokens == 192);
  CHECK(generation.stats.computed_tokens == 77 + 8 + 20);
  // The next turn's answer is of the same kind, and finds the document again when it is quoted.
  const std::vector<Token> more = Join(SomeTokens(3, 4), kDocument);
  const Generation next = rig.Generate(generator, Join(Join(kPrompt, generation.tokens), Join(more, more)), 1);
  CHECK(next.reuse.own_tokens == 297 + 4);
  CHECK(next.reuse.moved_tokens == 2 * 192 - 1);  // the last token of a prompt is always computed
  CHECK(next.reuse.moved_chunks == 2);
  CHECK(next.reuse.is_approximate);
  generator.Forget();
  CHECK_FALSE(rig.Generate(generator, SomeTokens(90, 9), 1).reuse.is_approximate);
}

TEST_CASE("moved reuse: off, the document is computed, and the answer is that of an empty cache") {
  Rig rig(false), empty(false);
  rig.Store(kStored);
  Generator generator(rig.model.get(), rig.tokenizer, rig.cache.get());
  Generator alone(empty.model.get(), empty.tokenizer, empty.cache.get());
  const Generation generation = rig.Generate(generator, kPrompt, 20);
  CHECK(generation.reuse.moved_tokens == 0);
  CHECK_FALSE(generation.reuse.is_approximate);
  CHECK(generation.stats.computed_tokens == 297);
  CHECK(generation.tokens == empty.Generate(alone, kPrompt, 20).tokens);
}

TEST_CASE("moved reuse: requests of a scheduler find documents, alike or not, and say so") {
  Rig rig(true);
  rig.Store(kStored);
  const std::vector<Token> other = Join(SomeTokens(11, 6), kDocument), unlike = SomeTokens(150, 7);
  const auto finished = rig.RunAll({kPrompt, kPrompt, other, unlike});
  for (const auto& [id, each] : finished) {
    CAPTURE(id);
    REQUIRE(each.generation);
    CHECK(each.generation->tokens.size() == 5);
    const bool has_document = id < 4;
    CHECK(each.reuse.moved_chunks == (has_document ? 1 : 0));
    CHECK(each.reuse.is_approximate == has_document);
    CHECK(each.reuse.moved_tokens == (id == 3 ? 191 : has_document ? 192 : 0));
  }
  CHECK(finished.at(1).generation->tokens == finished.at(2).generation->tokens);
}

TEST_CASE("moved reuse: parked requests begin again, and memory holds") {
  constexpr size_t kBudgetBlocks = 24;
  Rig rig(true, kBudgetBlocks);
  rig.Store(kStored);
  std::vector<std::vector<Token>> prompts;
  for (uint32_t i = 0; i < 6; ++i) prompts.push_back(Join(Join(SomeTokens(70, 20 + i), kDocument), SomeTokens(200, i)));
  const auto finished = rig.RunAll(prompts);
  for (const auto& [id, each] : finished) CHECK(each.generation);
  const size_t block_bytes = KvBlockBytes(rig.model->geometry(), {Codec::kF16, Codec::kF16});
  CHECK(rig.cache->stats().peak_committed_bytes <= kBudgetBlocks * block_bytes);
  CHECK(rig.cache->stats().num_sequences == 0);
}

}  // namespace
}  // namespace kvist::moved_reuse_test
