// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "tier/record.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <random>

#include "tier/bytes.h"

namespace kvist::record_test {
namespace {

std::vector<std::byte> RandomBytes(size_t num_bytes, std::mt19937_64& random) {
  std::vector<std::byte> bytes(num_bytes);
  for (std::byte& byte : bytes) byte = std::byte(random());
  return bytes;
}

struct Record {
  RecordHeader header;
  std::vector<std::byte> payload;
};

Record MakeRecord(uint64_t seed) {
  std::mt19937_64 random(seed);
  Record record;
  for (std::byte& byte : record.header.digest.bytes) byte = std::byte(random());
  record.header.model = "a model";
  record.header.form = "q4/q8";
  record.header.group = 1;
  record.header.is_sealed = true;
  record.header.position = uint64_t{1} << 40;
  record.header.tokens = {1, -1, 0, std::numeric_limits<Token>::max()};
  record.header.part_bytes = {100, 0, 33};
  record.payload = RandomBytes(133, random);
  ChecksumParts(record.header, record.payload);
  return record;
}

// Sets a number in an encoded header and puts the checksum right again: what an ill-meaning writer could do.
std::vector<std::byte> Forged(std::vector<std::byte> bytes, size_t offset, auto value) {
  std::memcpy(bytes.data() + offset, &value, sizeof value);
  ByteWriter writer;
  writer.Bytes(std::span(bytes).first(bytes.size() - kChecksumBytes));
  return std::move(writer).Seal();
}

void CheckEqual(const RecordHeader& a, const RecordHeader& b) {
  CHECK(a.digest == b.digest);
  CHECK(a.model == b.model);
  CHECK(a.form == b.form);
  CHECK(a.group == b.group);
  CHECK(a.is_sealed == b.is_sealed);
  CHECK(a.position == b.position);
  CHECK(a.tokens == b.tokens);
  CHECK(a.part_bytes == b.part_bytes);
  CHECK(a.part_checksums == b.part_checksums);
}

TEST_CASE("record: a header survives being encoded") {
  const Record record = MakeRecord(1);
  const auto decoded = DecodeHeader(EncodeHeader(record.header));
  REQUIRE(decoded);
  CheckEqual(*decoded, record.header);
  CHECK(decoded->payload_bytes() == 133);
  const auto empty = DecodeHeader(EncodeHeader({}));
  REQUIRE(empty);
  CheckEqual(*empty, {});
}

TEST_CASE("record: the encoded bytes are those of docs/formats.md") {
  const Record record = MakeRecord(1);
  const std::vector<std::byte> bytes = EncodeHeader(record.header);
  CHECK(bytes.size() == 80 + 7 + 5 + 4 * 4 + 3 * 24 + 16);
  RecordHeader incomplete = record.header;
  incomplete.part_checksums.clear();
  CHECK(EncodedHeaderBytes(incomplete) == bytes.size());
  CHECK(std::memcmp(bytes.data(), "KVISTREC", 8) == 0);
  ByteReader reader{std::span(bytes).subspan(8)};
  CHECK(reader.Number<uint32_t>() == 1);
  CHECK(reader.Number<uint32_t>() == bytes.size());
  CHECK(std::memcmp(reader.Bytes(32).data(), record.header.digest.bytes.data(), 32) == 0);
  CHECK(reader.Number<uint32_t>() == 1);                  // group
  CHECK(reader.Number<uint32_t>() == 1);                  // is_sealed
  CHECK(reader.Number<uint64_t>() == uint64_t{1} << 40);  // position
  CHECK(reader.Number<uint32_t>() == 4);                  // tokens
  CHECK(reader.Number<uint32_t>() == 3);                  // parts
  CHECK(reader.Number<uint32_t>() == 7);                  // model
  CHECK(reader.Number<uint32_t>() == 5);                  // form
  CHECK(std::memcmp(reader.Bytes(12).data(), "a modelq4/q8", 12) == 0);
}

TEST_CASE("record: a known checksum, so that it stays the same on every machine and in every version") {
  CHECK(ChecksumOf({}) == Checksum{0x6001c324468d497f, 0x99aa06d3014798d8});
}

TEST_CASE("record: a key's name has its high half first") {
  CHECK(RecordKeyName({.low = 0xab, .high = 0x1234}) == "000000000000123400000000000000ab");
}

TEST_CASE("record: no header with a flipped bit is accepted") {
  const std::vector<std::byte> bytes = EncodeHeader(MakeRecord(2).header);
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    auto flipped = bytes;
    flipped[bit / 8] ^= std::byte(1u << (bit % 8));
    const auto decoded = DecodeHeader(flipped);
    REQUIRE_FALSE(decoded);
    const bool is_of_version = bit / 8 >= 8 && bit / 8 < 12;
    CHECK((decoded.error().code == ErrorCode::kCorrupt || is_of_version));
  }
}

TEST_CASE("record: no shortened or lengthened header is accepted") {
  auto bytes = EncodeHeader(MakeRecord(3).header);
  for (size_t size = 0; size < bytes.size(); ++size) {
    const std::vector<std::byte> truncated(bytes.begin(), bytes.begin() + ptrdiff_t(size));  // exact, for a sanitizer
    const auto decoded = DecodeHeader(truncated);
    REQUIRE_FALSE(decoded);
    CHECK(decoded.error().code == ErrorCode::kCorrupt);
  }
  bytes.push_back(std::byte{0});
  CHECK_FALSE(DecodeHeader(bytes));
}

TEST_CASE("record: random bytes are no header, with and without its first bytes") {
  std::mt19937_64 random(4);
  const std::vector<std::byte> good = EncodeHeader(MakeRecord(4).header);
  for (int i = 0; i < 2000; ++i) {
    auto bytes = RandomBytes(random() % 300, random);
    CHECK_FALSE(DecodeHeader(bytes));
    std::copy_n(good.begin(), std::min<size_t>(bytes.size(), 12), bytes.begin());
    CHECK_FALSE(DecodeHeader(bytes));
  }
}

TEST_CASE("record: counts that are not those of the bytes are found out though the checksum is right") {
  const std::vector<std::byte> bytes = EncodeHeader(MakeRecord(5).header);
  for (const size_t offset : {64, 68, 72, 76}) {
    for (const uint32_t count : {0u, 2u, 1000u, UINT32_MAX}) {
      const auto decoded = DecodeHeader(Forged(bytes, offset, count));
      REQUIRE_FALSE(decoded);
      CHECK(decoded.error().code == ErrorCode::kCorrupt);
    }
  }
  CHECK_FALSE(DecodeHeader(Forged(bytes, 52, uint32_t{2})));  // an unknown flag
  CHECK(DecodeHeader(Forged(bytes, 48, uint32_t{7})).value().group == 7);
}

TEST_CASE("record: parts whose bytes don't add up in 64 bits are refused") {
  RecordHeader header;
  header.part_bytes = {UINT64_MAX, 2};
  header.part_checksums.resize(2);
  CHECK(DecodeHeader(EncodeHeader(header)).error().code == ErrorCode::kCorrupt);
  header.part_bytes = {UINT64_MAX, 0};
  CHECK(DecodeHeader(EncodeHeader(header)));
}

TEST_CASE("record: a newer format version is said to be one") {
  const auto newer = Forged(EncodeHeader(MakeRecord(6).header), 8, uint32_t{2});
  CHECK(DecodeHeader(newer).error().code == ErrorCode::kUnsupported);
  const auto none = Forged(EncodeHeader(MakeRecord(6).header), 8, uint32_t{0});
  CHECK(DecodeHeader(none).error().code == ErrorCode::kCorrupt);
}

TEST_CASE("record: each part is verified on its own") {
  Record record = MakeRecord(7);
  CHECK(VerifyParts(record.header, record.payload));
  const std::span<const std::byte> payload = record.payload;
  CHECK(VerifyPart(record.header, 0, payload.first(100)));
  CHECK(VerifyPart(record.header, 1, {}));
  CHECK(VerifyPart(record.header, 2, payload.subspan(100)));
  record.payload[120] ^= std::byte{1};
  CHECK(VerifyPart(record.header, 0, payload.first(100)));
  CHECK(VerifyPart(record.header, 2, payload.subspan(100)).error().code == ErrorCode::kCorrupt);
  CHECK(VerifyParts(record.header, payload).error().code == ErrorCode::kCorrupt);
  CHECK(VerifyParts(record.header, payload.first(132)).error().code == ErrorCode::kCorrupt);
  CHECK(VerifyPart(record.header, 0, payload.first(99)).error().code == ErrorCode::kCorrupt);
}

}  // namespace
}  // namespace kvist::record_test
