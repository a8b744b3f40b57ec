// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include <algorithm>
#include <unordered_set>

#include "tier/disk_tier_state.h"

namespace kvist {
namespace {

using Fault = std::function<void(const std::string& file, const std::string& what)>;

Result<std::vector<std::byte>> ReadBytes(const File& file, uint64_t offset, uint64_t num_bytes) {
  std::vector<std::byte> bytes(num_bytes);
  KVIST_TRY_VOID(ReadAt(file, offset, bytes));
  return bytes;
}

Result<RecordHeader> ReadHeader(const File& file, const SegmentRecord& record) {
  KVIST_TRY(const std::vector<std::byte> bytes, ReadBytes(file, record.header_offset, record.header_bytes));
  return DecodeHeader(bytes);
}

Status VerifyRecord(const File& file, const SegmentRecord& record) {
  KVIST_TRY(const RecordHeader header, ReadHeader(file, record));
  KVIST_TRY(const std::vector<std::byte> payload, ReadBytes(file, record.payload_offset, record.payload_bytes));
  return VerifyParts(header, payload);
}

bool IsOfOthers(const Error& error) {
  return error.code == ErrorCode::kNotFound || error.code == ErrorCode::kUnsupported;
}

// The places in the segment's table of the records that are fine.
std::vector<uint32_t> VerifySegment(const File& folder, const std::string& name, const Fault& fault) {
  std::vector<uint32_t> fine;
  const auto file = OpenToRead(folder, name);
  const auto table = file ? ReadTable(*file) : std::unexpected(file.error());
  if (!table) {
    if (!IsOfOthers(table.error())) fault("segments/" + name, table.error().message);
    return fine;
  }
  for (uint32_t i = 0; i < table->records.size(); ++i) {
    const Status verified = VerifyRecord(*file, table->records[i]);
    if (verified) {
      fine.push_back(i);
    } else {
      fault("segments/" + name, "record " + RecordKeyName(table->records[i].key) + ": " + verified.error().message);
    }
  }
  return fine;
}

void VerifySession(const Folder& folder, const std::string& name, const Fault& fault) {
  const auto file = OpenToRead(folder.sessions, name);
  const auto manifest = file ? ReadManifest(*file) : std::unexpected(file.error());
  if (!manifest && IsOfOthers(manifest.error())) return;
  if (!manifest) fault("sessions/" + name, manifest.error().message);
  const auto table = file ? ReadSessionTable(*file) : std::unexpected(file.error());
  if (!table) return;
  for (const FileId& id : table->segments) {
    const std::string segment = SegmentFileName(id);
    if (!StatOf(folder.segments, segment)) fault("sessions/" + name, "it needs " + segment + ", which is gone");
  }
}

}  // namespace

uint64_t DiskTier::Verify(const Fault& fault) {
  state_->RefreshUnlocked();
  uint64_t num_fine = 0;
  for (const std::string& name : ListNames(state_->folder.segments).value_or(std::vector<std::string>())) {
    const auto id = ParseSegmentFileName(name);
    if (!id) continue;
    const std::vector<uint32_t> fine = VerifySegment(state_->folder.segments, name, fault);
    const State::Lock lock(state_->mutex);
    // Those that were replaced or erased are not counted.
    num_fine += uint64_t(std::ranges::count_if(fine, [&](uint32_t i) {
      const auto segment = state_->index.Find(*id);
      if (!segment || i >= segment->table.records.size()) return false;
      const auto place = state_->index.Find(segment->table.records[i].key);
      return place && place->segment == segment && place->record == i;
    }));
  }
  for (const std::string& name : ListNames(state_->folder.sessions).value_or(std::vector<std::string>())) {
    if (ParseSessionFileName(name)) VerifySession(state_->folder, name, fault);
  }
  return num_fine;
}

void DiskTier::ForEach(const std::function<void(const Stored&)>& visit) {
  state_->RefreshUnlocked();
  std::vector<std::shared_ptr<Segment>> segments;
  std::unordered_set<RecordKey, RecordKeyHash> keys_of_sessions;
  {
    const State::Lock lock(state_->mutex);
    for (const auto& [id, segment] : state_->index.segments()) segments.push_back(segment);
    for (const auto& [name, session] : state_->sessions) {
      for (const SessionTable::Key& key : session->table.keys) keys_of_sessions.insert(key.key);
    }
  }
  std::ranges::sort(segments, {}, [](const auto& segment) { return segment->table.order; });
  for (const auto& segment : segments) {
    const auto file = OpenToRead(state_->folder.segments, SegmentFileName(segment->id));
    if (!file) continue;
    for (uint32_t i = 0; i < segment->table.records.size(); ++i) {
      const SegmentRecord& record = segment->table.records[i];
      Stored stored;
      stored.key = record.key;
      stored.bytes = record.header_bytes + record.payload_bytes;
      {
        const State::Lock lock(state_->mutex);
        const auto place = state_->index.Find(record.key);
        if (!place || place->segment != segment || place->record != i) continue;
        stored.used_at_s = segment->used_at_ns / kNanosecondsPerSecond;
        stored.num_hits = segment->num_hits[i];
      }
      stored.written_at_s = segment->table.written_at_s;
      stored.is_of_session = keys_of_sessions.contains(record.key);
      auto header = ReadHeader(*file, record);
      if (!header) continue;
      stored.header = *std::move(header);
      visit(stored);
    }
  }
}

}  // namespace kvist
