// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "bench/scenario/fill.h"

#include <algorithm>
#include <random>

namespace kvist {
namespace {

constexpr int64_t kStepTokens = 512;
constexpr size_t kNumStarts = 1 << 20;

}  // namespace

// Making normal numbers takes far longer than storing them, so there is one list, and the rows of every layer and step
// begin elsewhere in it.
RandomFill::RandomFill(const CacheGeometry& geometry) : num_layers_(static_cast<int>(geometry.layers.size())) {
  int largest_row = 0;
  for (const LayerGeometry& layer : geometry.layers) {
    largest_row = std::max(largest_row, layer.num_kv_heads * std::max(layer.key_dim, layer.value_dim));
  }
  numbers_.resize(kNumStarts + static_cast<size_t>(largest_row * kStepTokens));
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (float& number : numbers_) number = normal(random);
}

Status RandomFill::Append(Sequence& sequence, std::span<const Token> tokens, int index,
                          const std::function<Status()>& keeps_going) const {
  auto which = static_cast<size_t>(index) * 101 + static_cast<size_t>(sequence.num_tokens()) * 7;
  const auto next_rows = [&] { return numbers_.data() + which++ * 611'953 % kNumStarts; };  // a prime
  while (!tokens.empty()) {
    KVIST_TRY_VOID(keeps_going());
    const auto step = tokens.first(std::min<size_t>(kStepTokens, tokens.size()));
    KVIST_TRY_VOID(sequence.Prepare(step));
    for (int layer = 0; layer < num_layers_; ++layer) {
      const float* keys = next_rows();
      const float* values = next_rows();
      sequence.Append(layer, keys, values);
    }
    KVIST_TRY_VOID(sequence.Commit());
    tokens = tokens.subspan(step.size());
  }
  return {};
}

}  // namespace kvist
