// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "cache/rope.h"

#include <cmath>

namespace kvist {

void Rotate(const RopeSpec& rope, int64_t positions, float* rows, int num_rows, int stride) {
  const int num_pairs = rope.dims / 2;
  const bool is_adjacent = rope.pairing == RopePairing::kAdjacent;
  for (int pair = 0; pair < num_pairs; ++pair) {
    const double factor = rope.frequency_factors.empty() ? 1.0 : double(rope.frequency_factors[size_t(pair)]);
    const double frequency = std::pow(double(rope.base), -2.0 * pair / rope.dims) / factor;
    const double angle = double(positions) * double(rope.position_scale) * frequency;
    const auto cosine = float(std::cos(angle)), sine = float(std::sin(angle));
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
