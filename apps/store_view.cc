// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "store_view.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <utility>

#include "tier/segment.h"

namespace kvist {
namespace {

bool IsFolder(const std::string& path) {
  struct stat stat;
  return lstat(path.c_str(), &stat) == 0 && S_ISDIR(stat.st_mode);
}

Result<RecordHeader> ReadHeader(const File& file, const SegmentRecord& record) {
  std::vector<std::byte> bytes(record.header_bytes);
  KVIST_TRY_VOID(ReadAt(file, record.header_offset, bytes));
  return DecodeHeader(bytes);
}

// A part at a time: a table that is wrong by design must not make us take the memory it speaks of.
Status VerifyRecord(const File& file, const SegmentRecord& record) {
  KVIST_TRY(const RecordHeader header, ReadHeader(file, record));
  if (header.payload_bytes() != record.payload_bytes) return Fail(ErrorCode::kCorrupt, "its payload has another size");
  uint64_t offset = record.payload_offset;
  std::vector<std::byte> part;
  for (size_t i = 0; i < header.part_bytes.size(); ++i) {
    part.resize(header.part_bytes[i]);
    KVIST_TRY_VOID(ReadAt(file, offset, part));
    KVIST_TRY_VOID(VerifyPart(header, i, part));
    offset += part.size();
  }
  return {};
}

}  // namespace

bool IsStore(const std::string& path) {
  return IsFolder(path + "/segments") && IsFolder(path + "/sessions");
}

Status CheckStore(const std::string& path) {
  if (IsStore(path)) return {};
  for (const char* place : {"", "/segments", "/sessions"}) {
    std::error_code failure;
    const auto type = std::filesystem::status(path + place, failure).type();
    if (type == std::filesystem::file_type::none) {
      return Fail(ErrorCode::kIo, "the store at " + path + " can't be read: " + failure.message());
    }
    if (type == std::filesystem::file_type::not_found && *place == '\0') {
      return Fail(ErrorCode::kNotFound, "there is no store at " + path);
    }
  }
  return Fail(ErrorCode::kInvalidArgument,
              path + " is no store: the folder of a disk tier has the folders segments and sessions in it");
}

Result<StoreView> StoreView::Open(const std::string& path) {
  KVIST_TRY_VOID(CheckStore(path));
  StoreView view;
  view.path_ = path;
  KVIST_TRY(view.segments_, OpenFolder(path + "/segments"));
  KVIST_TRY(view.sessions_, OpenFolder(path + "/sessions"));
  KVIST_TRY(const std::vector<std::string> segment_names, ListNames(view.segments_));
  KVIST_TRY(const std::vector<std::string> session_names, ListNames(view.sessions_));
  view.LoadSegments(segment_names);
  view.LoadSessions(session_names);
  return view;
}

void StoreView::NoteFailure(const std::string& file, const Error& error) {
  // Not ours, or gone since.
  if (error.code == ErrorCode::kNotFound) return;
  if (error.code == ErrorCode::kUnsupported) {
    ++num_newer_files_;
  } else {
    damaged_[file] = error.message;
  }
}

void StoreView::LoadSegments(const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    const auto id = ParseSegmentFileName(name);
    const auto stat = id ? StatOf(segments_, name) : std::nullopt;
    if (!stat) continue;
    auto table = [&]() -> Result<SegmentTable> {
      KVIST_TRY(const File file, OpenToRead(segments_, name));
      return ReadTable(file);
    }();
    if (!table) NoteFailure("segments/" + name, table.error());
    const bool is_ours = table || table.error().code == ErrorCode::kCorrupt;
    if (!is_ours) continue;
    const auto segment =
        std::make_shared<Segment>(*id, uint64_t(stat->st_size), table ? *std::move(table) : SegmentTable{}, 0);
    segment->used_at_ns = ModifiedAt(*stat);
    index_.Add(segment);
  }
}

void StoreView::LoadSessions(const std::vector<std::string>& names) {
  for (const std::string& file_name : names) {
    const auto name = ParseSessionFileName(file_name);
    const auto stat = name ? StatOf(sessions_, file_name) : std::nullopt;
    if (!stat) continue;
    auto table = [&]() -> Result<SessionTable> {
      KVIST_TRY(const File file, OpenToRead(sessions_, file_name));
      return ReadSessionTable(file);
    }();
    if (!table) NoteFailure("sessions/" + file_name, table.error());
    if (!table && table.error().code == ErrorCode::kNotFound) continue;
    SessionFile& session = name_to_session_[*name];
    session.file_bytes = uint64_t(stat->st_size);
    session.saved_at_s = ModifiedAt(*stat) / kNanosecondsPerSecond;
    if (!table) continue;
    session.table = *std::move(table);
    for (const SessionTable::Key& key : session.table.keys) keys_of_sessions_.insert(key.key);
  }
}

