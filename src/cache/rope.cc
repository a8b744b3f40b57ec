// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "cache/rope.h"

#include <cmath>

namespace kvist {

void Rotate(const RopeSpec& rope, int64_t positions, float* rows, int num_rows, int stride) {
  Rotate(rope, MeanTurn(rope, positions, 1), rows, num_rows, stride);
}

Turn MeanTurn(const RopeSpec& rope, int64_t first, int64_t count) {
  Turn turn;
  for (int pair = 0; pair < rope.dims / 2; ++pair) {
    const double factor = rope.frequency_factors.empty() ? 1.0 : double(rope.frequency_factors[size_t(pair)]);
    const double frequency = std::pow(double(rope.base), -2.0 * pair / rope.dims) / factor;
    const double step = double(rope.position_scale) * frequency;
    // The mean of turns by equal steps is the one in their middle, made shorter.
    const double middle = (double(first) + double(count - 1) / 2) * step;
    const double of_one = double(count) * std::sin(step / 2);
    const double length = count == 1 || of_one == 0 ? 1 : std::sin(double(count) * step / 2) / of_one;
    turn.cosine.push_back(float(length * std::cos(middle)));
    turn.sine.push_back(float(length * std::sin(middle)));
  }
  return turn;
}

void Rotate(const RopeSpec& rope, const Turn& turn, float* rows, int num_rows, int stride) {
  const int num_pairs = rope.dims / 2;
  const bool is_adjacent = rope.pairing == RopePairing::kAdjacent;
  for (int pair = 0; pair < num_pairs; ++pair) {
    const float cosine = turn.cosine[size_t(pair)], sine = turn.sine[size_t(pair)];
    const int first = is_adjacent ? 2 * pair : pair;
    const int second = is_adjacent ? first + 1 : pair + num_pairs;
    for (int row = 0; row < num_rows; ++row) {
      float* x = rows + size_t(row) * size_t(stride);
      const float a = x[first], b = x[second];
      x[first] = a * cosine - b * sine;
      x[second] = a * sine + b * cosine;
    }
  }
}

}  // namespace kvist
