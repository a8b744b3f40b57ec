// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "tier/disk_tier.h"
#include "tier/folder.h"
#include "tier/segment.h"
#include "tier/segment_index.h"
#include "tier/session_file.h"

namespace kvist {

// A session's file as this process last read it.
struct KnownSession {
  uint64_t inode = 0, file_bytes = 0;
  int64_t modified_at_ns = 0;
  SessionTable table;       // empty when it is damaged: what it needed is not known
  bool is_damaged = false;  // the table
  bool IsOf(const struct stat& stat) const;
};

// A record that is to be read, and where it is.
struct Wanted {
  TierRead* read = nullptr;
  SegmentIndex::Place place;
  uint64_t file_offset() const { return place.entry().payload_offset + read->payload_offset; }
};

// Keeps segments from being evicted by this process.
class SegmentHold {
 public:
  explicit SegmentHold(std::mutex& mutex) : mutex_(mutex) {}
  SegmentHold(const SegmentHold&) = delete;
  ~SegmentHold() {
    const std::lock_guard lock(mutex_);
    for (const auto& segment : segments_) --segment->num_holds;
  }
  void Add(const std::shared_ptr<Segment>& segment, const std::unique_lock<std::mutex>&) {
    ++segment->num_holds;
    segments_.push_back(segment);
  }
  std::span<const std::shared_ptr<Segment>> segments() const { return segments_; }

 private:
  std::mutex& mutex_;  // the tier's
  std::vector<std::shared_ptr<Segment>> segments_;
};

// What the calls of a disk tier share: the folder, what this process knows of it, and how both are changed.
// Locks are taken in the order FolderLock, looking, mutex. No file is read or written with the mutex held.
struct DiskTier::State {
  using Lock = std::unique_lock<std::mutex>;
  using Clock = std::chrono::steady_clock;

  State(Folder opened, const DiskTierOptions& given) : folder(std::move(opened)), options(given) {}

  // --- learning what is in the folder: disk_tier_look.cc ---

  // Looks at the folder if it changed since. is_still: nobody changes it meanwhile.
  void Refresh(bool is_still);
  void RefreshUnlocked();
  // As RefreshUnlocked, but takes no more than a tenth of the time, however many miss and others write.
  void RefreshAfterMiss();
  bool IsCurrent();

  // --- reading: disk_tier_read.cc ---

  // Reads what it can find of reads[which]; returns those of `which` that it couldn't.
  std::vector<size_t> ReadFound(std::span<TierRead> reads, std::span<const size_t> which);
  Result<File> OpenSegment(const Segment& segment) const;
  Result<std::shared_ptr<const HeldRecord>> HoldAt(const RecordKey& key, const SegmentIndex::Place& place);
  // Takes the segment's records from the index if the failure says that they can't be read any more.
  void NoteFailure(const std::shared_ptr<Segment>& segment, const Error& error);
  // A use of the segment: evicted later.
  void Touch(Segment& segment);

  // --- changing: disk_tier_change.cc ---

  Status WriteSegment(std::span<const TierWrite> writes, SegmentHold* hold);  // null: no hold
  // Evicts until so many bytes more are within the limit. False when that can't be.
  bool MakeRoom(uint64_t bytes, FolderLock& folder_lock);
  Result<TempFile> MakeTempFile(uint64_t bytes, FolderLock& folder_lock);
  // Does `act`, a change to the folder whose effect on what we know it brings about itself.
  template <class Act>
  Status Change(FolderLock& folder_lock, Act act);
  void CountFailure(const Error& error);

  // --- sessions: disk_tier_sessions.cc ---

  Status TrySaveSession(const std::string& name, std::span<const std::byte> manifest, std::span<const RecordKey> keys,
                        const std::optional<Checksum>* replaces);
  // Whether that is what is stored under the name, or nothing that could be lost.
  Status CheckReplaces(const std::string& name, const std::optional<Checksum>& replaces, const Lock&) const;
  // Whether a session of that name may be made or removed: not when something that isn't ours has its place.
  Status CheckPlace(const std::string& name) const;
  uint64_t SessionBytes(const Lock&) const;                              // of the files themselves
  uint64_t NeededBytes(const KnownSession& session, const Lock&) const;  // and of the segments

  Folder folder;
  const DiskTierOptions options;

  std::mutex looking;         // one thread at a time
  double looking_debt_s = 0;  // what looking took, less a tenth of the time since
  Clock::time_point looked_at = Clock::now();
  std::unordered_set<std::string> passed_over;  // files that are not ours to read

  mutable std::mutex mutex;          // guards what follows, and what changes in segments
  std::optional<FolderStamp> known;  // of the folder when we last looked and it was still
  SegmentIndex index;
  std::map<std::string, std::shared_ptr<const KnownSession>> sessions;
  bool are_sessions_known = false;  // not while one can't be read: then nothing may be evicted
  TierStats stats;                  // but what is held now

 private:
  // False when it could not be looked at as a whole.
  bool LookAtSegments();
  void LoadSegment(const FileId& id);
  bool LookAtSessions();
  // Null when it is not ours to read; kIo.
  Result<std::shared_ptr<const KnownSession>> LoadSession(const std::string& file_name, const struct stat& stat) const;

  void ReadSegment(std::span<const Wanted> wanted);
  Result<std::shared_ptr<const File>> OpenToHold(Segment& segment);

  std::set<FileId> Pinned(const Lock&) const;
  bool ChooseVictims(uint64_t wanted_bytes, std::vector<FileId>& victims, const Lock&);
  void EvictFromIndex(FileId id, std::vector<FileId>& victims, const Lock&);
  Status RemoveSegments(std::span<const FileId> ids, FolderLock& folder_lock);

  Status SyncSegments(std::span<const std::shared_ptr<Segment>> segments);
  Status CheckFit(const std::string& name, const KnownSession& session, const Lock&) const;
};

template <class Act>
Status DiskTier::State::Change(FolderLock& folder_lock, Act act) {
  const bool was_current = IsCurrent();
  const uint64_t max_order = [&] {
    const Lock lock(mutex);
    return index.max_order();
  }();
  Status changed = folder_lock.CountChange(max_order);
  if (changed) changed = act();
  const auto stamp = folder.Stamp();
  const Lock lock(mutex);
  if (!changed) known.reset();
  if (changed && was_current) known = stamp;
  return changed;
}

}  // namespace kvist
