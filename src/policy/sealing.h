// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "kvist/sealing.h"

namespace kvist {

// From which query on the block of positions [begin, end) is seen in its sealed form: the position of the first such
// query. It depends on positions alone, so that a text gives the same numbers in whatever steps it is fed.
inline int64_t SealedFrom(const SealingOptions& options, int64_t begin, int64_t end) {
  if (begin < options.sink_tokens) return std::numeric_limits<int64_t>::max();
  return std::max(options.begin_position, end + options.recent_tokens - 1);
}

// The most blocks that are open at once while a sequence grows to num_tokens one by one, the one that a step seals
// included.
inline int64_t MostOpenBlocks(const SealingOptions& options, int64_t num_tokens, int64_t block_tokens) {
  const auto num_blocks = [=](int64_t tokens) { return (tokens + block_tokens - 1) / block_tokens; };
  const int64_t before_sealing = num_blocks(std::min(num_tokens - 1, options.begin_position) + 1);
  return num_blocks(options.sink_tokens) + std::max(before_sealing, num_blocks(options.recent_tokens) + 1);
}

// How many of the blocks from a position on are sealed once a sequence has num_tokens.
inline int64_t NumBlocksSealedFrom(const SealingOptions& options, int64_t begin, int64_t num_tokens,
                                   int64_t block_tokens) {
  if (num_tokens <= options.begin_position) return 0;
  const int64_t first = std::max(begin, (options.sink_tokens + block_tokens - 1) / block_tokens * block_tokens);
  return std::max<int64_t>(0, (num_tokens - options.recent_tokens - first) / block_tokens);
}

}  // namespace kvist
