// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include <algorithm>
#include <set>

#include "tier/disk_tier_state.h"

namespace kvist {
namespace {

// Looking is put off when it took so much more than a tenth of the time: misses go unnoticed a little longer then.
constexpr double kMaxLookingDebtS = 0.1;
constexpr double kShareForLooking = 0.1;

// Of the segment's first record in its sequence; 0 when its header can't be read.
uint64_t FirstPosition(const File& file, const SegmentTable& table) {
  if (table.records.empty()) return 0;
  std::vector<std::byte> header(table.records.front().header_bytes);
  return ReadAt(file, table.records.front().header_offset, header) ? PositionOf(header) : 0;
}

}  // namespace

bool KnownSession::IsOf(const struct stat& stat) const {
  return inode == stat.st_ino && file_bytes == uint64_t(stat.st_size) && modified_at_ns == ModifiedAt(stat);
}

bool DiskTier::State::IsCurrent() {
  const FolderStamp stamp = folder.Stamp();
  const Lock lock(mutex);
  return known == stamp;
}

void DiskTier::State::Refresh(bool is_still) {
  const std::lock_guard serial(looking);
  const FolderStamp stamp = folder.Stamp();
  {
    const Lock lock(mutex);
    if (known == stamp) return;
  }
  const bool has_looked = LookAtSegments();
  const bool has_looked_at_sessions = LookAtSessions();
  const Lock lock(mutex);
  are_sessions_known = has_looked_at_sessions;
  if (is_still && has_looked && has_looked_at_sessions) known = stamp;
}

void DiskTier::State::RefreshUnlocked() {
  const auto hold = HoldOffChanges(folder);
  Refresh(hold.has_value());
}

void DiskTier::State::RefreshAfterMiss() {
  if (IsCurrent()) return;
  const auto begin = Clock::now();
  {
    const std::lock_guard serial(looking);
    const double waited_s = std::chrono::duration<double>(begin - looked_at).count();
    looking_debt_s = std::max(0.0, looking_debt_s - kShareForLooking * std::max(0.0, waited_s));
    looked_at = std::max(looked_at, begin);
    if (looking_debt_s > kMaxLookingDebtS) return;
  }
  RefreshUnlocked();
  const std::lock_guard serial(looking);
  looking_debt_s += std::chrono::duration<double>(Clock::now() - begin).count();
}

bool DiskTier::State::LookAtSegments() {
  const auto names = ListNames(folder.segments);
  if (!names) return false;
  std::set<FileId> listed, unknown;
  for (const std::string& name : *names) {
    if (const auto id = ParseSegmentFileName(name)) listed.insert(*id);
  }
  std::vector<FileId> missing;
  {
    const Lock lock(mutex);
    for (const FileId& id : listed) {
      if (!index.Find(id)) unknown.insert(id);
    }
    for (const auto& [id, segment] : index.segments()) {
      if (!listed.contains(id)) missing.push_back(id);
    }
  }
  for (const FileId& id : unknown) LoadSegment(id);
  // One that we wrote after the listing is no more in it than one that is gone.
  std::erase_if(missing, [&](const FileId& id) { return StatOf(folder.segments, SegmentFileName(id)).has_value(); });
  const Lock lock(mutex);
  for (const FileId& id : missing) index.Remove(id);
  return true;
}

void DiskTier::State::LoadSegment(const FileId& id) {
  const std::string name = SegmentFileName(id);
  if (passed_over.contains(name)) return;
  const auto file = OpenToRead(folder.segments, name);
  if (!file) return CountFailure(file.error());
  auto table = ReadTable(*file);
  const auto stat = StatOf(*file);
  if (!stat) return CountFailure(stat.error());
  if (!table && table.error().code == ErrorCode::kIo) return CountFailure(table.error());
  if (!table && table.error().code != ErrorCode::kCorrupt) {
    passed_over.insert(name);
    return;
  }
  const uint64_t position = table ? FirstPosition(*file, *table) : 0;
  const auto segment =
      std::make_shared<Segment>(id, uint64_t(stat->st_size), table ? *std::move(table) : SegmentTable{}, position);
  const int64_t now_ns = NowNanoseconds();
  // A clock that went wrong must not keep it for ever.
  if (ModifiedAt(*stat) > now_ns) SetModifiedAt(*file, now_ns);
  segment->used_at_ns = segment->modified_at_ns = std::min(ModifiedAt(*stat), now_ns);
  const Lock lock(mutex);
  index.Add(segment);
}

bool DiskTier::State::LookAtSessions() {
  const auto names = ListNames(folder.sessions);
  if (!names) return false;
  bool are_all_read = true;
  std::map<std::string, std::shared_ptr<const KnownSession>> listed;
  for (const std::string& file_name : *names) {
    const auto name = ParseSessionFileName(file_name);
    const auto stat = name ? StatOf(folder.sessions, file_name) : std::nullopt;
    if (!stat) continue;
    std::shared_ptr<const KnownSession> session;
    {
      const Lock lock(mutex);
      if (const auto before = sessions.find(*name); before != sessions.end()) session = before->second;
    }
    if (!session || !session->IsOf(*stat)) {
      auto loaded = LoadSession(file_name, *stat);
      if (loaded) session = *std::move(loaded);
      if (!loaded) CountFailure(loaded.error());
      are_all_read &= loaded.has_value();
    }
    if (session) listed[*name] = session;
  }
  const Lock lock(mutex);
  sessions = std::move(listed);
  return are_all_read;
}

Result<std::shared_ptr<const KnownSession>> DiskTier::State::LoadSession(const std::string& file_name,
                                                                         const struct stat& stat) const {
  const auto file = OpenToRead(folder.sessions, file_name);
  auto table = file ? ReadSessionTable(*file) : std::unexpected(file.error());
  if (!table && table.error().code == ErrorCode::kIo) return std::unexpected(table.error());
  if (!table && table.error().code != ErrorCode::kCorrupt) return nullptr;
  auto session = std::make_shared<KnownSession>();
  session->inode = stat.st_ino;
  session->file_bytes = uint64_t(stat.st_size);
  session->modified_at_ns = ModifiedAt(stat);
  session->is_damaged = !table;
  if (table) session->table = *std::move(table);
  return session;
}

}  // namespace kvist
