// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "cache/attend.h"
#include "policy/retention.h"

namespace kvist {

// The tokens of one lane, read back from tiles, in ascending order of position.
struct LaneRows {
  std::vector<int32_t> positions;  // [token]
  std::vector<float> keys;         // [token][key_dim], rotated to their positions of today; empty where not wanted
  std::vector<float> values;       // [token][value_dim]; likewise
};

// Kept tokens, then those of blocks before end_position. REQUIRES: none of them is spilled.
LaneRows ReadLane(const LayerView& layer, int kv_head, int64_t end_position, LaneParts parts);

// How many tokens of those that would be.
int64_t NumHeld(const LayerView& layer, int kv_head, int64_t end_position);

// Calls visit(row, probabilities) for each query row (rotated, not scaled), in order: softmax over the tokens that it
// may see, and 0 for the others, [token]. `keys` as LaneRows has them. positions: of tokens ascending, of rows any.
using VisitProbabilities = std::function<void(size_t row, std::span<const float> probabilities)>;
void ForEachProbabilities(const LayerView& layer, std::span<const int32_t> positions, std::span<const float> keys,
                          std::span<const float> queries, std::span<const int32_t> query_positions,
                          const VisitProbabilities& visit);

// Writes the rows that were chosen of a lane, in order, to tiles of the place's form; tiles[i] is the i-th tile's K
// part, its V part follows.
void WriteTiles(const LayerView& layer, const LaneRows& rows, std::span<const int32_t> chosen,
                std::span<std::byte* const> tiles);

}  // namespace kvist
