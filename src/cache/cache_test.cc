// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "kvist/cache.h"

#include <doctest/doctest.h>

#include <chrono>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/address_range.h"
#include "base/machine_memory.h"
#include "tests/property/naive_cache.h"

namespace kvist::cache_test {
namespace {

using testing::AppendAll;
using testing::RandomStep;

constexpr Form kF16{Codec::kF16, Codec::kF16};

// SmolLM2's lanes, fewer layers.
CacheGeometry Geometry(std::vector<int> windows) {
  CacheGeometry geometry;
  for (const int window : windows) {
    LayerGeometry layer;
    layer.num_query_heads = 9;
    layer.num_kv_heads = 3;
    layer.key_dim = layer.value_dim = 64;
    layer.window = window;
    geometry.layers.push_back(layer);
  }
  return geometry;
}

std::unique_ptr<Cache> OpenCache(const CacheGeometry& geometry, size_t budget_bytes = 0) {
  auto cache = Cache::Open(geometry, {kF16, budget_bytes});
  REQUIRE(cache);
  return std::move(*cache);
}

// Stores tokens without attending to them.
void Store(const CacheGeometry& geometry, std::mt19937& random, int64_t num_tokens, Sequence& sequence) {
  const auto step = RandomStep(random, geometry, num_tokens);
  REQUIRE(sequence.Prepare(step.tokens));
  AppendAll(step, sequence);
  REQUIRE(sequence.Commit());
}

// What was freed goes back to the system a little later.
void WaitForSpareToGo(const Cache& cache) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (std::chrono::steady_clock::now() < deadline) {
    const CacheStats stats = cache.stats();
    if ((stats.committed_bytes - stats.live_bytes) * 64 <= stats.live_bytes) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

void CheckResidentIsLive(const Cache& cache) {
  WaitForSpareToGo(cache);
  const auto live = double(cache.stats().live_bytes);
  const auto resident = double(cache.ResidentBytes().value());
  CHECK(resident <= 1.02 * live);
  CHECK(resident >= 0.98 * live);
  CHECK(double(cache.stats().committed_bytes) <= 1.02 * live);
}

TEST_CASE("cache: an invalid geometry is refused with the field's name") {
  CacheGeometry geometry = Geometry({0});
  geometry.layers[0].key_dim = 63;
  const auto cache = Cache::Open(geometry, {kF16});
  REQUIRE(!cache);
  CHECK(cache.error().code == ErrorCode::kInvalidArgument);
  CHECK(cache.error().message.find("key_dim") != std::string::npos);
  CHECK_FALSE(Cache::Open({}, {kF16}));
}

TEST_CASE("cache: a form of no codec is refused") {
  CacheOptions options;
  options.form.v = Codec(99);
  CHECK(Cache::Open(Geometry({0}), options).error().code == ErrorCode::kInvalidArgument);
  options = {};
  options.layer_forms = {{Codec::kF16, Codec(200)}};
  CHECK(Cache::Open(Geometry({0}), options).error().message.find("200") != std::string::npos);
}

TEST_CASE("cache: opening takes address space and no memory") {
  auto cache = OpenCache(Geometry({0, 128}));
  const CacheStats stats = cache->stats();
  CHECK(stats.reserved_bytes > 0);
  CHECK(stats.committed_bytes == 0);
  CHECK(stats.live_bytes == 0);
  CHECK(stats.num_commits == 0);
  CHECK(cache->ResidentBytes().value() == 0);
  CHECK(cache->geometry().layers.size() == 2);
  CHECK(cache->options().form == kF16);
}

TEST_CASE("cache: the budget in force can be read, given or not") {
  const CacheGeometry geometry = Geometry({0});
  CHECK(Cache::Open(geometry, {}).value()->options().budget_bytes == UsableBytes() / 8 * 7);
  CHECK(Cache::Open(geometry, {.budget_bytes = size_t{1} << 20}).value()->options().budget_bytes == size_t{1} << 20);
}

TEST_CASE("cache: resident memory is that of the live blocks, while growing and after most is released") {
  const CacheGeometry geometry = Geometry({0, 0, 128});
  auto cache = OpenCache(geometry);
  std::mt19937 random(1);
  std::vector<Sequence> sequences;
  for (int i = 0; i < 24; ++i) {
    sequences.push_back(cache->Begin());
    Store(geometry, random, 32 * (1 + int64_t(random() % 20)), sequences.back());
    if (i % 6 == 5) CheckResidentIsLive(*cache);
  }
  const CacheStats full = cache->stats();
  while (sequences.size() > 3) {
    std::swap(sequences[random() % sequences.size()], sequences.back());
    sequences.pop_back();
  }
  CheckResidentIsLive(*cache);
  CHECK(cache->stats().live_bytes < full.live_bytes / 3);
  CHECK(cache->stats().peak_live_bytes == full.peak_live_bytes);
  CHECK(cache->stats().cumulative_bytes == full.cumulative_bytes);
  CHECK(cache->stats().copied_bytes == 0);
  sequences.clear();
  CHECK(cache->stats().live_bytes == 0);
  WaitForSpareToGo(*cache);
  CHECK(cache->stats().committed_bytes == 0);
  CHECK(cache->ResidentBytes().value() == 0);
}

TEST_CASE("cache: growing in place copies nothing and counts what it did") {
  const CacheGeometry geometry = Geometry({0});
  auto cache = OpenCache(geometry);
  std::mt19937 random(2);
  Sequence sequence = cache->Begin();
  for (int i = 0; i < 320; ++i) Store(geometry, random, 1, sequence);
  const CacheStats stats = cache->stats();
  const size_t block_bytes = geometry.BytesPerToken(kF16) * 32;
  CHECK(stats.num_live_blocks == 10);
  CHECK(stats.live_bytes == 10 * block_bytes);
  CHECK(stats.cumulative_bytes == 10 * block_bytes);
  CHECK(stats.peak_live_bytes == 10 * block_bytes);
  CHECK(stats.copied_bytes == 0);
  CHECK(stats.num_commits == 10);
  CHECK(stats.num_decommits == 0);
}

TEST_CASE("cache: a budget smaller than one block refuses the first token") {
  const CacheGeometry geometry = Geometry({0});
  auto cache = OpenCache(geometry, 4096);
  Sequence sequence = cache->Begin();
  const Status status = sequence.Prepare(std::vector<Token>{1});
  REQUIRE(!status);
  CHECK(status.error().code == ErrorCode::kOutOfMemory);
  CHECK(status.error().message.find("4096") != std::string::npos);
  CHECK(cache->stats().committed_bytes == 0);
}

TEST_CASE("cache: a static sequence takes all its memory at once and refuses more than that") {
  const CacheGeometry geometry = Geometry({0});
  auto cache = Cache::Open(geometry, {kF16, 0, ParseGrowth("static:max=320").value()}).value();
  std::mt19937 random(21);
  Sequence sequence = cache->Begin();
  Store(geometry, random, 1, sequence);
  CHECK(cache->stats().committed_bytes == 10 * geometry.BytesPerToken(kF16) * 32);
  CHECK(cache->ResidentBytes().value() == cache->stats().committed_bytes);
  Store(geometry, random, 319, sequence);
  CHECK(cache->stats().num_stalls == 0);
  const auto step = RandomStep(random, geometry, 1);
  const Status refused = sequence.Prepare(step.tokens);
  REQUIRE(!refused);
  CHECK(refused.error().code == ErrorCode::kOutOfRange);
  CHECK(sequence.num_tokens() == 320);
}

TEST_CASE("cache: memory is taken ahead as the policy says, and goes when the sequence does") {
  const CacheGeometry geometry = Geometry({0});
  auto cache = Cache::Open(geometry, {kF16, 0, ParseGrowth("dynamic:initial=640").value()}).value();
  std::mt19937 random(22);
  const size_t block_bytes = geometry.BytesPerToken(kF16) * 32;
  {
    Sequence sequence = cache->Begin();
    Store(geometry, random, 1, sequence);
    for (int i = 0; i < 2000 && cache->stats().committed_bytes < 20 * block_bytes; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    CHECK(cache->stats().committed_bytes == 20 * block_bytes);
    CHECK(cache->ResidentBytes().value() == 20 * block_bytes);
    for (int i = 0; i < 480; ++i) Store(geometry, random, 1, sequence);
    CHECK(cache->stats().num_stalls <= 1);  // at most the first block
    CHECK(sequence.growth().capacity_tokens == 640);
  }
  WaitForSpareToGo(*cache);
  CHECK(cache->ResidentBytes().value() == 0);
}

TEST_CASE("cache: memory on its way to or from the system is not missing from the budget") {
  const CacheGeometry geometry = Geometry({0});
  const size_t block_bytes = geometry.BytesPerToken(kF16) * 32;
  std::mt19937 random(23);
  for (const char* growth : {"static:max=320", "dynamic:initial=320", "exact"}) {
    CAPTURE(growth);
    auto cache = Cache::Open(geometry, {kF16, 10 * block_bytes, ParseGrowth(growth).value()}).value();
    const auto step = RandomStep(random, geometry, 320);
    bool all_fit = true;
    for (int i = 0; i < 200; ++i) {  // each begins while the last one's memory is being given back
      Sequence sequence = cache->Begin();
      all_fit &= sequence.Prepare(std::span(step.tokens).first(1)).has_value();
      testing::AppendZeros(geometry, sequence);
      REQUIRE(sequence.Commit());
      all_fit &= sequence.Prepare(std::span(step.tokens).first(319)).has_value();
    }
    CHECK(all_fit);
  }
}

TEST_CASE("cache: a static sequence that does not fit leaves nothing behind") {
  const CacheGeometry geometry = Geometry({0});
  const size_t block_bytes = geometry.BytesPerToken(kF16) * 32;
  std::mt19937 random(24);
  auto cache = Cache::Open(geometry, {kF16, 15 * block_bytes, ParseGrowth("static:max=320").value()}).value();
  const auto step = RandomStep(random, geometry, 1);
  Sequence refused = cache->Begin();
  {
    Sequence first = cache->Begin();
    REQUIRE(first.Prepare(step.tokens));
    const Status status = refused.Prepare(step.tokens);
    REQUIRE(!status);
    CHECK(status.error().code == ErrorCode::kOutOfMemory);
  }
  WaitForSpareToGo(*cache);
  CHECK(cache->stats().committed_bytes == 0);
  Sequence third = cache->Begin();
  CHECK(third.Prepare(step.tokens));

  auto small = Cache::Open(geometry, {kF16, 9 * block_bytes, ParseGrowth("static:max=320").value()}).value();
  Sequence never = small->Begin();
  const Status status = never.Prepare(step.tokens);
  REQUIRE(!status);
  CHECK(status.error().message.find("smaller max") != std::string::npos);
  CHECK(small->stats().num_commits == 0);
}

TEST_CASE("cache: static sequences take the place of idle prefixes, in every pool") {
  for (const auto& windows : {std::vector<int>{0}, {64, 0}}) {
    for (const Form form : {kF16, Form{Codec::kQ4, Codec::kQ4}}) {
      CAPTURE(windows.size());
      CAPTURE(FormName(form));
      const CacheGeometry geometry = Geometry(windows);
      CacheOptions options{.form = form, .growth = ParseGrowth("static:max=640").value()};
      options.shares_prefixes = true;
      std::mt19937 random(25);
      {
        const auto unlimited = Cache::Open(geometry, options).value();
        Sequence sequence = unlimited->Begin();
        for (int step = 0; step < 8; ++step) Store(geometry, random, 80, sequence);
        options.budget_bytes = unlimited->stats().peak_committed_bytes;
      }
      const auto cache = Cache::Open(geometry, options).value();
      for (int i = 0; i < 4; ++i) {
        Sequence sequence = cache->Begin();
        for (int step = 0; step < 8; ++step) {
          const auto tokens = RandomStep(random, geometry, 80);
          const auto out = testing::RunStepOnThreads(geometry, tokens, sequence, 1);
          REQUIRE_MESSAGE(out, (out ? "" : out.error().message));
        }
      }
      CHECK(cache->stats().num_evicted_blocks > 0);
    }
  }
}

TEST_CASE("cache: exact growth holds nothing after a cut or a forgotten step") {
  const CacheGeometry geometry = Geometry({0});
  auto cache = OpenCache(geometry);
  std::mt19937 random(25);
  Sequence sequence = cache->Begin();
  Store(geometry, random, 1000, sequence);
  REQUIRE(sequence.Truncate(600));
  CheckResidentIsLive(*cache);
  const auto step = RandomStep(random, geometry, 2000);
  REQUIRE(sequence.Prepare(step.tokens));
  Store(geometry, random, 1, sequence);  // forgets the step
  CheckResidentIsLive(*cache);
}

}  // namespace
}  // namespace kvist::cache_test
