// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tier/record.h"

namespace kvist {

static_assert(std::endian::native == std::endian::little, "stored numbers are little-endian");

inline constexpr size_t kChecksumBytes = 16;

// What is wrong with stored bytes, as an error.
inline std::unexpected<Error> Corrupt(std::string what) {
  return Fail(ErrorCode::kCorrupt, std::move(what));
}

// Appends what is to be stored, field by field.
class ByteWriter {
 public:
  void Number(std::integral auto value) { Bytes(std::as_bytes(std::span(&value, 1))); }
  void Text(std::string_view text) { Bytes(std::as_bytes(std::span(text))); }
  void Bytes(std::span<const std::byte> bytes) { bytes_.insert(bytes_.end(), bytes.begin(), bytes.end()); }
  void Write(const Checksum& checksum) { Number(checksum.low), Number(checksum.high); }
  void Write(const RecordKey& key) { Number(key.low), Number(key.high); }
  std::span<const std::byte> bytes() const { return bytes_; }
  // Ends with the checksum of everything before it.
  std::vector<std::byte> Seal() && {
    Write(ChecksumOf(bytes_));
    return std::move(bytes_);
  }

 private:
  std::vector<std::byte> bytes_;
};

// Takes fields from the front of stored bytes. Past the end every number is 0 and every span empty, and has_failed().
class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : left_(bytes) {}
  template <std::integral T>
  T Number() {
    T value{};
    if (const auto bytes = Bytes(sizeof(T)); !bytes.empty()) std::memcpy(&value, bytes.data(), sizeof(T));
    return value;
  }
  std::span<const std::byte> Bytes(size_t num_bytes) {
    if (num_bytes > left_.size()) {
      has_failed_ = true;
      left_ = {};
      return {};
    }
    const auto bytes = left_.first(num_bytes);
    left_ = left_.subspan(num_bytes);
    return bytes;
  }
  Checksum ReadChecksum() {
    const uint64_t low = Number<uint64_t>();
    return {low, Number<uint64_t>()};
  }
  RecordKey ReadKey() {
    const uint64_t low = Number<uint64_t>();
    return {low, Number<uint64_t>()};
  }
  bool has_failed() const { return has_failed_; }

 private:
  std::span<const std::byte> left_;
  bool has_failed_ = false;
};

inline bool BeginsWith(std::span<const std::byte> bytes, std::string_view magic) {
  return bytes.size() >= magic.size() && (magic.empty() || std::memcmp(bytes.data(), magic.data(), magic.size()) == 0);
}

// Whether they are as ByteWriter::Seal left them.
inline bool IsSealed(std::span<const std::byte> bytes) {
  if (bytes.size() < kChecksumBytes) return false;
  const size_t end = bytes.size() - kChecksumBytes;
  return ByteReader(bytes.subspan(end)).ReadChecksum() == ChecksumOf(bytes.first(end));
}

}  // namespace kvist
