// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "tier/disk_tier_state.h"

namespace kvist {
namespace {

// Files that are held take their space all the same: nothing is gained by evicting them early.
int64_t EvictionTime(const Segment& segment) {
  return segment.used_at_ns - (segment.held_file.expired() ? segment.depth_ns : 0);
}

// Orders a heap so that the segment to be evicted first is at its front.
bool IsEvictedLater(const Segment* a, const Segment* b) {
  return EvictionTime(*a) > EvictionTime(*b);
}

// Whether another process used it since we last looked; then it counts as used at that time.
bool WasUsedByOthers(Segment& segment, const File& folder) {
  const auto stat = StatOf(folder, SegmentFileName(segment.id));
  if (!stat || ModifiedAt(*stat) == segment.modified_at_ns) return false;
  segment.modified_at_ns = ModifiedAt(*stat);
  const int64_t used_at_ns = std::min(segment.modified_at_ns, NowNanoseconds());
  if (used_at_ns <= segment.used_at_ns) return false;
  segment.used_at_ns = used_at_ns;
  return true;
}

}  // namespace

void DiskTier::State::CountFailure(const Error& error) {
  if (error.code != ErrorCode::kIo) return;
  const Lock lock(mutex);
  ++stats.num_failures;
  stats.last_failure = error.message;
}

Status DiskTier::State::WriteSegment(std::span<const TierWrite> writes, SegmentHold* hold) {
  SegmentTable table = LayOutSegment(writes);
  KVIST_TRY(TempFile file, [&]() -> Result<TempFile> {
    KVIST_TRY(FolderLock folder_lock, FolderLock::Take(folder));
    return MakeTempFile(table.file_bytes, folder_lock);
  }());
  KVIST_TRY_VOID(WriteRecords(file.file(), table, writes));
  KVIST_TRY(FolderLock folder_lock, FolderLock::Take(folder));
  return Change(folder_lock, [&]() -> Status {
    table.order = folder_lock.num_changes();
    KVIST_TRY_VOID(WriteTable(file.file(), table));
    const int64_t now_ns = NowNanoseconds();
    SetModifiedAt(file.file(), now_ns);
    KVIST_TRY_VOID(file.MoveTo(folder.segments, SegmentFileName(file.id()), folder_lock));
    const auto segment =
        std::make_shared<Segment>(file.id(), table.file_bytes, std::move(table), PositionOf(writes.front().header));
    segment->used_at_ns = segment->modified_at_ns = now_ns;
    const Lock lock(mutex);
    index.Add(segment);
    if (hold != nullptr) hold->Add(index.Find(file.id()), lock);  // others may have found it before
    return {};
  });
}

Result<TempFile> DiskTier::State::MakeTempFile(uint64_t bytes, FolderLock& folder_lock) {
  if (!MakeRoom(DiskBytes(bytes), folder_lock)) {
    return Fail(ErrorCode::kOutOfMemory,
                "there is no room for " + std::to_string(bytes) + " bytes: the rest of the limit is kept for sessions");
  }
  return TempFile::Make(folder, bytes, folder_lock);
}

bool DiskTier::State::MakeRoom(uint64_t bytes, FolderLock& folder_lock) {
  Refresh(true);
  const uint64_t wanted_bytes = bytes + TidyTempFiles(folder, folder_lock);
  std::vector<FileId> victims;
  bool fits;
  {
    const Lock lock(mutex);
    fits = ChooseVictims(wanted_bytes, victims, lock);
  }
  const Status removed = RemoveSegments(victims, folder_lock);
  if (!removed) CountFailure(removed.error());
  return removed && fits;
}

std::set<FileId> DiskTier::State::Pinned(const Lock&) const {
  std::set<FileId> pinned;
  for (const auto& [name, session] : sessions) {
    pinned.insert(session->table.segments.begin(), session->table.segments.end());
  }
  for (const auto& [id, segment] : index.segments()) {
    if (segment->num_holds > 0) pinned.insert(id);
  }
  return pinned;
}

bool DiskTier::State::ChooseVictims(uint64_t wanted_bytes, std::vector<FileId>& victims, const Lock& lock) {
  const uint64_t other_bytes = wanted_bytes + SessionBytes(lock);
  const bool fits = other_bytes + index.bytes() <= options.limit_bytes;
  if (!are_sessions_known) return fits;
  if (fits && index.useless().empty()) return true;
  const std::set<FileId> pinned = Pinned(lock);
  std::vector<Segment*> evictable;
  uint64_t kept_bytes = other_bytes;
  for (const auto& [id, segment] : index.segments()) {
    if (pinned.contains(id)) {
      kept_bytes += segment->bytes;
    } else if (segment->num_live > 0) {
      evictable.push_back(segment.get());
    }
  }
  for (const FileId& id : std::set(index.useless())) {
    if (!pinned.contains(id)) EvictFromIndex(id, victims, lock);
  }
  if (kept_bytes > options.limit_bytes) return false;
  std::ranges::make_heap(evictable, IsEvictedLater);
  while (other_bytes + index.bytes() > options.limit_bytes) {
    std::ranges::pop_heap(evictable, IsEvictedLater);
    if (WasUsedByOthers(*evictable.back(), folder.segments)) {
      std::ranges::push_heap(evictable, IsEvictedLater);
      continue;
    }
    EvictFromIndex(evictable.back()->id, victims, lock);
    evictable.pop_back();
  }
  return true;
}

void DiskTier::State::EvictFromIndex(FileId id, std::vector<FileId>& victims, const Lock&) {
  stats.num_evicted += index.Find(id)->num_live;
  index.Remove(id);
  victims.push_back(id);
}

Status DiskTier::State::RemoveSegments(std::span<const FileId> ids, FolderLock& folder_lock) {
  if (ids.empty()) return {};
  return Change(folder_lock, [&]() -> Status {
    for (const FileId& id : ids) {
      const std::string name = SegmentFileName(id);
      if (unlinkat(folder.segments.descriptor(), name.c_str(), 0) != 0 && errno != ENOENT) {
        return SystemFailure("can't remove " + name + " from", folder.segments);
      }
    }
    return {};
  });
}

}  // namespace kvist
