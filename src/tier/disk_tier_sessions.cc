// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <unordered_map>

#include "tier/disk_tier_state.h"

namespace kvist {
namespace {

// Another process may evict a record just before it is kept; then the next newest is looked for.
constexpr int kMaxTries = 3;

Status CheckName(const std::string& name) {
  if (IsSessionName(name)) return {};
  return Fail(ErrorCode::kInvalidArgument,
              "a session's name has 1 to 100 letters, digits, - _ . and doesn't begin with a dot");
}

std::unexpected<Error> NoSession(const std::string& name) {
  return Fail(ErrorCode::kNotFound, "there is no session " + name);
}

std::unexpected<Error> OfSession(const std::string& name, Error error) {
  if (error.code == ErrorCode::kNotFound) return NoSession(name);
  error.message = "session " + name + ": " + error.message;
  return std::unexpected(std::move(error));
}

std::unexpected<Error> NoRecord(const RecordKey& key) {
  return Fail(ErrorCode::kNotFound, "the record " + RecordKeyName(key) + " is not there any more");
}

// Where the records are now, the segments held.
Result<SessionTable> FindRecords(const SegmentIndex& index, std::span<const RecordKey> keys, SegmentHold& hold,
                                 const std::unique_lock<std::mutex>& lock) {
  SessionTable table;
  std::unordered_map<const Segment*, uint32_t> segment_to_index;
  for (const RecordKey& key : keys) {
    const auto place = index.Find(key);
    if (!place) return NoRecord(key);
    const auto [known, is_new] = segment_to_index.try_emplace(place->segment.get(), uint32_t(table.segments.size()));
    if (is_new) {
      table.segments.push_back(place->segment->id);
      hold.Add(place->segment, lock);
    }
    table.keys.push_back({key, known->second});
  }
  return table;
}

}  // namespace

uint64_t DiskTier::State::SessionBytes(const Lock&) const {
  uint64_t bytes = 0;
  for (const auto& [name, session] : sessions) bytes += DiskBytes(session->file_bytes);
  return bytes;
}

uint64_t DiskTier::State::NeededBytes(const KnownSession& session, const Lock&) const {
  uint64_t bytes = DiskBytes(session.file_bytes);
  for (const FileId& id : session.table.segments) {
    if (const auto segment = index.Find(id)) bytes += segment->bytes;
  }
  return bytes;
}

Status DiskTier::State::SyncSegments(std::span<const std::shared_ptr<Segment>> segments) {
  bool has_new = false;
  for (const auto& segment : segments) {
    const auto file = OpenToRead(folder.segments, SegmentFileName(segment->id));
    if (!file) {
      NoteFailure(segment, file.error());
      return std::unexpected(file.error());
    }
    Touch(*segment);  // the other processes had better evict something else
    {
      const Lock lock(mutex);
      if (segment->is_synced) continue;
    }
    has_new = true;
    if (const Status synced = Sync(*file); !synced) {
      // The system forgets that it failed: the next call would seem to go well.
      NoteFailure(segment, {ErrorCode::kCorrupt, synced.error().message});
      return synced;
    }
  }
  if (!has_new) return {};
  KVIST_TRY_VOID(Sync(folder.segments));
  const Lock lock(mutex);
  for (const auto& segment : segments) segment->is_synced = true;
  return {};
}

Status DiskTier::State::CheckFit(const std::string& name, const KnownSession& session, const Lock& lock) const {
  std::set<FileId> needed(session.table.segments.begin(), session.table.segments.end());
  uint64_t bytes = DiskBytes(session.file_bytes), largest_bytes = NeededBytes(session, lock);
  std::string largest = name;
  for (const auto& [other_name, other] : sessions) {
    if (other_name == name) continue;
    bytes += DiskBytes(other->file_bytes);
    needed.insert(other->table.segments.begin(), other->table.segments.end());
    if (NeededBytes(*other, lock) <= largest_bytes) continue;
    largest_bytes = NeededBytes(*other, lock);
    largest = other_name;
  }
  for (const FileId& id : needed) {
    if (const auto segment = index.Find(id)) bytes += segment->bytes;
  }
  if (bytes <= options.limit_bytes) return {};
  return Fail(ErrorCode::kOutOfMemory, "all sessions together would take " + std::to_string(bytes) + " of " +
                                           std::to_string(options.limit_bytes) + " bytes; the largest is " + largest +
                                           " with " + std::to_string(largest_bytes) +
                                           ": remove one or give a higher limit");
}

Status DiskTier::State::CheckPlace(const std::string& name) const {
  struct stat stat;
  if (fstatat(folder.sessions.descriptor(), SessionFileName(name).c_str(), &stat, AT_SYMLINK_NOFOLLOW) != 0) return {};
  const auto table = [&]() -> Result<SessionTable> {
    KVIST_TRY(const File file, OpenToRead(folder.sessions, SessionFileName(name)));
    return ReadSessionTable(file);
  }();
  if (table || table.error().code == ErrorCode::kCorrupt) return {};
  if (table.error().code != ErrorCode::kNotFound) return OfSession(name, table.error());
  return Fail(ErrorCode::kIo, "something that is no session has the name " + SessionFileName(name));
}

Status DiskTier::State::CheckReplaces(const std::string& name, const std::optional<Checksum>& replaces,
                                      const Lock&) const {
  const auto stored = sessions.find(name);
  if (stored == sessions.end() || stored->second->is_damaged) return {};
  if (replaces == stored->second->table.manifest_checksum) return {};
  return Fail(ErrorCode::kFailedPrecondition,
              "session " + name +
                  " was saved by somebody else since it was last resumed or saved here; resume it again, or save under "
                  "another name");
}

Status DiskTier::State::TrySaveSession(const std::string& name, std::span<const std::byte> manifest,
                                       std::span<const RecordKey> keys, const std::optional<Checksum>* replaces) {
  KnownSession session;
  SegmentHold hold(mutex);
  {
    const Lock lock(mutex);
    KVIST_TRY(session.table, FindRecords(index, keys, hold, lock));
  }
  KVIST_TRY_VOID(SyncSegments(hold.segments()));
  session.table.manifest_bytes = manifest.size();
  session.table.manifest_checksum = ChecksumOf(manifest);
  const std::vector<std::byte> table = EncodeSessionTable(session.table);
  session.file_bytes = table.size() + manifest.size();
  KVIST_TRY(TempFile file, [&]() -> Result<TempFile> {
    KVIST_TRY(FolderLock folder_lock, FolderLock::Take(folder));
    Refresh(true);
    {
      const Lock lock(mutex);
      KVIST_TRY_VOID(CheckFit(name, session, lock));
    }
    return MakeTempFile(session.file_bytes, folder_lock);
  }());
  KVIST_TRY_VOID(WriteAt(file.file(), 0, table));
  KVIST_TRY_VOID(WriteAt(file.file(), table.size(), manifest));
  KVIST_TRY_VOID(Sync(file.file()));
  {
    KVIST_TRY(FolderLock folder_lock, FolderLock::Take(folder));
    Refresh(true);
    KVIST_TRY_VOID(CheckPlace(name));
    if (replaces != nullptr) {
      const Lock lock(mutex);
      KVIST_TRY_VOID(CheckReplaces(name, *replaces, lock));
    }
    for (const SessionTable::Key& key : session.table.keys) {
      const FileId& id = session.table.segments[key.segment];
      if (!StatOf(folder.segments, SegmentFileName(id))) return NoRecord(key.key);
    }
    KVIST_TRY_VOID(Change(
        folder_lock, [&]() -> Status { return file.MoveTo(folder.sessions, SessionFileName(name), folder_lock); }));
    const Lock lock(mutex);
    known.reset();  // the session is learned by looking, as others learn it
  }
  return Sync(folder.sessions);
}

Status DiskTier::SaveSession(const std::string& name, std::span<const std::byte> manifest,
                             std::span<const RecordKey> keys, const std::optional<Checksum>* replaces) {
  KVIST_TRY_VOID(CheckName(name));
  if (manifest.size() > kMaxManifestBytes || keys.size() > kMaxSessionKeys) {
    return Fail(ErrorCode::kInvalidArgument, "a session has a manifest of at most 64 MiB and at most 2^20 records");
  }
  for (int num_tries = 1;; ++num_tries) {
    const Status saved = state_->TrySaveSession(name, manifest, keys, replaces);
    if (saved || saved.error().code != ErrorCode::kNotFound || num_tries == kMaxTries) {
      if (!saved) state_->CountFailure(saved.error());
      return saved;
    }
    state_->RefreshUnlocked();
  }
}

Result<std::vector<std::byte>> DiskTier::ReadSession(const std::string& name) {
  KVIST_TRY_VOID(CheckName(name));
  const auto file = OpenToRead(state_->folder.sessions, SessionFileName(name));
  auto manifest = file ? ReadManifest(*file) : std::unexpected(file.error());
  if (!manifest) return OfSession(name, std::move(manifest).error());
  return manifest;
}

Status DiskTier::RemoveSession(const std::string& name) {
  KVIST_TRY_VOID(CheckName(name));
  State& state = *state_;
  KVIST_TRY(FolderLock folder_lock, FolderLock::Take(state.folder));
  if (!StatOf(state.folder.sessions, SessionFileName(name))) return NoSession(name);
  if (const Status is_ours = state.CheckPlace(name); !is_ours) return OfSession(name, is_ours.error());
  KVIST_TRY_VOID(state.Change(folder_lock, [&]() -> Status {
    if (unlinkat(state.folder.sessions.descriptor(), SessionFileName(name).c_str(), 0) == 0) return {};
    return SystemFailure("can't remove the session " + name + " from", state.folder.sessions);
  }));
  {
    const State::Lock lock(state.mutex);
    state.known.reset();
  }
  return Sync(state.folder.sessions);
}

std::vector<StoredSession> DiskTier::ListSessions() {
  state_->RefreshUnlocked();
  const State::Lock lock(state_->mutex);
  std::vector<StoredSession> listed;
  for (const auto& [name, session] : state_->sessions) {
    listed.push_back({name, state_->NeededBytes(*session, lock), session->modified_at_ns / 1'000'000'000});
  }
  return listed;
}

}  // namespace kvist
