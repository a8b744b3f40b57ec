// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "cache/attend.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <barrier>
#include <cmath>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "kvist/cache.h"
#include "tests/property/naive_cache.h"

namespace kvist::attend_test {
namespace {

using testing::EmptyOutput;
using testing::NaiveSequence;
using testing::RandomStep;
using testing::RunStep;
using testing::RunStepOnThreads;
using testing::StepData;
using testing::StepOutput;

// f32 sums of this many products against double: see WorstError.
constexpr double kTolerance = 2e-5;

std::unique_ptr<Cache> OpenCache(const CacheGeometry& geometry, Form form, size_t budget_bytes = 0) {
  auto cache = Cache::Open(geometry, {form, budget_bytes});
  REQUIRE(cache);
  return std::move(*cache);
}

Form RandomForm(std::mt19937& random) {
  constexpr Codec kCodecs[] = {Codec::kF32, Codec::kF16, Codec::kBf16};
  return {kCodecs[random() % 3], kCodecs[random() % 3]};
}

RopeSpec RandomRope(std::mt19937& random, int key_dim) {
  RopeSpec rope;
  rope.dims = std::vector<int>{key_dim, key_dim / 2, 2}[random() % 3];
  rope.base = random() % 2 == 0 ? 1e4f : 1e6f;
  rope.position_scale = random() % 2 == 0 ? 1.0f : 0.25f;
  rope.pairing = random() % 2 == 0 ? RopePairing::kAdjacent : RopePairing::kHalves;
  if (random() % 2 == 0)
    for (int i = 0; i < rope.dims / 2; ++i) rope.frequency_factors.push_back(1.0f + float(random() % 8));
  return rope;
}

CacheGeometry RandomGeometry(std::mt19937& random) {
  CacheGeometry geometry;
  geometry.block_tokens = 16 << random() % 4;
  const size_t num_layers = 1 + random() % 3;
  for (size_t i = 0; i < num_layers; ++i) {
    LayerGeometry layer;
    layer.num_kv_heads = 1 + int(random() % 3);
    layer.num_query_heads = layer.num_kv_heads * (1 + int(random() % 16));
    layer.key_dim = 8 * (1 + int(random() % 10));
    layer.value_dim = 8 * (1 + int(random() % 10));
    layer.window = random() % 2 == 0 ? 0 : std::vector<int>{1, 2, 7, 33, 100}[random() % 5];
    layer.attention_scale = random() % 2 == 0 ? 0.0f : 0.1f;
    layer.rope = RandomRope(random, layer.key_dim);
    geometry.layers.push_back(layer);
  }
  return geometry;
}

// A model of 30 tokens a block and 16 blocks a split needs more than 512 tokens to have two splits.
CacheGeometry PlainGeometry() {
  CacheGeometry geometry;
  geometry.block_tokens = 16;
  LayerGeometry layer;
  layer.num_query_heads = 6;
  layer.num_kv_heads = 2;
  layer.key_dim = 64;
  layer.value_dim = 72;
  layer.rope.dims = 64;
  geometry.layers = {layer, layer};
  geometry.layers[1].window = 100;
  return geometry;
}

// The outputs of a whole prompt that goes in in pieces.
StepOutput RunInPieces(const CacheGeometry& geometry, const StepData& prompt, Sequence& sequence, int64_t piece_tokens,
                       int num_threads = 1) {
  StepOutput all(geometry.layers.size());
  const auto num_tokens = int64_t(prompt.tokens.size());
  for (int64_t begin = 0; begin < num_tokens; begin += piece_tokens) {
    const StepData piece = prompt.Part(geometry, begin, std::min(num_tokens, begin + piece_tokens));
    const StepOutput out = RunStepOnThreads(geometry, piece, sequence, num_threads).value();
    for (size_t i = 0; i < all.size(); ++i) all[i].insert(all[i].end(), out[i].begin(), out[i].end());
  }
  return all;
}

TEST_CASE("attend: prefill and decode are right for random geometries and forms") {
  std::mt19937 random(1);
  for (int round = 0; round < 40; ++round) {
    CAPTURE(round);
    const CacheGeometry geometry = RandomGeometry(random);
    const Form form = RandomForm(random);
    auto cache = OpenCache(geometry, form);
    Sequence sequence = cache->Begin();
    NaiveSequence naive(geometry, form);
    for (const int64_t num_tokens : {int64_t(1 + random() % 300), int64_t{1}, int64_t(1 + random() % 20), int64_t{1}}) {
      CAPTURE(num_tokens);
      const StepData step = RandomStep(random, geometry, num_tokens);
      const auto out = RunStep(geometry, step, sequence);
      REQUIRE(out);
      naive.Add(step);
      CHECK(naive.WorstError(step, *out, random, num_tokens > 4 ? 37 : 1) < kTolerance);
    }
    CHECK(std::ranges::equal(sequence.tokens(), naive.tokens()));
  }
}

// Several splits of 16 blocks, whose results are merged.
TEST_CASE("attend: long sequences are right, too") {
  std::mt19937 random(2);
  const CacheGeometry geometry = PlainGeometry();
  const Form form{Codec::kF16, Codec::kF16};
  auto cache = OpenCache(geometry, form);
  Sequence sequence = cache->Begin();
  NaiveSequence naive(geometry, form);
  for (const int64_t num_tokens : {1000, 1, 9, 300, 1}) {
    const StepData step = RandomStep(random, geometry, num_tokens);
    const auto out = RunStep(geometry, step, sequence);
    REQUIRE(out);
    naive.Add(step);
    const double error = naive.WorstError(step, *out, random, num_tokens > 9 ? 97 : 1);
    CHECK(error < kTolerance);
    CHECK(error > 1e-9);
  }
}

TEST_CASE("attend: the bits don't depend on the number of threads or on the pieces a prompt comes in") {
  std::mt19937 random(3);
  std::vector<CacheGeometry> geometries = {PlainGeometry()};
  for (int i = 0; i < 6; ++i) geometries.push_back(RandomGeometry(random));
  for (size_t g = 0; g < geometries.size(); ++g) {
    CAPTURE(g);
    const CacheGeometry& geometry = geometries[g];
    const StepData prompt = RandomStep(random, geometry, g == 0 ? 700 : 150 + int64_t(random() % 100));
    auto cache = OpenCache(geometry, RandomForm(random));
    Sequence whole = cache->Begin();
    const StepOutput wanted = RunInPieces(geometry, prompt, whole, 1 << 20);
    for (const int64_t piece_tokens : {1, 7, 64}) {
      CAPTURE(piece_tokens);
      Sequence sequence = cache->Begin();
      CHECK(RunInPieces(geometry, prompt, sequence, piece_tokens) == wanted);
    }
    for (const int num_threads : {2, 3}) {
      CAPTURE(num_threads);
      Sequence in_one = cache->Begin(), in_pieces = cache->Begin();
      CHECK(RunInPieces(geometry, prompt, in_one, 1 << 20, num_threads) == wanted);
      CHECK(RunInPieces(geometry, prompt, in_pieces, 13, num_threads) == wanted);
    }
  }
}

TEST_CASE("attend: more workers than there is work") {
  std::mt19937 random(4);
  CacheGeometry geometry = PlainGeometry();
  auto cache = OpenCache(geometry, {Codec::kF16, Codec::kF16});
  Sequence one = cache->Begin(), many = cache->Begin();
  for (int i = 0; i < 20; ++i) {
    const StepData step = RandomStep(random, geometry, 1);
    CHECK(RunStepOnThreads(geometry, step, one, 1).value() == RunStepOnThreads(geometry, step, many, 5).value());
  }
}

// f16 can't hold the values from token 30 on. That is those tokens' misfortune, not that of those before.
TEST_CASE("attend: a value out of its form's range does not reach earlier tokens of the same step") {
  std::mt19937 random(5);
  CacheGeometry geometry = PlainGeometry();
  auto cache = OpenCache(geometry, {Codec::kF16, Codec::kF16});
  const StepData clean = RandomStep(random, geometry, 40);
  StepData overflowing = clean;
  for (std::vector<float>& values : overflowing.values)
    std::fill(values.begin() + std::ptrdiff_t(values.size() / 40 * 30), values.end(), 1e6f);
  Sequence first = cache->Begin(), second = cache->Begin();
  const auto wanted = RunStep(geometry, clean, first), got = RunStep(geometry, overflowing, second);
  for (size_t i = 0; i < geometry.layers.size(); ++i) {
    const auto token_30 = std::ptrdiff_t((*got)[i].size() / 40 * 30);
    CHECK(std::equal((*got)[i].begin(), (*got)[i].begin() + token_30, (*wanted)[i].begin()));
    CHECK((*got)[i] != (*wanted)[i]);
  }
}

TEST_CASE("attend: after removals, moved keys are met as if they had been turned to their new positions") {
  std::mt19937 random(6);
  for (int round = 0; round < 40; ++round) {
    CAPTURE(round);
    CacheGeometry geometry = RandomGeometry(random);
    for (LayerGeometry& layer : geometry.layers) layer.window = 0;
    const Form form = RandomForm(random);
    auto cache = OpenCache(geometry, form);
    Sequence sequence = cache->Begin();
    NaiveSequence naive(geometry, form);
    for (int i = 0; i < 4; ++i) {
      const StepData step = RandomStep(random, geometry, 1 + int64_t(random() % 70));
      const auto out = RunStep(geometry, step, sequence);
      REQUIRE(out);
      naive.Add(step);
      CHECK(naive.WorstError(step, *out, random, 29) < kTolerance);
      const int64_t n = sequence.num_tokens(), begin = int64_t(random() % uint64_t(n + 1));
      const int64_t end = std::min(n, begin + int64_t(random() % 50));
      REQUIRE(sequence.Remove(begin, end));
      naive.Remove(begin, end);
    }
    CHECK(std::ranges::equal(sequence.tokens(), naive.tokens()));
    const StepData step = RandomStep(random, geometry, 2);
    const auto out = RunStep(geometry, step, sequence);
    REQUIRE(out);
    naive.Add(step);
    CHECK(naive.WorstError(step, *out, random) < kTolerance);
  }
}

TEST_CASE("attend: a thousand shifts add no error") {
  std::mt19937 random(7);
  CacheGeometry geometry = PlainGeometry();
  geometry.layers.resize(1);
  const Form form{Codec::kF32, Codec::kF32};
  auto cache = OpenCache(geometry, form);
  Sequence sequence = cache->Begin();
  NaiveSequence naive(geometry, form);
  for (int i = 0; i < 1000; ++i) {
    const StepData step = RandomStep(random, geometry, i == 0 ? 40 : 1);
    const auto out = RunStep(geometry, step, sequence);
    REQUIRE(out);
    naive.Add(step);
    if (i % 50 == 0) CHECK(naive.WorstError(step, *out, random) < kTolerance);
    REQUIRE(sequence.Remove(4, 5));
    naive.Remove(4, 5);
  }
  CHECK(sequence.num_tokens() == 39);
}

TEST_CASE("work queue: every unit once, and ready for the next call") {
  WorkQueue queue;
  for (const int num_workers : {1, 2, 3}) {
    std::barrier barrier(num_workers);
    std::vector<std::atomic<int>> num_runs(100);
    auto work = [&] {
      for (int call = 0; call < 200; ++call) {
        queue.Work(call % 2 == 0 ? 100 : 1, num_workers, [&](int unit) { ++num_runs[size_t(unit)]; });
        barrier.arrive_and_wait();
      }
    };
    std::vector<std::thread> threads;
    for (int i = 1; i < num_workers; ++i) threads.emplace_back(work);
    work();
    for (std::thread& thread : threads) thread.join();
    CHECK(num_runs[0] == 200);
    CHECK(std::all_of(num_runs.begin() + 1, num_runs.end(), [](auto& runs) { return runs == 100; }));
  }
}

}  // namespace
}  // namespace kvist::attend_test
