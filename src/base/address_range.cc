// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "base/address_range.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>

namespace kvist {

size_t PageBytes() {
  static const size_t bytes = size_t(sysconf(_SC_PAGESIZE));
  return bytes;
}

size_t PhysicalBytes() { return size_t(sysconf(_SC_PHYS_PAGES)) * PageBytes(); }

Result<AddressRange> AddressRange::Reserve(size_t bytes) {
  // PROT_NONE: the kernel charges nothing, even when it does not overcommit. A guard page at either end stops overruns
  // and keeps the kernel from joining the range to a neighbour, which would blur ResidentBytes.
  bytes = (bytes + PageBytes() - 1) / PageBytes() * PageBytes();
  void* data = mmap(nullptr, bytes + 2 * PageBytes(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) {
    return Fail(ErrorCode::kOutOfMemory, "cannot reserve " + std::to_string(bytes) + " bytes of address space (" +
                                             std::strerror(errno) + "); give a smaller budget or raise `ulimit -v`");
  }
  return AddressRange(static_cast<std::byte*>(data) + PageBytes(), bytes);
}

AddressRange::AddressRange(AddressRange&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

AddressRange& AddressRange::operator=(AddressRange&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

AddressRange::~AddressRange() {
  if (data_ != nullptr) munmap(data_ - PageBytes(), size_ + 2 * PageBytes());
}

Status AddressRange::Commit(size_t offset, size_t bytes) {
  KVIST_CHECK(offset % PageBytes() == 0 && bytes % PageBytes() == 0 && offset <= size_ && bytes <= size_ - offset);
  if (mprotect(data_ + offset, bytes, PROT_READ | PROT_WRITE) != 0) {
    return Fail(ErrorCode::kOutOfMemory, "the system refused " + std::to_string(bytes) + " bytes of memory (" +
                                             std::strerror(errno) + ")");
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
