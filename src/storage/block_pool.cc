// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "storage/block_pool.h"

#include <algorithm>
#include <string>

namespace kvist {
namespace {

// Keeps resident memory within 2 % of what is live.
constexpr size_t kLiveBlocksPerSpareBlock = 64;
// What was just freed may wait for its next use only up to this share of what is live; the rest goes back at once.
constexpr size_t kLiveBlocksPerWaitingBlock = 8;

}  // namespace

Result<std::unique_ptr<BlockPool>> BlockPool::Open(size_t block_bytes, size_t max_blocks, MemoryBudget* budget) {
  KVIST_CHECK(block_bytes > 0 && block_bytes % PageBytes() == 0);
  max_blocks = std::min<size_t>(max_blocks, UINT32_MAX);
  KVIST_TRY(AddressRange range, AddressRange::Reserve(block_bytes * max_blocks));
  // docs/decisions/003-memory-ahead.md: four times as fast to take, where blocks are so large that none is wasted.
  // Elsewhere a huge page would bring memory that was not asked for.
  range.UseHugePages(block_bytes % kHugePageBytes == 0, 0, range.size());
  return std::unique_ptr<BlockPool>(new BlockPool(std::move(range), block_bytes, max_blocks, budget));
}

BlockPool::BlockPool(AddressRange range, size_t block_bytes, size_t max_blocks, MemoryBudget* budget)
    : range_(std::move(range)), block_bytes_(block_bytes), max_blocks_(max_blocks), budget_(budget) {}

BlockPool::~BlockPool() {
  KVIST_CHECK(stats_.num_live_blocks == 0);
  budget_->Refund(stats_.num_committed_blocks * block_bytes_);
}

Result<BlockId> BlockPool::Allocate() {
  Lock lock(mutex_);
  BlockId block;
  if (!spare_.empty()) {
    block = TakeSpare(lock);
  } else {
    KVIST_TRY(block, CommitOrWait(lock));
    ++stats_.num_stalls;
  }
  CountAllocation(block, lock);
  return block;
}

void BlockPool::CountAllocation(BlockId block, const Lock&) {
  reference_counts_[block.index] = 1;
  ++stats_.cumulative_blocks;
  ++stats_.num_live_blocks;
}

BlockRun BlockPool::AllocateRun(size_t num_blocks) {
  const Lock lock(mutex_);
  const size_t first = reference_counts_.size();
  size_t num_charged = 0;
  num_blocks = std::min(num_blocks, max_blocks_ - first);
  while (num_charged < num_blocks && budget_->Charge(block_bytes_)) ++num_charged;
  if (num_charged == 0) return {};
  const size_t offset = first * block_bytes_, num_bytes = num_charged * block_bytes_;
  if (!range_.Commit(offset, num_bytes)) {
    budget_->Refund(num_bytes);
    return {};
  }
  range_.UseHugePages(true, offset, num_bytes);
  reference_counts_.resize(first + num_charged);
  BlockRun run(this, first, num_charged);
  for (size_t i = 0; i < run.size(); ++i) CountAllocation(run[i], lock);
  ++stats_.num_commits;
  stats_.num_committed_blocks += num_charged;
  return run;
}

void BlockPool::EndRun(const BlockRun& run) {
  Lock lock(mutex_);
  range_.UseHugePages(block_bytes_ % kHugePageBytes == 0, run.first_ * block_bytes_, run.size() * block_bytes_);
  for (size_t i = 0; i < run.size(); ++i) {
    if (run.has_memory_[i]) continue;
    KVIST_CHECK(reference_counts_[run[i].index] == 1);
    reference_counts_[run[i].index] = 0;
    --stats_.num_live_blocks;
    GiveBack(run[i], lock);  // it may have got a part, with a neighbour's huge page, too
  }
}

BlockId BlockPool::TakeSpare(const Lock&) {
  const BlockId block = spare_.back();
  spare_.pop_back();
  return block;
}

Result<BlockId> BlockPool::CommitOrWait(Lock& lock) {
  while (true) {
    Result<BlockId> block = Commit(lock);
    if (block || num_in_flight_ == 0) return block;
    // What another thread is taking ahead or giving back counts as used until it is done; then it may be ours.
    landed_.wait(lock, [this] { return num_in_flight_ == 0; });
    if (!spare_.empty()) return TakeSpare(lock);
  }
}

Result<BlockId> BlockPool::Commit(Lock& lock) {
  if (budget_->Charge(block_bytes_)) return CommitCharged(lock);
  return Fail(ErrorCode::kOutOfMemory, "the KV budget of " + std::to_string(budget_->limit_bytes()) +
                                           " bytes is used up (" + std::to_string(budget_->used_bytes()) + " in use, " +
                                           std::to_string(block_bytes_) +
                                           " wanted); give a larger budget or end a sequence");
}

Result<BlockId> BlockPool::CommitCharged(Lock& lock) {
  Result<BlockId> block = TakeAddress(lock);
  if (block) {
    const size_t offset = size_t(block->index) * block_bytes_;
    BeginFlight(lock);
    const Status ready = range_.Populate(offset, block_bytes_);
    if (!ready) range_.Decommit(offset, block_bytes_);  // it may have got a part
    EndFlight(lock);
    if (!ready) {
      returned_.push_back(*block);
      block = std::unexpected(ready.error());
    }
  }
  if (!block) {
    budget_->Refund(block_bytes_);
    return block;
  }
  ++stats_.num_commits;
  ++stats_.num_committed_blocks;
  return block;
}

Result<BlockId> BlockPool::TakeAddress(const Lock&) {
  if (!returned_.empty()) {
    const BlockId block = returned_.back();
    returned_.pop_back();
    return block;
  }
  const BlockId block{uint32_t(reference_counts_.size())};
  if (block.index == max_blocks_) return Fail(ErrorCode::kOutOfMemory, "the reserved address range is used up");
  KVIST_TRY_VOID(range_.Commit(size_t(block.index) * block_bytes_, block_bytes_));
  reference_counts_.push_back(0);
  return block;
}

void BlockPool::AddReference(BlockId block) {
  const Lock lock(mutex_);
  KVIST_CHECK(reference_counts_[block.index] > 0);
  ++reference_counts_[block.index];
}

void BlockPool::Release(BlockId block) {
  const Lock lock(mutex_);
  KVIST_CHECK(reference_counts_[block.index] > 0);
  if (--reference_counts_[block.index] > 0) return;
  --stats_.num_live_blocks;
  spare_.push_back(block);
}

size_t BlockPool::NumWantedSpares(const Lock&) const {
  return std::max(size_t(std::max<int64_t>(num_expected_, 0)), stats_.num_live_blocks / kLiveBlocksPerSpareBlock);
}

void BlockPool::Expect(int64_t num_more_blocks) {
  const Lock lock(mutex_);
  num_expected_ += num_more_blocks;
}

Status BlockPool::MakeExpectedReady() {
  Lock lock(mutex_);
  while (int64_t(spare_.size()) < num_expected_) {
    if (!IsBlockMissing(lock)) {
      landed_.wait(lock, [this] { return num_arriving_ == 0; });
      continue;
    }
    ++num_arriving_;
    const Result<BlockId> block = CommitOrWait(lock);
    Arrive(block, lock);
    if (!block) return std::unexpected(block.error());
  }
  return {};
}

// Two threads may take expected blocks at once; together they take no more than are expected.
bool BlockPool::IsBlockMissing(const Lock&) const {
  return int64_t(spare_.size() + num_arriving_) < num_expected_;
}

void BlockPool::Arrive(const Result<BlockId>& block, const Lock&) {
  if (block) spare_.push_back(*block);
  if (--num_arriving_ == 0) landed_.notify_all();
}

std::optional<BlockPool::Clock::time_point> BlockPool::Tidy(Clock::time_point now) {
  Lock lock(mutex_);
  while (IsBlockMissing(lock) && budget_->ChargeAhead(block_bytes_)) {
    ++num_arriving_;
    const Result<BlockId> block = CommitCharged(lock);
    Arrive(block, lock);
    if (!block) break;  // whoever needs the block will be told
  }
  while (spare_.size() > NumWantedSpares(lock) + stats_.num_live_blocks / kLiveBlocksPerWaitingBlock) {
    GiveBack(TakeSpare(lock), lock);
  }
  if (spare_.size() <= NumWantedSpares(lock)) {
    excess_since_.reset();
    return std::nullopt;
  }
  if (!excess_since_) excess_since_ = now;
  if (now < *excess_since_ + kSpareTime) return *excess_since_ + kSpareTime;
  while (spare_.size() > NumWantedSpares(lock)) GiveBack(TakeSpare(lock), lock);
  excess_since_.reset();
  return std::nullopt;
}

void BlockPool::Trim() {
  Lock lock(mutex_);
  landed_.wait(lock, [this] { return num_in_flight_ == 0; });
  while (!spare_.empty()) GiveBack(TakeSpare(lock), lock);
}

void BlockPool::GiveBack(BlockId block, Lock& lock) {
  BeginFlight(lock);
  range_.Decommit(size_t(block.index) * block_bytes_, block_bytes_);
  budget_->Refund(block_bytes_);
  EndFlight(lock);
  returned_.push_back(block);
  --stats_.num_committed_blocks;
  ++stats_.num_decommits;
}

void BlockPool::BeginFlight(Lock& lock) {
  ++num_in_flight_;
  lock.unlock();
}

void BlockPool::EndFlight(Lock& lock) {
  lock.lock();
  if (--num_in_flight_ == 0) landed_.notify_all();
}

uint32_t BlockPool::NumReferences(BlockId block) const {
  const Lock lock(mutex_);
  return reference_counts_[block.index];
}

BlockPoolStats BlockPool::stats() const {
  const Lock lock(mutex_);
  return stats_;
}

BlockRun& BlockRun::operator=(BlockRun&& other) noexcept {
  std::swap(pool_, other.pool_);
  std::swap(first_, other.first_);
  std::swap(has_memory_, other.has_memory_);
  return *this;
}

BlockRun::~BlockRun() {
  if (pool_ != nullptr) pool_->EndRun(*this);
}

Status BlockRun::TakeMemory(BlockId block) {
  const size_t i = block.index - first_;
  KVIST_CHECK(block.index >= first_ && i < size() && !has_memory_[i]);
  KVIST_TRY_VOID(pool_->range_.Populate(size_t(block.index) * pool_->block_bytes_, pool_->block_bytes_));
  has_memory_[i] = 1;
  return {};
}

}  // namespace kvist