uint64_t StoreView::bytes() const {
  uint64_t bytes = index_.bytes();
  for (const auto& [name, session] : name_to_session_) bytes += DiskBytes(session.file_bytes);
  return bytes;
}

std::vector<std::string> StoreView::SessionNames() const {
  std::vector<std::string> names;
  for (const auto& [name, session] : name_to_session_) names.push_back(name);
  return names;
}

Result<StoreView::Session> StoreView::ReadSession(const std::string& name) const {
  const auto known = name_to_session_.find(name);
  if (known == name_to_session_.end()) {
    return Fail(ErrorCode::kNotFound, "there is no session '" + name + "' in " + path_);
  }
  const SessionFile& file = known->second;
  Session session;
  session.name = name;
  session.saved_at_s = file.saved_at_s;
  session.bytes = DiskBytes(file.file_bytes);
  for (const FileId& id : file.table.segments) {
    if (const auto segment = index_.Find(id)) session.bytes += segment->bytes;
  }
  auto manifest = [&]() -> Result<SessionManifest> {
    KVIST_TRY(const File opened, OpenToRead(sessions_, SessionFileName(name)));
    KVIST_TRY(const std::vector<std::byte> bytes, ReadManifest(opened));
    return DecodeManifest(bytes);
  }();
  if (!manifest) {
    session.fault = manifest.error();
    return session;
  }
  session.manifest = *std::move(manifest);
  session.num_records = session.manifest.keys.size();
  session.num_missing_records =
      uint64_t(std::ranges::count_if(session.manifest.keys, [&](const RecordKey& key) { return !index_.Find(key); }));
  return session;
}

bool StoreView::IsFound(const Segment& segment, uint32_t record) const {
  const auto place = index_.Find(segment.table.records[record].key);
  return place && place->segment.get() == &segment && place->record == record;
}

void StoreView::ForEachRecord(const std::function<void(const DiskTier::Stored&)>& visit) const {
  std::vector<std::shared_ptr<Segment>> segments;
  for (const auto& [id, segment] : index_.segments()) segments.push_back(segment);
  std::ranges::sort(segments, {}, [](const auto& segment) { return segment->table.order; });
  for (const auto& segment : segments) {
    const auto file = OpenToRead(segments_, SegmentFileName(segment->id));
    if (!file) continue;
    for (uint32_t i = 0; i < segment->table.records.size(); ++i) {
      if (!IsFound(*segment, i)) continue;
      const SegmentRecord& record = segment->table.records[i];
      auto header = ReadHeader(*file, record);
      if (!header) continue;
      visit({.key = record.key,
             .header = *std::move(header),
             .bytes = record.header_bytes + record.payload_bytes,
             .written_at_s = segment->table.written_at_s,
             .used_at_s = segment->used_at_ns / kNanosecondsPerSecond,
             .is_of_session = keys_of_sessions_.contains(record.key)});
    }
  }
}

uint64_t StoreView::Verify(const std::function<void(const std::string& file, const std::string& what)>& fault,
                           const std::function<void(int64_t done, int64_t all)>& progress) const {
  for (const auto& [file, what] : damaged_) fault(file, what);
  uint64_t num_fine = 0;
  int64_t num_done = 0;
  for (const auto& [id, segment] : index_.segments()) {
    const std::string name = SegmentFileName(id);
    const auto file = OpenToRead(segments_, name);
    for (uint32_t i = 0; file && i < segment->table.records.size(); ++i) {
      // One that has been written again, as a damaged one is after it was read, is looked for by nobody.
      if (!IsFound(*segment, i)) continue;
      const Status verified = VerifyRecord(*file, segment->table.records[i]);
      if (verified) ++num_fine;
      if (verified) continue;
      fault("segments/" + name,
            "record " + RecordKeyName(segment->table.records[i].key) + ": " + verified.error().message);
    }
    progress(++num_done, std::ssize(index_.segments()));
  }
  for (const auto& [name, file] : name_to_session_) {
    const std::string file_name = "sessions/" + SessionFileName(name);
    const auto session = ReadSession(name);
    const bool is_damaged = session->fault && session->fault->code == ErrorCode::kCorrupt;
    if (is_damaged && !damaged_.contains(file_name)) fault(file_name, session->fault->message);
    if (session->num_missing_records > 0) {
      fault(file_name, std::to_string(session->num_missing_records) + " of its " +
                           std::to_string(session->num_records) + " records are gone");
    }
  }
  return num_fine;
}

}  // namespace kvist
