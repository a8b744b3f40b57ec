// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
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
  size_t cumulative_blocks = 0;     // allocations ever
  size_t num_commits = 0;
  size_t num_decommits = 0;
  size_t num_stalls = 0;  // allocations that found no spare block and waited for the system
};

class BlockRun;

// Hands out fixed-size blocks from one reserved address range and takes them back when their last reference is gone.
// Growing commits more of the range; nothing is copied, so a block's address never changes while it is held. A block
// that is handed out has its memory: writing to it never waits for a page. (Those of a run get it from whoever has the
// run, before others see them.)
// Spare blocks wait for the next Allocate: as many as are expected, or 1/64 of the live if that is more. What is over
// goes back to the operating system: what is more than 1/8 of the live at once, the rest when nobody has wanted it for
// kSpareTime. Tidy does all this; somebody has to call it (Housekeeper).
// Thread-safe. Allocate and Release are O(1) plus system calls whenever no spare block is there.
class BlockPool {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::milliseconds kSpareTime{200};

  // block_bytes: whole pages. The budget is charged for committed blocks and must outlive the pool.
  static Result<std::unique_ptr<BlockPool>> Open(size_t block_bytes, size_t max_blocks, MemoryBudget* budget);
  ~BlockPool();

  // A block with one reference. Its bytes are zeros or those of a block released earlier.
  // kOutOfMemory when the budget, the range or the machine's memory is used up; the pool is unchanged then.
  Result<BlockId> Allocate();
  // As many blocks as there are addresses and budget for, at most so many, one after another in memory, each with one
  // reference. May have none; then Allocate may succeed.
  BlockRun AllocateRun(size_t num_blocks);
  void AddReference(BlockId block);
  void Release(BlockId block);
  uint32_t NumReferences(BlockId block) const;
  bool IsShared(BlockId block) const { return NumReferences(block) > 1; }

  // Changes how many blocks are expected to be allocated soon.
  void Expect(int64_t num_more_blocks);
  // Makes all expected blocks ready now. kOutOfMemory when there is no room for them; what is ready stays.
  Status MakeExpectedReady();
  // Makes expected blocks ready and gives back spare ones whose time is over. Returns when there will be more to do;
  // nothing when there won't be without a call of another function.
  std::optional<Clock::time_point> Tidy(Clock::time_point now);
  // Gives all spare blocks back, so that another pool of the same budget can have them. Waits for those in flight.
  void Trim();

  std::byte* data(BlockId block) const { return range_.data() + size_t(block.index) * block_bytes_; }
  size_t block_bytes() const { return block_bytes_; }
  size_t reserved_bytes() const { return range_.size(); }
  BlockPoolStats stats() const;
  Result<size_t> ResidentBytes() const { return range_.ResidentBytes(); }

 private:
  friend class BlockRun;
  using Lock = std::unique_lock<std::mutex>;
  BlockPool(AddressRange range, size_t block_bytes, size_t max_blocks, MemoryBudget* budget);
  // These let go of the lock while the system works; the block is in flight then.
  Result<BlockId> CommitOrWait(Lock& lock);
  Result<BlockId> Commit(Lock& lock);
  Result<BlockId> CommitCharged(Lock& lock);
  Result<BlockId> TakeAddress(const Lock& lock);
  void EndRun(const BlockRun& run);
  void CountAllocation(BlockId block, const Lock&);
  void GiveBack(BlockId block, Lock& lock);
  void BeginFlight(Lock& lock);
  void EndFlight(Lock& lock);
  BlockId TakeSpare(const Lock&);
  size_t NumWantedSpares(const Lock&) const;
  bool IsBlockMissing(const Lock&) const;
  void Arrive(const Result<BlockId>& block, const Lock&);

  AddressRange range_;
  const size_t block_bytes_;
  const size_t max_blocks_;
  MemoryBudget* const budget_;
  mutable std::mutex mutex_;
  std::vector<uint32_t> reference_counts_;  // of every block ever committed
  std::vector<BlockId> spare_;              // free, memory kept
  std::vector<BlockId> returned_;           // free, memory given back
  int64_t num_expected_ = 0;
  size_t num_in_flight_ = 0;  // blocks whose memory is being taken or given back
  size_t num_arriving_ = 0;   // expected blocks whose memory is being taken
  std::condition_variable landed_;
  std::optional<Clock::time_point> excess_since_;  // since when there are more spare blocks than wanted
  BlockPoolStats stats_;
};

// New blocks, charged to the budget, whose memory is still to be taken: in huge pages where the system has them, in a
// quarter of the time, by the threads that fill them. When the run ends, blocks without memory go back to the pool, and
// the others are like all others: huge pages are no longer used for them, so that a block that is given back and taken
// again never brings its neighbours' memory. Until then nobody else may have a block of it. The pool must outlive it.
class BlockRun {
 public:
  BlockRun() = default;
  BlockRun(BlockRun&& other) noexcept { *this = std::move(other); }
  BlockRun& operator=(BlockRun&& other) noexcept;
  ~BlockRun();

  size_t size() const { return has_memory_.size(); }
  BlockId operator[](size_t i) const { return {uint32_t(first_ + i)}; }
  // Takes the memory of a block of the run. Threads may do so at once, with different blocks. kOutOfMemory when the
  // machine has none: the block goes back when the run ends.
  Status TakeMemory(BlockId block);

 private:
  friend class BlockPool;
  BlockRun(BlockPool* pool, size_t first, size_t num_blocks) : pool_(pool), first_(first), has_memory_(num_blocks) {}

  BlockPool* pool_ = nullptr;
  size_t first_ = 0;
  std::vector<uint8_t> has_memory_;  // [block of the run]; not of bits, which threads could not set at once
};

}  // namespace kvist
