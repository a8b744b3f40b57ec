// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstddef>

#include "kvist/error.h"

namespace kvist {

size_t PageBytes();  // of the operating system
inline constexpr size_t kHugePageBytes = size_t{2} << 20;

// A reserved range of addresses whose memory comes and goes page by page while its addresses never change.
// Owns the mapping. Not thread-safe; different parts may be committed and decommitted by different threads.
class AddressRange {
 public:
  // Reserves address space only: no memory, nothing charged. Begins at a multiple of kHugePageBytes.
  // kOutOfMemory when the system refuses.
  static Result<AddressRange> Reserve(size_t bytes);
  AddressRange(AddressRange&& other) noexcept;
  AddressRange& operator=(AddressRange&& other) noexcept;
  ~AddressRange();

  // Makes [offset, offset + bytes) usable, reading as zeros until written. Memory is taken at the first touch of each
  // page. Offsets and sizes in whole pages. A system call.
  Status Commit(size_t offset, size_t bytes);
  // Takes the memory of the committed part now, all pages in one system call, so that no later write waits for it.
  // kOutOfMemory when the system has none.
  Status Populate(size_t offset, size_t bytes);
  // Whether the system may use pages of kHugePageBytes when it takes memory of the part from now on. A hint.
  void UseHugePages(bool may, size_t offset, size_t bytes);
  // Gives the memory of the part back at once. The part stays usable and reads as zeros.
  void Decommit(size_t offset, size_t bytes);

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  // Bytes held in memory now, from /proc/self/smaps.
  Result<size_t> ResidentBytes() const;

 private:
  AddressRange(std::byte* mapping, size_t mapped_bytes, std::byte* data, size_t size)
      : mapping_(mapping), mapped_bytes_(mapped_bytes), data_(data), size_(size) {}
  std::byte* mapping_ = nullptr;  // of which data_ is the usable part
  size_t mapped_bytes_ = 0;
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace kvist
