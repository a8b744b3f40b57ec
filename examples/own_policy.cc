// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
// A retention policy of one's own: of 512 tokens a cache keeps the 128 that matter most to a rule of yours, and the
// memory of the others is free. The rule here weighs what the last queries attended to by the length of the values
// (VATP, Guo 2024, arXiv 2406.12335). Build it against an installed library:  cmake -S examples -B build/examples
// -DCMAKE_PREFIX_PATH=<prefix>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "kvist/cache.h"

namespace {

constexpr int kDim = 16;
constexpr size_t kNumTokens = 512;
constexpr int64_t kNeedle = 200;  // the one token whose key is like what is asked for

// A number for each token of a lane; the best stay. Everything that a policy may know is in `lane`.
std::vector<float> AttentionTimesValueNorm(int /*layer*/, int /*kv_head*/, const kvist::LaneEvidence& lane) {
  std::vector<float> scores(lane.num_tokens());
  for (size_t row = 0; row * lane.num_tokens() < lane.probabilities.size(); ++row) {  // of the last queries
    for (size_t i = 0; i < scores.size(); ++i) scores[i] += lane.probabilities[row * lane.num_tokens() + i];
  }
  for (size_t i = 0; i < scores.size(); ++i) {
    float norm = 0;  // L1
    for (int c = 0; c < lane.value_dim; ++c) norm += std::abs(lane.values[i * size_t(lane.value_dim) + size_t(c)]);
    scores[i] *= norm;
  }
  return scores;
}

// Keys, values or queries of all tokens: noise, but that the last 64 queries look for the needle.
std::vector<float> Noise(unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 0.1f);
  std::vector<float> numbers(kNumTokens * kDim);
  for (float& number : numbers) number = normal(random);
  return numbers;
}

kvist::Status Run() {
  kvist::CacheGeometry geometry;
  geometry.layers = {{.num_query_heads = 1, .num_kv_heads = 1, .key_dim = kDim, .value_dim = kDim}};
  KVIST_TRY(auto cache, kvist::Cache::Open(geometry, {}));
  std::vector<float> keys = Noise(1), values = Noise(2), queries = Noise(3), out(kNumTokens * kDim);
  keys[size_t(kNeedle) * kDim] = 8;
  for (size_t i = kNumTokens - 64; i < kNumTokens; ++i) queries[i * kDim] = 8;

  kvist::Sequence sequence = cache->Begin();
  // Attention is noted only for those who ask: here the probabilities of the last queries, as SnapKV wants them.
  KVIST_TRY_VOID(sequence.Observe(kvist::RetentionPolicy::kSnapKv));
  KVIST_TRY_VOID(sequence.Prepare(std::vector<kvist::Token>(kNumTokens, 1)));
  sequence.Append(0, keys.data(), values.data());
  sequence.Attend(0, queries.data(), out.data());
  KVIST_TRY_VOID(sequence.Commit());

  KVIST_TRY(const auto report, sequence.Retain(AttentionTimesValueNorm, {.recent_tokens = 32}, 128));
  const auto held = sequence.HeldPositions(0, 0);
  std::printf("%zu of %zu tokens are left, %s the needle; %zu bytes are free\n", held.size(), kNumTokens,
              std::ranges::binary_search(held, kNeedle) ? "among them" : "without", report.freed_bytes);
  return {};
}

}  // namespace

int main() {
  const kvist::Status status = Run();
  if (!status) std::fprintf(stderr, "error: %s\n", status.error().message.c_str());
  return status ? 0 : 1;
}
