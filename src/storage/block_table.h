// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kvist/error.h"
#include "storage/block_pool.h"

namespace kvist {

// Consecutive tokens of a sequence that lie in consecutive slots of one block.
struct BlockRef {
  BlockId block;
  int32_t first_slot = 0;
  int32_t num_slots = 0;
  int64_t position = 0;  // of the first slot's token in this sequence
  int64_t delta = 0;     // position now less the position its key was rotated to
  int64_t end_position() const { return position + num_slots; }
};

// The blocks of one sequence and group, in the order of positions. Holds one reference a BlockRef.
// Copying shares the blocks. One thread at a time; the pool must outlive it.
class BlockTable {
 public:
  BlockTable(BlockPool* pool, int block_tokens) : pool_(pool), block_tokens_(block_tokens) {}
  BlockTable(const BlockTable& other);
  BlockTable(BlockTable&& other) noexcept;
  BlockTable& operator=(const BlockTable&) = delete;
  ~BlockTable();

  // Makes room for that many tokens at end_position(), which moves. Copies the open block first when it is shared.
  // Returns the bytes copied. On failure nothing has changed.
  Result<size_t> Grow(int64_t num_tokens);
  // Its two halves, so that several tables can grow together or not at all: the blocks that are wanted, and their use.
  Result<std::vector<BlockId>> Reserve(int64_t num_tokens) const;
  size_t GrowInto(std::vector<BlockId> fresh, int64_t num_tokens);
  // How many blocks so many more tokens need beyond the open one.
  int64_t NumBlocksAfterTail(int64_t num_tokens) const;
  // Keeps positions below the given one.
  void Truncate(int64_t end_position);
  // Takes positions [begin, end) out; what follows moves to the front by a delta.
  void Remove(int64_t begin, int64_t end);
  // Releases blocks that hold only positions below the given one; whether there were any.
  bool DropBefore(int64_t position);

  std::span<const BlockRef> refs() const { return refs_; }
  // How many refs were dropped before refs()[0], so that a ref's index in the whole sequence never changes.
  int64_t num_dropped_refs() const { return num_dropped_refs_; }
  int64_t begin_position() const { return refs_.empty() ? end_position_ : refs_.front().position; }
  int64_t end_position() const { return end_position_; }
  BlockPool* pool() const { return pool_; }

 private:
  int64_t TailRoom() const;  // free slots of the last block that an append may use
  void CopyTailInto(BlockId fresh);

  BlockPool* pool_;
  int block_tokens_;
  std::vector<BlockRef> refs_;
  int64_t num_dropped_refs_ = 0;
  int64_t end_position_ = 0;
};

}  // namespace kvist
