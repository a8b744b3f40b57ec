// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kvist/error.h"
#include "tier/file.h"
#include "tier/folder.h"
#include "tier/tier.h"

namespace kvist {

// A segment file as docs/formats.md has it: a table, the records' headers, their payloads. Never changes once it is in
// its place.
struct SegmentRecord {
  RecordKey key;
  uint64_t header_offset = 0, header_bytes = 0;
  uint64_t payload_offset = 0, payload_bytes = 0;
};
struct SegmentTable {
  uint64_t file_bytes = 0;
  uint64_t order = 0;  // of two segments with a record of the same key, that of the higher order has the valid one
  int64_t written_at_s = 0;
  std::vector<SegmentRecord> records;
};

inline constexpr size_t kPayloadAlignment = 4096;
inline constexpr uint64_t kMaxHeaderBytes = uint64_t{16} << 20;  // of a record

std::string SegmentFileName(const FileId& id);
std::optional<FileId> ParseSegmentFileName(std::string_view name);

// How many of the writes, from the front, go into a segment of about so many bytes; at least one.
size_t NumRecordsOfSegment(std::span<const TierWrite> writes, uint64_t segment_bytes);
SegmentTable LayOutSegment(std::span<const TierWrite> writes);
// Headers and payloads. The table comes last: a file without it is none.
Status WriteRecords(const File& file, const SegmentTable& table, std::span<const TierWrite> writes);
Status WriteTable(const File& file, const SegmentTable& table);

// kNotFound for a file that is no segment of ours; kCorrupt for a damaged or truncated one; kUnsupported for one of a
// newer format version; kIo. Every record of what it returns lies within the file.
Result<SegmentTable> ReadTable(const File& file);

}  // namespace kvist
