// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "tier/segment.h"

#include <algorithm>

#include "base/round_up.h"
#include "tier/bytes.h"

namespace kvist {
namespace {

constexpr std::string_view kSegmentMagic = "KVISTSEG";
constexpr uint32_t kSegmentVersion = 1;
constexpr std::string_view kSegmentExtension = ".seg";
constexpr uint64_t kSegmentFixedBytes = 40;  // before the records' entries
constexpr uint64_t kEntryBytes = 48;
constexpr uint64_t kMaxTableBytes = uint64_t{64} << 20;
constexpr size_t kFirstReadBytes = 4096;  // the whole table of most segments

uint64_t TableBytes(uint64_t num_records) {
  return kSegmentFixedBytes + num_records * kEntryBytes + kChecksumBytes;
}

// The bytes up to where the table's number of records says that it ends.
Result<std::vector<std::byte>> ReadSegmentTableBytes(const File& file, uint64_t file_bytes) {
  std::vector<std::byte> bytes(std::min<uint64_t>(file_bytes, kFirstReadBytes));
  KVIST_TRY_VOID(ReadAt(file, 0, bytes));
  if (!BeginsWith(bytes, kSegmentMagic.substr(0, bytes.size()))) return Fail(ErrorCode::kNotFound, "it is no segment");
  if (bytes.size() < TableBytes(0)) return Corrupt("it ends in its table");
  ByteReader reader(std::span<const std::byte>(bytes).subspan(kSegmentMagic.size()));
  const uint32_t version = reader.Number<uint32_t>();
  if (version > kSegmentVersion)
    return Fail(ErrorCode::kUnsupported, "it has format version " + std::to_string(version));
  const uint64_t table_bytes = TableBytes(reader.Number<uint32_t>());
  if (version == 0 || table_bytes > std::min(file_bytes, kMaxTableBytes)) return Corrupt("its table is damaged");
  const size_t num_read = bytes.size();
  bytes.resize(table_bytes);
  if (table_bytes > num_read) KVIST_TRY_VOID(ReadAt(file, num_read, std::span(bytes).subspan(num_read)));
  return bytes;
}

bool LiesWithin(uint64_t offset, uint64_t num_bytes, uint64_t file_bytes) {
  return offset <= file_bytes && num_bytes <= file_bytes - offset;
}

bool IsSound(const SegmentRecord& record, uint64_t file_bytes) {
  return LiesWithin(record.header_offset, record.header_bytes, file_bytes) && record.header_bytes <= kMaxHeaderBytes &&
         LiesWithin(record.payload_offset, record.payload_bytes, file_bytes);
}

SegmentRecord ReadRecord(ByteReader& reader) {
  SegmentRecord record{.key = reader.ReadKey()};
  record.header_offset = reader.Number<uint64_t>();
  record.header_bytes = reader.Number<uint64_t>();
  record.payload_offset = reader.Number<uint64_t>();
  record.payload_bytes = reader.Number<uint64_t>();
  return record;
}

}  // namespace

std::string SegmentFileName(const FileId& id) {
  return HexOf(id) + std::string(kSegmentExtension);
}

std::optional<FileId> ParseSegmentFileName(std::string_view name) {
  if (!name.ends_with(kSegmentExtension)) return std::nullopt;
  return ParseHex(name.substr(0, name.size() - kSegmentExtension.size()));
}

size_t NumRecordsOfSegment(std::span<const TierWrite> writes, uint64_t segment_bytes) {
  uint64_t bytes = TableBytes(0);
  for (size_t i = 0; i < writes.size(); ++i) {
    bytes += kEntryBytes + writes[i].header.size() + RoundUp(writes[i].payload.size(), kPayloadAlignment);
    if (i > 0 && (bytes > segment_bytes || TableBytes(i + 1) > kMaxTableBytes)) return i;
  }
  return writes.size();
}

SegmentTable LayOutSegment(std::span<const TierWrite> writes) {
  SegmentTable table;
  uint64_t end = TableBytes(writes.size());
  for (const TierWrite& write : writes) {
    table.records.push_back({.key = write.key, .header_offset = end, .header_bytes = write.header.size()});
    end += write.header.size();
  }
  for (size_t i = 0; i < writes.size(); ++i) {
    table.records[i].payload_offset = RoundUp(end, kPayloadAlignment);
    table.records[i].payload_bytes = writes[i].payload.size();
    end = table.records[i].payload_offset + writes[i].payload.size();
  }
  table.file_bytes = end;
  table.written_at_s = NowNanoseconds() / 1'000'000'000;
  return table;
}

Status WriteRecords(const File& file, const SegmentTable& table, std::span<const TierWrite> writes) {
  ByteWriter headers;
  for (size_t i = 0; i < writes.size(); ++i) {
    if (writes[i].complete_header) writes[i].complete_header();
    KVIST_TRY_VOID(WriteAt(file, table.records[i].payload_offset, writes[i].payload));
    headers.Bytes(writes[i].header);
  }
  return WriteAt(file, TableBytes(writes.size()), headers.bytes());
}

Status WriteTable(const File& file, const SegmentTable& table) {
  ByteWriter writer;
  writer.Text(kSegmentMagic);
  writer.Number(kSegmentVersion);
  writer.Number(uint32_t(table.records.size()));
  writer.Number(table.file_bytes);
  writer.Number(table.order);
  writer.Number(table.written_at_s);
  for (const SegmentRecord& record : table.records) {
    writer.Write(record.key);
    writer.Number(record.header_offset);
    writer.Number(record.header_bytes);
    writer.Number(record.payload_offset);
    writer.Number(record.payload_bytes);
  }
  return WriteAt(file, 0, std::move(writer).Seal());
}

Result<SegmentTable> ReadTable(const File& file) {
  KVIST_TRY(const struct stat stat, StatOf(file));
  KVIST_TRY(const std::vector<std::byte> bytes, ReadSegmentTableBytes(file, uint64_t(stat.st_size)));
  if (!IsSealed(bytes)) return Corrupt("its table is damaged");
  ByteReader reader{std::span(bytes).subspan(kSegmentMagic.size() + sizeof(uint32_t))};
  const uint32_t num_records = reader.Number<uint32_t>();
  SegmentTable table;
  table.file_bytes = reader.Number<uint64_t>();
  table.order = reader.Number<uint64_t>();
  table.written_at_s = reader.Number<int64_t>();
  if (table.file_bytes != uint64_t(stat.st_size)) return Corrupt("it has another size than it was written with");
  if (table.order > kMaxOrder) return Corrupt("its table is damaged");
  table.records.reserve(num_records);
  for (uint32_t i = 0; i < num_records; ++i) {
    table.records.push_back(ReadRecord(reader));
    if (!IsSound(table.records.back(), table.file_bytes)) return Corrupt("its table is damaged");
  }
  return table;
}

}  // namespace kvist
