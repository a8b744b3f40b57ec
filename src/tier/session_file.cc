// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "tier/session_file.h"

#include <algorithm>

#include "tier/bytes.h"

namespace kvist {
namespace {

constexpr std::string_view kSessionMagic = "KVISTSES";
constexpr uint32_t kSessionVersion = 1;
constexpr std::string_view kSessionExtension = ".session";
constexpr size_t kMaxNameBytes = 100;
constexpr uint64_t kSessionFixedBytes = 48;  // before segments and keys
constexpr uint64_t kSegmentBytes = 16, kKeyBytes = 20;

uint64_t TableBytes(uint64_t num_segments, uint64_t num_keys) {
  return kSessionFixedBytes + num_segments * kSegmentBytes + num_keys * kKeyBytes + kChecksumBytes;
}

bool IsOfNames(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
}

// The bytes up to where the table's numbers say that it ends.
Result<std::vector<std::byte>> ReadSessionTableBytes(const File& file, uint64_t file_bytes) {
  std::vector<std::byte> bytes(std::min(file_bytes, kSessionFixedBytes));
  KVIST_TRY_VOID(ReadAt(file, 0, bytes));
  if (!BeginsWith(bytes, kSessionMagic.substr(0, bytes.size()))) return Fail(ErrorCode::kNotFound, "it is no session");
  if (bytes.size() < kSessionFixedBytes) return Corrupt("it ends in its table");
  ByteReader reader(std::span<const std::byte>(bytes).subspan(kSessionMagic.size()));
  const uint32_t version = reader.Number<uint32_t>();
  if (version > kSessionVersion)
    return Fail(ErrorCode::kUnsupported, "it has format version " + std::to_string(version));
  const uint32_t num_segments = reader.Number<uint32_t>(), num_keys = reader.Number<uint32_t>();
  const uint64_t table_bytes = TableBytes(num_segments, num_keys);
  if (version == 0 || num_keys > kMaxSessionKeys || num_segments > num_keys || table_bytes > file_bytes) {
    return Corrupt("its table is damaged");
  }
  bytes.resize(table_bytes);
  KVIST_TRY_VOID(ReadAt(file, kSessionFixedBytes, std::span(bytes).subspan(kSessionFixedBytes)));
  return bytes;
}

}  // namespace

bool IsSessionName(std::string_view name) {
  return !name.empty() && name.size() <= kMaxNameBytes && name.front() != '.' && std::ranges::all_of(name, IsOfNames);
}

std::string SessionFileName(const std::string& name) {
  return name + std::string(kSessionExtension);
}

std::optional<std::string> ParseSessionFileName(std::string_view file_name) {
  if (!file_name.ends_with(kSessionExtension)) return std::nullopt;
  file_name.remove_suffix(kSessionExtension.size());
  if (!IsSessionName(file_name)) return std::nullopt;
  return std::string(file_name);
}

std::vector<std::byte> EncodeSessionTable(const SessionTable& table) {
  ByteWriter writer;
  writer.Text(kSessionMagic);
  writer.Number(kSessionVersion);
  writer.Number(uint32_t(table.segments.size()));
  writer.Number(uint32_t(table.keys.size()));
  writer.Number(uint32_t{0});
  writer.Number(table.manifest_bytes);
  writer.Write(table.manifest_checksum);
  for (const FileId& id : table.segments) writer.Number(id.low), writer.Number(id.high);
  for (const SessionTable::Key& key : table.keys) {
    writer.Write(key.key);
    writer.Number(key.segment);
  }
  return std::move(writer).Seal();
}

Result<SessionTable> ReadSessionTable(const File& file) {
  KVIST_TRY(const struct stat stat, StatOf(file));
  KVIST_TRY(const std::vector<std::byte> bytes, ReadSessionTableBytes(file, uint64_t(stat.st_size)));
  if (!IsSealed(bytes)) return Corrupt("its table is damaged");
  ByteReader reader{std::span(bytes).subspan(kSessionMagic.size() + sizeof(uint32_t))};
  SessionTable table;
  table.segments.resize(reader.Number<uint32_t>());
  table.keys.resize(reader.Number<uint32_t>());
  reader.Number<uint32_t>();
  table.manifest_bytes = reader.Number<uint64_t>();
  table.manifest_checksum = reader.ReadChecksum();
  for (FileId& id : table.segments) {
    id.low = reader.Number<uint64_t>();
    id.high = reader.Number<uint64_t>();
  }
  for (SessionTable::Key& key : table.keys) {
    key = {reader.ReadKey(), reader.Number<uint32_t>()};
    if (key.segment >= table.segments.size()) return Corrupt("its table is damaged");
  }
  if (table.manifest_bytes > kMaxManifestBytes || bytes.size() + table.manifest_bytes != uint64_t(stat.st_size)) {
    return Corrupt("it has another size than it was written with");
  }
  return table;
}

Result<std::vector<std::byte>> ReadManifest(const File& file) {
  KVIST_TRY(const SessionTable table, ReadSessionTable(file));
  std::vector<std::byte> manifest(table.manifest_bytes);
  KVIST_TRY_VOID(ReadAt(file, TableBytes(table.segments.size(), table.keys.size()), manifest));
  if (ChecksumOf(manifest) != table.manifest_checksum) return Corrupt("its manifest is damaged");
  return manifest;
}

}  // namespace kvist
