// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "base/address_range.h"
#include "kvist/error.h"
#include "storage/memory_budget.h"

namespace kvist {

// A block of one pool. Does not convert to or from a plain number by accident.
struct BlockId {
  uint32_t index = 0;
  bool operator==(const BlockId&) const = default;
};

struct BlockPoolStats {
  size_t num_live_blocks = 0;
  size_t num_committed_blocks = 0;  // live and spare
  size_t peak_live_blocks = 0;
  size_t peak_committed_blocks = 0;
  size_t cumulative_blocks = 0;  // allocations ever
  size_t num_commits = 0;
  size_t num_decommits = 0;
};

// Hands out fixed-size blocks from one reserved address range and takes them back when their last reference is gone.
// Growing commits more of the range; nothing is copied, so a block's address never changes while it is held. Freed
// blocks go back to the operating system, but for a few spare ones (1/64 of the live) that wait for the next Allocate.
// Thread-safe. Allocate and Release are O(1) plus a system call whenever no spare block is there.
class BlockPool {
 public:
  // block_bytes: whole pages. The budget is charged for committed blocks and must outlive the pool.
  static Result<std::unique_ptr<BlockPool>> Open(size_t block_bytes, size_t max_blocks, MemoryBudget* budget);
  ~BlockPool();

  // A block with one reference. Its bytes are zeros or those of a block released earlier.
  // kOutOfMemory when the budget, the range or the machine's memory is used up; the pool is unchanged then.
  Result<BlockId> Allocate();
  void AddReference(BlockId block);
  void Release(BlockId block);
  bool IsShared(BlockId block) const;  // more than one reference

  // Gives all spare blocks back, so that another pool of the same budget can have them.
  void Trim();

  std::byte* data(BlockId block) const { return range_.data() + size_t(block.index) * block_bytes_; }
  size_t block_bytes() const { return block_bytes_; }
  size_t reserved_bytes() const { return range_.size(); }
  BlockPoolStats stats() const;
  Result<size_t> ResidentBytes() const { return range_.ResidentBytes(); }

 private:
  BlockPool(AddressRange range, size_t block_bytes, size_t max_blocks, MemoryBudget* budget);
  Result<BlockId> Commit(const std::lock_guard<std::mutex>&);
  void TrimTo(size_t num_spare, const std::lock_guard<std::mutex>&);

  AddressRange range_;
  const size_t block_bytes_;
  const size_t max_blocks_;
  MemoryBudget* const budget_;
  mutable std::mutex mutex_;
  std::vector<uint32_t> reference_counts_;  // of every block ever committed
  std::vector<BlockId> spare_;              // free, memory kept
  std::vector<BlockId> returned_;           // free, memory given back
  BlockPoolStats stats_;
};

}  // namespace kvist
