// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "tier/folder.h"
#include "tier/tier.h"

namespace kvist {

// A record for tests of tiers, made of a number and a version alone, so that whoever reads it can tell whether it is
// right. Records of one number have the same key.
struct TestRecord {
  RecordKey key;
  std::vector<std::byte> header, payload;
  TierWrite write() const { return {key, header, payload}; }
};

inline RecordKey TestKey(uint64_t number) {
  return {.low = number * 0xd1342543de82ef95u, .high = number};
}

inline TestRecord MakeTestRecord(uint64_t number, uint64_t version = 0, size_t payload_bytes = 5000) {
  std::mt19937_64 random(number * 1000 + version);
  TestRecord record{TestKey(number), {}, std::vector<std::byte>(payload_bytes)};
  for (size_t i = 0; i < payload_bytes; i += 8) {
    const uint64_t bits = random();
    std::memcpy(&record.payload[i], &bits, std::min<size_t>(8, payload_bytes - i));
  }
  RecordHeader header;
  header.digest = DigestOf({std::as_bytes(std::span(&number, 1))});
  header.model = "test";
  header.form = "f16";
  header.position = version;
  header.tokens = {Token(number)};
  header.part_bytes = {payload_bytes / 3, payload_bytes - payload_bytes / 3};
  ChecksumParts(header, record.payload);
  record.header = EncodeHeader(header);
  return record;
}

// A record whose header gets its bytes only when a tier asks for them.
struct IncompleteTestRecord {
  TestRecord record;
  std::vector<std::byte> header = std::vector<std::byte>(record.header.size());
  TierWrite write() {
    return {record.key, header, record.payload, [this] { std::ranges::copy(record.header, header.begin()); }};
  }
};

// What a cache would find of a record that was read.
enum class TestReading { kMiss, kDamaged, kRight, kWrong };

// Reads the record as a cache does: kWrong is what must never be.
inline TestReading ReadTestRecord(Tier& tier, uint64_t number, size_t payload_bytes = 5000) {
  std::vector<std::byte> payload(payload_bytes);
  TierRead read{.key = TestKey(number), .payload = payload, .payload_offset = 0, .wants_header = true, .header = {}};
  tier.Read({&read, 1});
  if (!read.is_hit) return TestReading::kMiss;
  const auto header = DecodeHeader(read.header);
  if (!header || !VerifyParts(*header, payload)) return TestReading::kDamaged;
  const TestRecord right = MakeTestRecord(number, header->position, payload_bytes);
  return right.header == read.header && right.payload == payload ? TestReading::kRight : TestReading::kWrong;
}

// Writes them in one call; returns how many were stored.
inline size_t WriteTestRecords(Tier& tier, const std::vector<TestRecord>& records) {
  std::vector<TierWrite> writes;
  for (const TestRecord& record : records) writes.push_back(record.write());
  return tier.Write(writes);
}

// The same with records whose headers are not complete yet.
inline size_t WriteIncompleteTestRecords(Tier& tier, std::vector<TestRecord> records) {
  std::vector<IncompleteTestRecord> incomplete;
  for (TestRecord& record : records) incomplete.push_back({std::move(record)});
  std::vector<TierWrite> writes;
  for (IncompleteTestRecord& record : incomplete) writes.push_back(record.write());
  return tier.Write(writes);
}

inline void FlipBit(const std::filesystem::path& path, uint64_t bit) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(std::streamoff(bit / 8));
  const char byte = char(file.get() ^ (1 << (bit % 8)));
  file.seekp(std::streamoff(bit / 8));
  file.put(byte);
}

// A folder of one's own that is gone afterwards.
class TestFolder {
 public:
  TestFolder() : path_(std::filesystem::temp_directory_path() / ("kvist-test-" + HexOf(RandomFileId()))) {}
  TestFolder(const TestFolder&) = delete;
  ~TestFolder() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
  }
  std::string path() const { return path_.string(); }
  // Paths of the regular files of a folder in it, in order; none of a folder that is not there (yet).
  std::vector<std::filesystem::path> Files(const char* folder) const {
    std::vector<std::filesystem::path> files;
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(path_ / folder, error)) {
      if (entry.symlink_status(error).type() == std::filesystem::file_type::regular) files.push_back(entry.path());
    }
    std::ranges::sort(files);
    return files;
  }
  uint64_t DiskUse() const {
    uint64_t bytes = 0;
    for (const char* folder : {"segments", "sessions", "tmp"}) {
      for (const auto& file : Files(folder)) {
        std::error_code error;  // it may be gone by now
        const uint64_t file_bytes = std::filesystem::file_size(file, error);
        if (!error) bytes += DiskBytes(file_bytes);
      }
    }
    return bytes;
  }

 private:
  std::filesystem::path path_;
};

}  // namespace kvist
