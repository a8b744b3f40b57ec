// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "storage/block_table.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "policy/sealing.h"

namespace kvist {

BlockTable::BlockTable(const BlockTable& other)
    : open_pool_(other.open_pool_),
      sealed_pool_(other.sealed_pool_),
      sealing_(other.sealing_),
      block_tokens_(other.block_tokens_),
      refs_(other.refs_),
      num_dropped_refs_(other.num_dropped_refs_),
      end_position_(other.end_position_),
      last_version_(other.last_version_),
      has_open_before_sealed_(other.has_open_before_sealed_) {
  for (const BlockRef& ref : refs_) AddReferences(ref);
}

BlockTable::BlockTable(BlockTable&& other) noexcept
    : open_pool_(other.open_pool_),
      sealed_pool_(other.sealed_pool_),
      sealing_(other.sealing_),
      block_tokens_(other.block_tokens_),
      refs_(std::exchange(other.refs_, {})),
      num_dropped_refs_(other.num_dropped_refs_),
      end_position_(other.end_position_),
      last_version_(other.last_version_),
      has_open_before_sealed_(other.has_open_before_sealed_) {}

BlockTable::~BlockTable() {
  for (const BlockRef& ref : refs_) ReleaseBlocks(ref);
}

void BlockTable::AddReferences(const BlockRef& ref) const {
  if (ref.spilled) return;
  pool(ref)->AddReference(ref.block);
  if (ref.sealing) sealed_pool_->AddReference(*ref.sealing);
}

void BlockTable::ReleaseBlocks(const BlockRef& ref) const {
  if (ref.spilled) return;
  pool(ref)->Release(ref.block);
  if (ref.sealing) sealed_pool_->Release(*ref.sealing);
}

int64_t BlockTable::TailRoom() const {
  // A block whose keys were moved by a delta takes no more: its new keys would need another delta.
  if (refs_.empty() || refs_.back().delta != 0 || refs_.back().is_sealed || refs_.back().spilled) return 0;
  return block_tokens_ - refs_.back().first_slot - refs_.back().num_slots;
}

int64_t BlockTable::NumBlocksAfterTail(int64_t num_tokens) const {
  return (num_tokens - std::min(TailRoom(), num_tokens) + block_tokens_ - 1) / block_tokens_;
}

int64_t BlockTable::NumNewestOpenBlocks() const {
  int64_t num_blocks = 0;
  while (num_blocks < std::ssize(refs_) && !refs_[refs_.size() - 1 - size_t(num_blocks)].is_sealed) ++num_blocks;
  return num_blocks;
}

size_t BlockTable::first_unsettled_ref() const {
  return has_open_before_sealed_ ? 0 : refs_.size() - size_t(NumNewestOpenBlocks());
}

int64_t BlockTable::newest_open_position() const {
  const int64_t num_blocks = NumNewestOpenBlocks();
  return num_blocks == 0 ? end_position_ : refs_[refs_.size() - size_t(num_blocks)].position;
}

std::optional<size_t> BlockTable::FindRef(int64_t position, int32_t num_slots) const {
  const auto found = std::ranges::lower_bound(refs_, position, {}, &BlockRef::position);
  if (found == refs_.end() || found->position != position || found->num_slots != num_slots) return std::nullopt;
  if (found->first_slot != 0 || found->delta != 0) return std::nullopt;
  return size_t(found - refs_.begin());
}

Result<size_t> BlockTable::Grow(int64_t num_tokens) {
  KVIST_TRY(FreshBlocks fresh, Reserve(num_tokens));
  return GrowInto(std::move(fresh), num_tokens);
}

namespace {

Result<std::vector<BlockId>> Allocate(BlockPool& pool, int64_t num_blocks) {
  std::vector<BlockId> fresh;
  while (int64_t(fresh.size()) < num_blocks) {
    Result<BlockId> block = pool.Allocate();
    if (!block) {
      for (BlockId taken : fresh) pool.Release(taken);
      return std::unexpected(block.error());
    }
    fresh.push_back(*block);
  }
  return fresh;
}

}  // namespace

Result<FreshBlocks> BlockTable::Reserve(int64_t num_tokens) const {
  const bool copy_tail = TailRoom() > 0 && open_pool_->IsShared(refs_.back().block);
  FreshBlocks fresh;
  KVIST_TRY(fresh.open, Allocate(*open_pool_, NumBlocksAfterTail(num_tokens) + int64_t(copy_tail)));
  if (sealed_pool_ == nullptr) return fresh;
  auto sealed = Allocate(*sealed_pool_, NumBlocksToSeal(num_tokens));
  if (!sealed) {
    Release(fresh);
    return std::unexpected(sealed.error());
  }
  fresh.sealed = *std::move(sealed);
  return fresh;
}

size_t BlockTable::BytesToReserve(int64_t num_tokens) const {
  const bool copy_tail = TailRoom() > 0 && open_pool_->IsShared(refs_.back().block);
  size_t bytes = size_t(NumBlocksAfterTail(num_tokens) + int64_t(copy_tail)) * open_pool_->block_bytes();
  if (sealed_pool_ != nullptr) bytes += size_t(NumBlocksToSeal(num_tokens)) * sealed_pool_->block_bytes();
  return bytes;
}

void BlockTable::Release(const FreshBlocks& fresh) const {
  for (BlockId block : fresh.open) open_pool_->Release(block);
  for (BlockId block : fresh.sealed) sealed_pool_->Release(block);
}

size_t BlockTable::GrowInto(FreshBlocks fresh, int64_t num_tokens) {
  // What was reserved decides: by now another thread may have let go of the block.
  const bool copy_tail = int64_t(fresh.open.size()) > NumBlocksAfterTail(num_tokens);
  const int64_t in_tail = std::min(TailRoom(), num_tokens);
  if (copy_tail) {
    CopyTailInto(fresh.open.back());
    fresh.open.pop_back();
  }
  if (in_tail > 0) {
    refs_.back().num_slots += int32_t(in_tail);
    refs_.back().version = ++last_version_;
  }
  end_position_ += in_tail;
  num_tokens -= in_tail;
  for (BlockId block : fresh.open) {
    const auto num_slots = int32_t(std::min<int64_t>(num_tokens, block_tokens_));
    refs_.push_back({.block = block, .num_slots = num_slots, .position = end_position_, .version = ++last_version_});
    num_tokens -= num_slots;
    end_position_ += num_slots;
  }
  for (size_t i = refs_.size(); i-- > 0 && !fresh.sealed.empty();) {
    if (!IsToBeSealed(refs_[i], i + 1 == refs_.size(), end_position_)) continue;
    refs_[i].sealing = fresh.sealed.back();
    fresh.sealed.pop_back();
  }
  KVIST_CHECK(fresh.sealed.empty());
  return copy_tail ? open_pool_->block_bytes() : 0;
}

bool BlockTable::IsToBeSealed(const BlockRef& ref, bool is_last, int64_t end_position) const {
  if (ref.is_sealed || ref.sealing) return false;
  if (is_last && ref.first_slot + ref.num_slots < block_tokens_) return false;  // its end is not known yet
  return SealedFrom(sealing_, ref.position, ref.end_position()) < end_position;
}

int64_t BlockTable::NumBlocksToSeal(int64_t num_tokens) const {
  const int64_t end_position = end_position_ + num_tokens, in_tail = std::min(TailRoom(), num_tokens);
  int64_t num_blocks = 0;
  const size_t first = first_unsettled_ref();
  for (size_t i = refs_.size(); i-- > first;) {
    BlockRef ref = refs_[i];
    const bool is_tail = i + 1 == refs_.size();
    if (is_tail) ref.num_slots += int32_t(in_tail);
    num_blocks += IsToBeSealed(ref, is_tail && in_tail == num_tokens, end_position);
  }
  for (int64_t begin = end_position_ + in_tail; begin + block_tokens_ <= end_position; begin += block_tokens_) {
    const BlockRef full{.block = {}, .num_slots = block_tokens_, .position = begin};
    num_blocks += IsToBeSealed(full, false, end_position);
  }
  return num_blocks;
}

std::vector<size_t> BlockTable::FinishSealing() {
  std::vector<size_t> sealed;
  if (sealed_pool_ == nullptr) return sealed;
  const size_t first = first_unsettled_ref();
  for (size_t i = refs_.size(); i-- > first;) {
    BlockRef& ref = refs_[i];
    if (!ref.sealing) continue;
    open_pool_->Release(ref.block);
    ref.block = *std::exchange(ref.sealing, std::nullopt);
    ref.is_sealed = true;
    ref.version = ++last_version_;
    sealed.push_back(i);
  }
  return sealed;
}

void BlockTable::ForgetSealing() {
  if (sealed_pool_ == nullptr) return;
  const size_t first = first_unsettled_ref();
  for (size_t i = refs_.size(); i-- > first;)
    if (const auto block = std::exchange(refs_[i].sealing, std::nullopt)) sealed_pool_->Release(*block);
}

void BlockTable::CopyTailInto(BlockId fresh) {
  std::memcpy(open_pool_->data(fresh), open_pool_->data(refs_.back().block), open_pool_->block_bytes());
  open_pool_->Release(refs_.back().block);
  refs_.back().block = fresh;
}

void BlockTable::Attach(const BlockRef& ref) {
  KVIST_CHECK(ref.position == end_position_ && ref.num_slots > 0);
  const bool is_after_open = !refs_.empty() && !refs_.back().is_sealed;
  if (ref.is_sealed && is_after_open && refs_.back().position >= sealing_.sink_tokens) has_open_before_sealed_ = true;
  refs_.push_back(ref);
  refs_.back().version = ++last_version_;
  end_position_ += ref.num_slots;
}

void BlockTable::SkipTo(int64_t position) {
  KVIST_CHECK(position >= end_position_ && position % block_tokens_ == 0);
  for (const BlockRef& ref : refs_) ReleaseBlocks(ref);
  refs_.clear();
  num_dropped_refs_ = position / block_tokens_;
  end_position_ = position;
}

void BlockTable::Replace(size_t ref_index, BlockId block) {
  BlockRef& ref = refs_[ref_index];
  pool(ref)->Release(ref.block);
  ref.block = block;
}

void BlockTable::Spill(size_t ref_index, std::shared_ptr<const HeldRecord> record) {
  BlockRef& ref = refs_[ref_index];
  KVIST_CHECK(!ref.spilled && !ref.sealing && ref.num_slots == block_tokens_);
  ReleaseBlocks(ref);
  ref.block = {};
  ref.spilled = std::move(record);
}

bool BlockTable::HasSpilled() const {
  return std::ranges::any_of(refs_, [](const BlockRef& ref) { return ref.spilled != nullptr; });
}

void BlockTable::Unspill(size_t ref_index, BlockId block) {
  refs_[ref_index].block = block;
  refs_[ref_index].spilled.reset();
}

void BlockTable::Truncate(int64_t end_position) {
  while (!refs_.empty() && refs_.back().position >= end_position) {
    ReleaseBlocks(refs_.back());
    refs_.pop_back();
  }
  if (!refs_.empty()) {
    BlockRef& tail = refs_.back();
    const auto num_left = int32_t(std::min<int64_t>(tail.num_slots, end_position - tail.position));
    if (std::exchange(tail.num_slots, num_left) != num_left) tail.version = ++last_version_;
  }
  end_position_ = end_position;
  if (refs_.empty()) num_dropped_refs_ = end_position / block_tokens_;
}

void BlockTable::Remove(int64_t begin, int64_t end) {
  const int64_t removed = end - begin;
  std::vector<BlockRef> kept;
  kept.reserve(refs_.size() + 1);
  for (const BlockRef& ref : refs_) {
    const auto before = int32_t(std::clamp<int64_t>(begin - ref.position, 0, ref.num_slots));
    const auto after = int32_t(std::clamp<int64_t>(ref.end_position() - end, 0, ref.num_slots));
    if (before > 0) {
      kept.push_back(ref);
      kept.back().num_slots = before;
      if (before < ref.num_slots) kept.back().version = ++last_version_;
    }
    if (after > 0) {
      const int32_t skipped = ref.num_slots - after;
      kept.push_back(ref);
      kept.back().first_slot += skipped;
      kept.back().num_slots = after;
      if (skipped > 0) kept.back().version = ++last_version_;
      kept.back().position += skipped - removed;
      kept.back().delta -= removed;
    }
    if (before > 0 && after > 0) AddReferences(ref);
    if (before == 0 && after == 0) ReleaseBlocks(ref);
  }
  refs_ = std::move(kept);
  end_position_ -= removed;
  if (refs_.empty()) num_dropped_refs_ = 0;
}

void BlockTable::CutOut(int64_t begin, int64_t end) {
  const auto is_cut = [=](const BlockRef& ref) { return ref.position >= begin && ref.end_position() <= end; };
  for (const BlockRef& ref : refs_)
    if (is_cut(ref)) ReleaseBlocks(ref);
  std::erase_if(refs_, is_cut);
}

bool BlockTable::DropBefore(int64_t position) {
  size_t num_dropped = 0;
  while (num_dropped < refs_.size() && refs_[num_dropped].end_position() <= position) {
    ReleaseBlocks(refs_[num_dropped++]);
  }
  refs_.erase(refs_.begin(), refs_.begin() + int64_t(num_dropped));
  num_dropped_refs_ += int64_t(num_dropped);
  return num_dropped > 0;
}

}  // namespace kvist
