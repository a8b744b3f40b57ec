// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
//
// Attention's probabilities on their own, for whoever wants to know what was attended to. Included by
// attend_tile-inl.h, whose scores it uses.

template <int kRows>
void ScoreRows(const ProbabilityStep& step, TileStep& tile, int row, int index) {
  alignas(64) float scores[kRows][kMaxBlockTokens];
  if (step.block_tokens <= 0) __builtin_unreachable();  // else the compiler fears that scores stay empty
  if (step.block_tokens % (2 * Vec::kLanes) == 0) {
    Score<kRows, 2, NumbersF32>(tile, row, scores);
  } else {
    Score<kRows, 1, NumbersF32>(tile, row, scores);
  }
  for (int r = 0; r < kRows; ++r) {
    float* out = step.out + size_t(row + r) * step.row_stride() + size_t(index) * size_t(step.block_tokens);
    for (int slot = 0; slot < step.block_tokens; slot += Vec::kLanes) Store(out + slot, Vec::Load(scores[r] + slot));
  }
}

template <int kRows>
void ScoreAllRows(const ProbabilityStep& step, TileStep& tile, int row, int index) {
  for (; row + kRows <= step.num_rows; row += kRows) ScoreRows<kRows>(step, tile, row, index);
  if constexpr (kRows > 1) {
    if (row < step.num_rows) ScoreAllRows<kRows - 1>(step, tile, row, index);
  }
}

inline void SoftmaxOf(float* scores, size_t stride, size_t num_seen) {
  for (size_t i = num_seen; i < stride; ++i) scores[i] = kEmptySoftmax;
  Vec largest_lanes = Vec::Load(scores);
  for (size_t i = Vec::kLanes; i < stride; i += Vec::kLanes) largest_lanes = Max(largest_lanes, Vec::Load(scores + i));
  const Vec largest = Vec::Broadcast(ReduceMax(largest_lanes));
  Vec sum = Vec::Zero();
  for (size_t i = 0; i < stride; i += Vec::kLanes) {
    const Vec weights = ExpNonPositive(Sub(Vec::Load(scores + i), largest));
    Store(scores + i, weights);
    sum = Add(sum, weights);
  }
  const Vec scale = Vec::Broadcast(1.0f / ReduceAdd(sum));
  for (size_t i = 0; i < stride; i += Vec::kLanes) Store(scores + i, Mul(Vec::Load(scores + i), scale));
}

void Probabilities(const ProbabilityStep& step) {
  TileStep tile{};
  tile.block_tokens = step.block_tokens;
  tile.key_dim = step.key_dim;
  tile.queries = step.queries;
  for (int i = 0; i < step.num_tiles; ++i) {
    const float* keys = step.keys + size_t(i) * size_t(step.key_dim) * size_t(step.block_tokens);
    tile.k = reinterpret_cast<const std::byte*>(keys);
    ScoreAllRows<kRowsAtOnce>(step, tile, 0, i);
  }
  for (int row = 0; row < step.num_rows; ++row) {
    float* out = step.out + size_t(row) * step.row_stride();
    const auto num_seen = size_t(step.num_seen[row]);
    if (num_seen > 0) {
      SoftmaxOf(out, step.row_stride(), num_seen);
    } else {
      for (size_t i = 0; i < step.row_stride(); ++i) out[i] = 0;
    }
  }
}
