// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "tier/disk_tier.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <utility>

#include "tier/disk_tier_state.h"

namespace kvist {
namespace {

constexpr uint64_t kMinLimitBytes = uint64_t{1} << 20;
constexpr uint64_t kMinSegmentBytes = 4096, kMaxSegmentBytes = uint64_t{1} << 30;
// A segment is evicted as a whole: it should not be most of what is there.
constexpr uint64_t kSegmentsPerLimit = 8;

Status CheckOptions(const DiskTierOptions& options) {
  if (options.limit_bytes < kMinLimitBytes || options.limit_bytes > uint64_t(INT64_MAX)) {
    return Fail(ErrorCode::kInvalidArgument,
                "the disk tier's limit must be 1 MiB or more, not " + std::to_string(options.limit_bytes) + " bytes");
  }
  if (options.segment_bytes < kMinSegmentBytes || options.segment_bytes > kMaxSegmentBytes) {
    return Fail(ErrorCode::kInvalidArgument, "the disk tier's segments must have 4 KiB to 1 GiB, not " +
                                                 std::to_string(options.segment_bytes) + " bytes");
  }
  return {};
}

bool CanBeWritten(const TierWrite& write) {
  return write.header.size() <= kMaxHeaderBytes;
}

}  // namespace

Result<std::unique_ptr<DiskTier>> DiskTier::Open(const std::string& path, const DiskTierOptions& options) {
  KVIST_TRY_VOID(CheckOptions(options));
  KVIST_TRY(Folder folder, Folder::Open(path));
  auto state = std::make_unique<State>(std::move(folder), options);
  // A folder that can't be locked can still be read.
  if (auto folder_lock = FolderLock::Take(state->folder)) {
    state->MakeRoom(0, *folder_lock);
  } else {
    state->RefreshUnlocked();
  }
  return std::unique_ptr<DiskTier>(new DiskTier(std::move(state)));
}

DiskTier::DiskTier(std::unique_ptr<State> state) : state_(std::move(state)) {}
DiskTier::~DiskTier() = default;

std::vector<bool> DiskTier::Contains(std::span<const RecordKey> keys, SegmentHold* hold) {
  std::vector<bool> holds(keys.size());
  std::set<std::shared_ptr<Segment>> segments;
  const auto look_up = [&] {
    const State::Lock lock(state_->mutex);
    for (size_t i = 0; i < keys.size(); ++i) {
      const auto place = state_->index.Find(keys[i]);
      holds[i] = place.has_value();
      if (place && segments.insert(place->segment).second && hold != nullptr) hold->Add(place->segment, lock);
    }
    return std::ranges::find(holds, false) == holds.end();
  };
  if (!look_up()) {
    state_->RefreshAfterMiss();
    look_up();
  }
  for (const auto& segment : segments) state_->Touch(*segment);
  return holds;
}

std::vector<bool> DiskTier::Contains(std::span<const RecordKey> keys) {
  return Contains(keys, nullptr);
}

void DiskTier::Read(std::span<TierRead> reads) {
  std::vector<size_t> missing(reads.size());
  std::iota(missing.begin(), missing.end(), size_t{0});
  missing = state_->ReadFound(reads, missing);
  if (!missing.empty()) {
    // Again: others may have written it, or there is an older one besides one that is damaged or gone.
    state_->RefreshAfterMiss();
    missing = state_->ReadFound(reads, missing);
  }
  const State::Lock lock(state_->mutex);
  state_->stats.num_hits += reads.size() - missing.size();
  state_->stats.num_misses += missing.size();
}

size_t DiskTier::Write(std::span<const TierWrite> writes, SegmentHold* hold) {
  const uint64_t segment_bytes =
      std::min(state_->options.segment_bytes, state_->options.limit_bytes / kSegmentsPerLimit);
  size_t num_written = 0;
  uint64_t bytes_written = 0;
  for (auto left = writes; !left.empty();) {
    const auto batch = left.first(NumRecordsOfSegment(left, segment_bytes));
    left = left.subspan(batch.size());
    if (!std::ranges::all_of(batch, CanBeWritten)) continue;
    const Status written = state_->WriteSegment(batch, hold);
    if (written) {
      num_written += batch.size();
      for (const TierWrite& write : batch) bytes_written += write.header.size() + write.payload.size();
    } else if (written.error().code != ErrorCode::kOutOfMemory) {
      state_->CountFailure(written.error());
      break;  // it would be no different with the rest, and take as long
    }
  }
  const State::Lock lock(state_->mutex);
  state_->stats.num_written += num_written;
  state_->stats.num_declined += writes.size() - num_written;
  state_->stats.bytes_written += bytes_written;
  return num_written;
}

size_t DiskTier::Write(std::span<const TierWrite> writes) {
  return Write(writes, nullptr);
}

DiskTier::Keeper::Keeper(DiskTier& tier) : tier_(tier), hold_(std::make_unique<SegmentHold>(tier.state_->mutex)) {}
DiskTier::Keeper::~Keeper() = default;

std::vector<bool> DiskTier::Keeper::Contains(std::span<const RecordKey> keys) {
  return tier_.Contains(keys, hold_.get());
}

size_t DiskTier::Keeper::Write(std::span<const TierWrite> writes) {
  return tier_.Write(writes, hold_.get());
}

void DiskTier::Erase(std::span<const RecordKey> keys) {
  bool has_useless = false;
  {
    const State::Lock lock(state_->mutex);
    for (const RecordKey& key : keys) {
      const auto place = state_->index.Find(key);
      state_->index.Erase(key);
      has_useless |= place && place->segment->num_live == 0;
    }
  }
  if (!has_useless) return;
  if (auto folder_lock = FolderLock::Take(state_->folder)) state_->MakeRoom(0, *folder_lock);
}

TierStats DiskTier::stats() const {
  const State::Lock lock(state_->mutex);
  TierStats stats = state_->stats;
  stats.num_records = state_->index.num_records();
  stats.bytes = state_->index.bytes() + state_->SessionBytes(lock);
  stats.limit_bytes = state_->options.limit_bytes;
  return stats;
}

}  // namespace kvist
