// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "base/address_range.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>

#include "base/round_up.h"

namespace kvist {

size_t PageBytes() {
  static const size_t bytes = size_t(sysconf(_SC_PAGESIZE));
  return bytes;
}

Result<AddressRange> AddressRange::Reserve(size_t bytes) {
  // PROT_NONE: the kernel charges nothing, even when it does not overcommit. A page or more that is never used at
  // either end stops overruns and keeps the kernel from joining the range to a neighbour, which would blur
  // ResidentBytes.
  bytes = RoundUp(bytes, PageBytes());
  const size_t mapped_bytes = bytes + 2 * kHugePageBytes;
  void* data = mmap(nullptr, mapped_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) {
    return Fail(ErrorCode::kOutOfMemory, "cannot reserve " + std::to_string(bytes) + " bytes of address space (" +
                                             std::strerror(errno) + "); give a smaller budget or raise `ulimit -v`");
  }
  auto* const mapping = static_cast<std::byte*>(data);
  const auto first = RoundUp(reinterpret_cast<uintptr_t>(mapping) + PageBytes(), kHugePageBytes);
  return AddressRange(mapping, mapped_bytes, reinterpret_cast<std::byte*>(first), bytes);
}

AddressRange::AddressRange(AddressRange&& other) noexcept
    : mapping_(std::exchange(other.mapping_, nullptr)),
      mapped_bytes_(std::exchange(other.mapped_bytes_, 0)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

AddressRange& AddressRange::operator=(AddressRange&& other) noexcept {
  std::swap(mapping_, other.mapping_);
  std::swap(mapped_bytes_, other.mapped_bytes_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

AddressRange::~AddressRange() {
  if (mapping_ != nullptr) munmap(mapping_, mapped_bytes_);
}

void AddressRange::UseHugePages(bool may, size_t offset, size_t bytes) {
#if defined(MADV_HUGEPAGE) && defined(MADV_NOHUGEPAGE)
  // A kernel without them refuses, and small pages do.
  (void)madvise(data_ + offset, bytes, may ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
#else
  (void)may, (void)offset, (void)bytes;
#endif
}

Status AddressRange::Commit(size_t offset, size_t bytes) {
  KVIST_CHECK(offset % PageBytes() == 0 && bytes % PageBytes() == 0 && offset <= size_ && bytes <= size_ - offset);
  if (mprotect(data_ + offset, bytes, PROT_READ | PROT_WRITE) != 0) {
    return Fail(ErrorCode::kOutOfMemory,
                "the system refused " + std::to_string(bytes) + " bytes of memory (" + std::strerror(errno) + ")");
  }
  return {};
}

Status AddressRange::Populate(size_t offset, size_t bytes) {
  KVIST_CHECK(offset % PageBytes() == 0 && bytes % PageBytes() == 0 && offset <= size_ && bytes <= size_ - offset);
#if defined(MADV_POPULATE_WRITE)
  if (madvise(data_ + offset, bytes, MADV_POPULATE_WRITE) == 0) return {};
  if (errno != EINVAL) {  // EINVAL: a kernel before 5.14
    return Fail(ErrorCode::kOutOfMemory,
                std::string("the system has no memory for a block (") + std::strerror(errno) + ")");
  }
#endif
  for (size_t i = 0; i < bytes; i += PageBytes()) {
    volatile std::byte* page = data_ + offset + i;
    *page = *page;
  }
  return {};
}

void AddressRange::Decommit(size_t offset, size_t bytes) {
  KVIST_CHECK(offset % PageBytes() == 0 && bytes % PageBytes() == 0 && offset <= size_ && bytes <= size_ - offset);
  // MADV_DONTNEED on anonymous private memory can only fail for arguments that are wrong.
  KVIST_CHECK(madvise(data_ + offset, bytes, MADV_DONTNEED) == 0);
}

Result<size_t> AddressRange::ResidentBytes() const {
  std::ifstream smaps("/proc/self/smaps");
  if (!smaps) return Fail(ErrorCode::kUnsupported, "cannot read /proc/self/smaps");
  const auto begin = reinterpret_cast<unsigned long>(data_), end = begin + size_;
  bool inside = false;
  size_t resident_bytes = 0;
  for (std::string line; std::getline(smaps, line);) {
    unsigned long from = 0, to = 0, kib = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &from, &to) == 2) {
      inside = from >= begin && to <= end;
    } else if (inside && std::sscanf(line.c_str(), "Rss: %lu kB", &kib) == 1) {
      resident_bytes += kib * 1024;
    }
  }
  return resident_bytes;
}

}  // namespace kvist
