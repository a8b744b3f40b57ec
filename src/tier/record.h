// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/digest.h"
#include "kvist/cache.h"
#include "kvist/error.h"

namespace kvist {

// What a tier finds a record by: 128 bits that a caller makes of all that identifies the record. Two records may have
// the same key by accident or malice: only the header's digest tells them apart, and the caller compares it.
struct RecordKey {
  uint64_t low = 0;
  uint64_t high = 0;
  auto operator<=>(const RecordKey&) const = default;
};
struct RecordKeyHash {
  size_t operator()(const RecordKey& key) const { return size_t(key.low ^ (key.high * 0x9e3779b97f4a7c15u)); }
};
std::string RecordKeyName(const RecordKey& key);  // 32 hexadecimal digits, high first

struct Checksum {  // XXH3, 128 bits
  uint64_t low = 0;
  uint64_t high = 0;
  bool operator==(const Checksum&) const = default;
};
Checksum ChecksumOf(std::span<const std::byte> bytes);

// What is stored in a tier: one block of one group, described by a header. The payload is the block's bytes, the part
// of each layer after another, each with a checksum of its own, so that a layer can be read and verified alone.
struct RecordHeader {
  Digest digest;       // of everything that the payload's numbers depend on, the tokens before them, too
  std::string model;   // for people: what the model is called
  std::string form;    // for people and programs: "f16", "q4/q8", ...
  uint32_t group = 0;  // of the geometry
  bool is_sealed = false;
  uint64_t position = 0;             // of the first token in its sequence
  std::vector<Token> tokens;         // that the block holds, 1 to its block_tokens
  std::vector<uint64_t> part_bytes;  // [layer of the group]
  std::vector<Checksum> part_checksums;

  uint64_t payload_bytes() const;
};

// Fixes the header's part_checksums by the payload. REQUIRES: payload.size() == payload_bytes().
void ChecksumParts(RecordHeader& header, std::span<const std::byte> payload);
// kCorrupt: part `index`'s bytes are not those that were stored.
Status VerifyPart(const RecordHeader& header, size_t index, std::span<const std::byte> part);
Status VerifyParts(const RecordHeader& header, std::span<const std::byte> payload);

size_t EncodedHeaderBytes(const RecordHeader& header);  // whether it has its checksums yet or not
// As bytes with a magic number, a format version and a checksum of their own (docs/formats.md), little-endian.
std::vector<std::byte> EncodeHeader(const RecordHeader& header);
// kCorrupt for bytes that are not a whole header or whose checksum is another; kUnsupported for a newer version. Never
// reads outside `bytes` nor takes much more memory than they have, whatever they are.
Result<RecordHeader> DecodeHeader(std::span<const std::byte> bytes);
// The header's position, or 0 when it can't be decoded.
uint64_t PositionOf(std::span<const std::byte> header);

}  // namespace kvist
