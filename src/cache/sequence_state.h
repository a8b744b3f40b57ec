// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <memory>
#include <vector>

#include "cache/attend.h"
#include "cache/core.h"
#include "kvist/cache.h"
#include "storage/block_table.h"

namespace kvist {

struct Sequence::State {
  explicit State(std::shared_ptr<Cache::Core> core_in);
  State(const State& other);  // shares all blocks; leaves out a step under way
  State& operator=(const State&) = delete;
  ~State();

  void ForgetStep();
  // The blocks that every table needs for so many more tokens, [group]; all of them or none.
  Result<std::vector<std::vector<BlockId>>> ReserveBlocks(int64_t num_tokens_in) const;
  // Whether every sliding-window layer still holds what a query at that position would see, when what lies at
  // gap_position and after is as far from the query as it is today.
  Status CheckWindows(int64_t next_position, int64_t gap_position) const;

  std::shared_ptr<Cache::Core> core;
  std::vector<Token> tokens;        // stored, then prepared
  int64_t num_tokens = 0;           // stored
  std::vector<BlockTable> tables;   // [group], with room for the prepared tokens
  AttendSpace attend_space;
};

}  // namespace kvist
