// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "storage/block_table.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace kvist {

BlockTable::BlockTable(const BlockTable& other)
    : pool_(other.pool_),
      block_tokens_(other.block_tokens_),
      refs_(other.refs_),
      num_dropped_refs_(other.num_dropped_refs_),
      end_position_(other.end_position_) {
  for (const BlockRef& ref : refs_) pool_->AddReference(ref.block);
}

BlockTable::BlockTable(BlockTable&& other) noexcept
    : pool_(other.pool_),
      block_tokens_(other.block_tokens_),
      refs_(std::exchange(other.refs_, {})),
      num_dropped_refs_(other.num_dropped_refs_),
      end_position_(other.end_position_) {}

BlockTable::~BlockTable() {
  for (const BlockRef& ref : refs_) pool_->Release(ref.block);
}

int64_t BlockTable::TailRoom() const {
  // A block whose keys were moved by a delta takes no more: its new keys would need another delta.
  if (refs_.empty() || refs_.back().delta != 0) return 0;
  return block_tokens_ - refs_.back().first_slot - refs_.back().num_slots;
}

int64_t BlockTable::NumBlocksAfterTail(int64_t num_tokens) const {
  return (num_tokens - std::min(TailRoom(), num_tokens) + block_tokens_ - 1) / block_tokens_;
}

Result<size_t> BlockTable::Grow(int64_t num_tokens) {
  KVIST_TRY(std::vector<BlockId> fresh, Reserve(num_tokens));
  return GrowInto(std::move(fresh), num_tokens);
}

Result<std::vector<BlockId>> BlockTable::Reserve(int64_t num_tokens) const {
  const bool copy_tail = TailRoom() > 0 && pool_->IsShared(refs_.back().block);
  const int64_t num_wanted = NumBlocksAfterTail(num_tokens) + int64_t(copy_tail);
  std::vector<BlockId> fresh;
  while (int64_t(fresh.size()) < num_wanted) {
    Result<BlockId> block = pool_->Allocate();
    if (!block) {
      for (BlockId taken : fresh) pool_->Release(taken);
      return std::unexpected(block.error());
    }
    fresh.push_back(*block);
  }
  return fresh;
}

size_t BlockTable::GrowInto(std::vector<BlockId> fresh, int64_t num_tokens) {
  // What was reserved decides: by now another thread may have let go of the block.
  const bool copy_tail = int64_t(fresh.size()) > NumBlocksAfterTail(num_tokens);
  const int64_t in_tail = std::min(TailRoom(), num_tokens);
  if (copy_tail) {
    CopyTailInto(fresh.back());
    fresh.pop_back();
  }
  if (in_tail > 0) refs_.back().num_slots += int32_t(in_tail);
  end_position_ += in_tail;
  num_tokens -= in_tail;
  for (BlockId block : fresh) {
    const auto num_slots = int32_t(std::min<int64_t>(num_tokens, block_tokens_));
    refs_.push_back({block, 0, num_slots, end_position_, 0});
    num_tokens -= num_slots;
    end_position_ += num_slots;
  }
  return copy_tail ? pool_->block_bytes() : 0;
}

void BlockTable::CopyTailInto(BlockId fresh) {
  std::memcpy(pool_->data(fresh), pool_->data(refs_.back().block), pool_->block_bytes());
  pool_->Release(refs_.back().block);
  refs_.back().block = fresh;
}

void BlockTable::Truncate(int64_t end_position) {
  while (!refs_.empty() && refs_.back().position >= end_position) {
    pool_->Release(refs_.back().block);
    refs_.pop_back();
  }
  if (!refs_.empty()) {
    BlockRef& tail = refs_.back();
    tail.num_slots = int32_t(std::min<int64_t>(tail.num_slots, end_position - tail.position));
  }
  end_position_ = end_position;
  if (refs_.empty()) num_dropped_refs_ = 0;
}

void BlockTable::Remove(int64_t begin, int64_t end) {
  const int64_t removed = end - begin;
  std::vector<BlockRef> kept;
  kept.reserve(refs_.size() + 1);
  for (const BlockRef& ref : refs_) {
    const auto before = int32_t(std::clamp<int64_t>(begin - ref.position, 0, ref.num_slots));
    const auto after = int32_t(std::clamp<int64_t>(ref.end_position() - end, 0, ref.num_slots));
    if (before > 0) kept.push_back({ref.block, ref.first_slot, before, ref.position, ref.delta});
    if (after > 0) {
      const int32_t skipped = ref.num_slots - after;
      kept.push_back(
          {ref.block, ref.first_slot + skipped, after, ref.position + skipped - removed, ref.delta - removed});
    }
    if (before > 0 && after > 0) pool_->AddReference(ref.block);
    if (before == 0 && after == 0) pool_->Release(ref.block);
  }
  refs_ = std::move(kept);
  end_position_ -= removed;
  if (refs_.empty()) num_dropped_refs_ = 0;
}

bool BlockTable::DropBefore(int64_t position) {
  size_t num_dropped = 0;
  while (num_dropped < refs_.size() && refs_[num_dropped].end_position() <= position) {
    pool_->Release(refs_[num_dropped++].block);
  }
  refs_.erase(refs_.begin(), refs_.begin() + int64_t(num_dropped));
  num_dropped_refs_ += int64_t(num_dropped);
  return num_dropped > 0;
}

}  // namespace kvist
