// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "storage/block_pool.h"

#include <algorithm>
#include <string>

namespace kvist {
namespace {

// Keeps resident memory within 2 % of what is live.
constexpr size_t kLiveBlocksPerSpareBlock = 64;

}  // namespace

Result<std::unique_ptr<BlockPool>> BlockPool::Open(size_t block_bytes, size_t max_blocks, MemoryBudget* budget) {
  KVIST_CHECK(block_bytes > 0 && block_bytes % PageBytes() == 0);
  max_blocks = std::min<size_t>(max_blocks, UINT32_MAX);
  KVIST_TRY(AddressRange range, AddressRange::Reserve(block_bytes * max_blocks));
  return std::unique_ptr<BlockPool>(new BlockPool(std::move(range), block_bytes, max_blocks, budget));
}

BlockPool::BlockPool(AddressRange range, size_t block_bytes, size_t max_blocks, MemoryBudget* budget)
    : range_(std::move(range)), block_bytes_(block_bytes), max_blocks_(max_blocks), budget_(budget) {}

BlockPool::~BlockPool() {
  KVIST_CHECK(stats_.num_live_blocks == 0);
  budget_->Refund(stats_.num_committed_blocks * block_bytes_);
}

Result<BlockId> BlockPool::Allocate() {
  const std::lock_guard lock(mutex_);
  BlockId block;
  if (!spare_.empty()) {
    block = spare_.back();
    spare_.pop_back();
  } else {
    KVIST_TRY(block, Commit(lock));
  }
  reference_counts_[block.index] = 1;
  ++stats_.cumulative_blocks;
  stats_.peak_live_blocks = std::max(stats_.peak_live_blocks, ++stats_.num_live_blocks);
  return block;
}

Result<BlockId> BlockPool::Commit(const std::lock_guard<std::mutex>&) {
  if (!budget_->Charge(block_bytes_)) {
    return Fail(ErrorCode::kOutOfMemory, "the KV budget of " + std::to_string(budget_->limit_bytes()) +
                                             " bytes is used up (" + std::to_string(budget_->used_bytes()) +
                                             " in use, " + std::to_string(block_bytes_) + " wanted)");
  }
  BlockId block;
  if (!returned_.empty()) {
    block = returned_.back();  // still readable and writable: memory comes back at the first touch
    returned_.pop_back();
  } else {
    block.index = uint32_t(reference_counts_.size());
    Status committed = block.index < max_blocks_
                           ? range_.Commit(size_t(block.index) * block_bytes_, block_bytes_)
                           : Fail(ErrorCode::kOutOfMemory, "the reserved address range is used up");
    if (!committed) {
      budget_->Refund(block_bytes_);
      return std::unexpected(committed.error());
    }
    reference_counts_.push_back(0);
  }
  ++stats_.num_commits;
  stats_.peak_committed_blocks = std::max(stats_.peak_committed_blocks, ++stats_.num_committed_blocks);
  return block;
}

void BlockPool::AddReference(BlockId block) {
  const std::lock_guard lock(mutex_);
  KVIST_CHECK(reference_counts_[block.index] > 0);
  ++reference_counts_[block.index];
}

void BlockPool::Release(BlockId block) {
  const std::lock_guard lock(mutex_);
  KVIST_CHECK(reference_counts_[block.index] > 0);
  if (--reference_counts_[block.index] > 0) return;
  --stats_.num_live_blocks;
  spare_.push_back(block);
  TrimTo(stats_.num_live_blocks / kLiveBlocksPerSpareBlock, lock);
}

void BlockPool::Trim() {
  const std::lock_guard lock(mutex_);
  TrimTo(0, lock);
}

void BlockPool::TrimTo(size_t num_spare, const std::lock_guard<std::mutex>&) {
  while (spare_.size() > num_spare) {
    const BlockId block = spare_.back();
    range_.Decommit(size_t(block.index) * block_bytes_, block_bytes_);
    spare_.pop_back();
    returned_.push_back(block);
    --stats_.num_committed_blocks;
    ++stats_.num_decommits;
    budget_->Refund(block_bytes_);
  }
}

bool BlockPool::IsShared(BlockId block) const {
  const std::lock_guard lock(mutex_);
  return reference_counts_[block.index] > 1;
}

BlockPoolStats BlockPool::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

}  // namespace kvist
