// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "tier/record.h"

#include <xxhash.h>

#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <numeric>

#include "tier/bytes.h"

namespace kvist {
namespace {

constexpr std::string_view kRecordMagic = "KVISTREC";
constexpr uint32_t kRecordVersion = 1;
constexpr uint64_t kRecordFixedBytes = 80;  // before model, form, tokens and parts
constexpr uint64_t kBytesPerPart = sizeof(uint64_t) + kChecksumBytes;
constexpr uint32_t kIsSealed = 1;  // the only flag

uint64_t EncodedBytes(uint64_t model_bytes, uint64_t form_bytes, uint64_t num_tokens, uint64_t num_parts) {
  return kRecordFixedBytes + model_bytes + form_bytes + num_tokens * sizeof(Token) + num_parts * kBytesPerPart +
         kChecksumBytes;
}

std::string AsText(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// A sum that wraps round would make readers of the payload go astray.
bool DoBytesAddUp(std::span<const uint64_t> part_bytes) {
  uint64_t sum = 0;
  for (const uint64_t bytes : part_bytes) {
    if (__builtin_add_overflow(sum, bytes, &sum)) return false;
  }
  return true;
}

std::unexpected<Error> CorruptRecord(const char* what) {
  return Fail(ErrorCode::kCorrupt, std::string("a record's header ") + what);
}

// What stands before the version's own fields, and the checksum.
Status CheckFrame(std::span<const std::byte> bytes) {
  if (!BeginsWith(bytes, kRecordMagic)) return CorruptRecord("does not begin like one");
  ByteReader reader(bytes.subspan(kRecordMagic.size()));
  const uint32_t version = reader.Number<uint32_t>();
  if (version > kRecordVersion) {
    return Fail(ErrorCode::kUnsupported, "a record's header has format version " + std::to_string(version) +
                                             "; this build knows up to " + std::to_string(kRecordVersion));
  }
  if (version == 0 || reader.Number<uint32_t>() != bytes.size()) return CorruptRecord("has another length");
  if (bytes.size() < EncodedBytes(0, 0, 0, 0) || !IsSealed(bytes)) return CorruptRecord("has another checksum");
  return {};
}

}  // namespace

std::string RecordKeyName(const RecordKey& key) {
  char name[33];
  std::snprintf(name, sizeof name, "%016" PRIx64 "%016" PRIx64, key.high, key.low);
  return name;
}

Checksum ChecksumOf(std::span<const std::byte> bytes) {
  const XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  return {hash.low64, hash.high64};
}

uint64_t RecordHeader::payload_bytes() const {
  return std::accumulate(part_bytes.begin(), part_bytes.end(), uint64_t{0});
}

void ChecksumParts(RecordHeader& header, std::span<const std::byte> payload) {
  KVIST_CHECK(payload.size() == header.payload_bytes());
  header.part_checksums.clear();
  for (const uint64_t bytes : header.part_bytes) {
    header.part_checksums.push_back(ChecksumOf(payload.first(bytes)));
    payload = payload.subspan(bytes);
  }
}

Status VerifyPart(const RecordHeader& header, size_t index, std::span<const std::byte> part) {
  KVIST_CHECK(index < header.part_bytes.size() && header.part_checksums.size() == header.part_bytes.size());
  if (part.size() == header.part_bytes[index] && ChecksumOf(part) == header.part_checksums[index]) return {};
  return Fail(ErrorCode::kCorrupt, "part " + std::to_string(index) + " of a record is not what was stored");
}

Status VerifyParts(const RecordHeader& header, std::span<const std::byte> payload) {
  if (payload.size() != header.payload_bytes()) {
    return Fail(ErrorCode::kCorrupt, "a record's payload has " + std::to_string(payload.size()) + " bytes instead of " +
                                         std::to_string(header.payload_bytes()));
  }
  for (size_t i = 0; i < header.part_bytes.size(); ++i) {
    KVIST_TRY_VOID(VerifyPart(header, i, payload.first(header.part_bytes[i])));
    payload = payload.subspan(header.part_bytes[i]);
  }
  return {};
}

size_t EncodedHeaderBytes(const RecordHeader& header) {
  return EncodedBytes(header.model.size(), header.form.size(), header.tokens.size(), header.part_bytes.size());
}

std::vector<std::byte> EncodeHeader(const RecordHeader& header) {
  const size_t bytes = EncodedHeaderBytes(header);
  KVIST_CHECK(header.part_checksums.size() == header.part_bytes.size() && bytes <= UINT32_MAX);
  ByteWriter writer;
  writer.Text(kRecordMagic);
  writer.Number(kRecordVersion);
  writer.Number(uint32_t(bytes));
  writer.Bytes(header.digest.bytes);
  writer.Number(header.group);
  writer.Number(header.is_sealed ? kIsSealed : 0u);
  writer.Number(header.position);
  for (const size_t count : {header.tokens.size(), header.part_bytes.size(), header.model.size(), header.form.size()}) {
    writer.Number(uint32_t(count));
  }
  writer.Text(header.model);
  writer.Text(header.form);
  writer.Bytes(std::as_bytes(std::span(header.tokens)));
  writer.Bytes(std::as_bytes(std::span(header.part_bytes)));
  for (const Checksum& checksum : header.part_checksums) writer.Write(checksum);
  return std::move(writer).Seal();
}

Result<RecordHeader> DecodeHeader(std::span<const std::byte> bytes) {
  KVIST_TRY_VOID(CheckFrame(bytes));
  ByteReader reader(bytes.subspan(kRecordMagic.size() + 2 * sizeof(uint32_t)));
  RecordHeader header;
  const auto digest = reader.Bytes(header.digest.bytes.size());
  std::memcpy(header.digest.bytes.data(), digest.data(), digest.size());
  header.group = reader.Number<uint32_t>();
  const uint32_t flags = reader.Number<uint32_t>();
  header.is_sealed = flags & kIsSealed;
  header.position = reader.Number<uint64_t>();
  const uint32_t num_tokens = reader.Number<uint32_t>(), num_parts = reader.Number<uint32_t>();
  const uint32_t model_bytes = reader.Number<uint32_t>(), form_bytes = reader.Number<uint32_t>();
  // From here on the counts are known to be those of bytes that are there.
  if (EncodedBytes(model_bytes, form_bytes, num_tokens, num_parts) != bytes.size())
    return CorruptRecord("contradicts itself");
  header.model = AsText(reader.Bytes(model_bytes));
  header.form = AsText(reader.Bytes(form_bytes));
  for (uint32_t i = 0; i < num_tokens; ++i) header.tokens.push_back(reader.Number<Token>());
  for (uint32_t i = 0; i < num_parts; ++i) header.part_bytes.push_back(reader.Number<uint64_t>());
  for (uint32_t i = 0; i < num_parts; ++i) header.part_checksums.push_back(reader.ReadChecksum());
  if (reader.has_failed() || flags > kIsSealed || !DoBytesAddUp(header.part_bytes))
    return CorruptRecord("contradicts itself");
  return header;
}

uint64_t PositionOf(std::span<const std::byte> header) {
  const auto decoded = DecodeHeader(header);
  return decoded ? decoded->position : 0;
}

}  // namespace kvist
