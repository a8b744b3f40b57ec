// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "kvist/kv_size.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "kvist/cache.h"
#include "tests/property/naive_cache.h"
#include "tier/tier_test_kit.h"

namespace kvist::kv_size_test {
namespace {

LayerGeometry Layer(int window) {
  return {.num_query_heads = 2, .num_kv_heads = 1, .key_dim = 8, .value_dim = 8, .window = window};
}

// How many tokens there was room for; what has none is spilled where there is a disk tier.
int64_t FeedZeros(const CacheGeometry& geometry, Cache& cache, int64_t num_tokens, int64_t step_tokens) {
  Sequence sequence = cache.Begin();
  while (sequence.num_tokens() < num_tokens) {
    const int64_t num_new = std::min(step_tokens, num_tokens - sequence.num_tokens());
    const std::vector<Token> tokens(static_cast<size_t>(num_new), 1);
    Status prepared = sequence.Prepare(tokens);
    if (!prepared && !cache.options().tiers.empty()) {
      prepared = sequence.Spill(num_new);
      if (prepared) prepared = sequence.Prepare(tokens);
    }
    if (!prepared) {
      MESSAGE(prepared.error().message);
      break;
    }
    testing::AppendZeros(geometry, sequence);
    REQUIRE(sequence.Commit());
  }
  return sequence.num_tokens();
}

// The most bytes that were live at once while the tokens were fed in steps.
size_t PeakBytes(const CacheGeometry& geometry, int64_t num_tokens, int64_t step_tokens, Form form = {}) {
  auto cache = Cache::Open(geometry, {.form = form, .budget_bytes = size_t{1} << 24});
  REQUIRE(cache);
  REQUIRE(FeedZeros(geometry, **cache, num_tokens, step_tokens) == num_tokens);
  return (*cache)->stats().peak_live_bytes;
}

TEST_CASE("the KV size of a sequence is what the cache takes for it") {
  const CacheGeometry geometry{.layers = {Layer(0), Layer(0)}};
  for (const int64_t num_tokens : {1, 31, 32, 33, 500}) {
    CAPTURE(num_tokens);
    CHECK(KvBytes(geometry, {}, num_tokens, 64) == PeakBytes(geometry, num_tokens, 64));
  }
  CHECK(KvBytes(geometry, {}, 1, 1) == KvBlockBytes(geometry, {}));
  CHECK(StaticKvBytes(geometry, {}, 1000) == 1000 * 2 * 16 * 2);
}

TEST_CASE("sliding windows bound the KV size, and the bound holds") {
  const CacheGeometry geometry{.layers = {Layer(0), Layer(40)}};
  for (const int64_t step_tokens : {1, 7, 64}) {
    for (const int64_t num_tokens : {1, 30, 64, 129, 1000}) {
      CAPTURE(step_tokens);
      CAPTURE(num_tokens);
      const size_t bytes = KvBytes(geometry, {}, num_tokens, step_tokens);
      const size_t peak = PeakBytes(geometry, num_tokens, step_tokens);
      CHECK(bytes >= peak);
      CHECK(bytes <= peak + KvBlockBytes(geometry, {}));
    }
  }
}

TEST_CASE("the KV size of a quantised form counts what is still open, and the bound holds") {
  const Form q4{Codec::kQ4, Codec::kQ4};
  const LayerGeometry layer{.num_query_heads = 8, .num_kv_heads = 8, .key_dim = 128, .value_dim = 128};
  const CacheGeometry geometry{.layers = {layer, layer}};
  for (const int64_t step_tokens : {1, 32, 64, 128}) {
    for (const int64_t num_tokens : {1, 128, 160, 256, 1024}) {
      CAPTURE(step_tokens);
      CAPTURE(num_tokens);
      const size_t bytes = KvBytes(geometry, {.form = q4}, num_tokens, step_tokens);
      const size_t peak = PeakBytes(geometry, num_tokens, step_tokens, q4);
      CHECK(bytes >= peak);
      CHECK(bytes <= peak + 2 * KvBlockBytes(geometry, {}));
    }
  }
  CHECK(KvBytes(geometry, {.form = q4}, 100000, 1) < KvBytes(geometry, {}, 100000, 1) / 3);
}

TEST_CASE("a sequence fits into its KV size, whatever its steps") {
  const LayerGeometry full{.num_query_heads = 2, .num_kv_heads = 2, .key_dim = 64, .value_dim = 64};
  LayerGeometry windowed = full;
  windowed.window = 70;
  for (const Form form : {Form{}, Form{Codec::kQ8, Codec::kQ8}, Form{Codec::kQ4, Codec::kQ4}}) {
    for (const bool has_window : {false, true}) {
      const CacheGeometry geometry{.layers = {full, has_window ? windowed : full}};
      for (const int64_t step_tokens : {1, 2, 3, 5, 7, 11, 31, 33, 50}) {
        CAPTURE(FormName(form));
        CAPTURE(has_window);
        CAPTURE(step_tokens);
        const int64_t num_tokens = 420;
        CacheOptions options{.form = form};
        options.budget_bytes = KvBytes(geometry, options, num_tokens, step_tokens);
        const auto cache = Cache::Open(geometry, options).value();
        CHECK(FeedZeros(geometry, *cache, num_tokens, step_tokens) == num_tokens);
      }
    }
  }
}

TEST_CASE("a spilled sequence fits into its spilled KV size, whatever its steps") {
  const LayerGeometry layer{.num_query_heads = 2, .num_kv_heads = 2, .key_dim = 64, .value_dim = 64};
  const CacheGeometry geometry{.layers = std::vector<LayerGeometry>(6, layer)};
  for (const Form form : {Form{}, Form{Codec::kQ4, Codec::kQ4}}) {
    for (const int64_t step_tokens : {1, 8, 32, 50}) {
      CAPTURE(FormName(form));
      CAPTURE(step_tokens);
      const TestFolder folder;
      const int64_t num_tokens = 1000;
      CacheOptions options{.form = form};
      options.shares_prefixes = true;
      options.model = {"test", {1, 2}};
      options.tiers = {"disk:" + folder.path() + ",size=64M"};
      for (int i = 0; i < 10; ++i) options.budget_bytes = SpilledKvBytes(geometry, options, num_tokens, step_tokens);
      CHECK(options.budget_bytes < KvBytes(geometry, options, num_tokens, step_tokens));
      const auto cache = Cache::Open(geometry, options).value();
      CHECK(FeedZeros(geometry, *cache, num_tokens, step_tokens) == num_tokens);
    }
  }
}

}  // namespace
}  // namespace kvist::kv_size_test
