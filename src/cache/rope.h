// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <vector>

#include "kvist/geometry.h"

namespace kvist {

// Turns rows of `stride` floats by a number of positions (negative: back), in place: what a rotary embedding does to
// move a vector from position p to p + positions.
void Rotate(const RopeSpec& rope, int64_t positions, float* rows, int num_rows, int stride);

// The mean of such turns by first, first + 1, ... first + count - 1 positions: a turn that also makes vectors shorter.
struct Turn {
  std::vector<float> cosine, sine;  // [pair]
};
Turn MeanTurn(const RopeSpec& rope, int64_t first, int64_t count);
void Rotate(const RopeSpec& rope, const Turn& turn, float* rows, int num_rows, int stride);

}  // namespace kvist
