// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "storage/block_table.h"
#include "storage/kept_tokens.h"

namespace kvist {

// Results of this many consecutive blocks are summed on their own and then merged in ascending order, whoever computes
// them: so a result depends neither on the number of threads nor on what else is in the step.
inline constexpr int64_t kSplitBlocks = 16;

// Tiles of kept tokens are summed in splits of their own, which come first: those of all lanes of a table's layers are
// as many as the longest lane's.
inline int64_t NumKeptSplits(const KeptTokens* kept) {
  return kept == nullptr ? 0 : (kept->max_num_tiles() + kSplitBlocks - 1) / kSplitBlocks;
}

// The split that a ref belongs to, counted from the sequence's first block, dropped ones included.
inline int64_t SplitOf(const BlockTable& table, size_t ref) {
  return (table.num_dropped_refs() + int64_t(ref)) / kSplitBlocks;
}

// Splits of the refs that are left, counted from the first of these.
inline int64_t NumSplits(const BlockTable& table) {
  return table.refs().empty() ? 0 : SplitOf(table, table.refs().size() - 1) - SplitOf(table, 0) + 1;
}
inline std::span<const BlockRef> RefsOfSplit(const BlockTable& table, int64_t split) {
  const auto refs = table.refs();
  const int64_t begin = (SplitOf(table, 0) + split) * kSplitBlocks - table.num_dropped_refs();
  const auto from = size_t(std::max<int64_t>(begin, 0));
  const auto to = size_t(std::min<int64_t>(begin + kSplitBlocks, int64_t(refs.size())));
  return refs.subspan(from, to - from);
}

}  // namespace kvist
