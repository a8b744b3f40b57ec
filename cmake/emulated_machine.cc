// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
// Linked into tests that run in qemu-user (cmake/aarch64.cmake), in place of what the emulator does not do as Linux
// does.
#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

// A cache without a budget reserves addresses for all the machine's memory, and qemu keeps a note of each page that was
// ever reserved: so there is only this much.
constexpr long kMemoryBytes = 1L << 28;

extern "C" long sysconf(int name) noexcept {
  static const auto of_system = reinterpret_cast<long (*)(int)>(dlsym(RTLD_NEXT, "sysconf"));
  const long value = of_system(name);
  return name == _SC_PHYS_PAGES ? std::min(value, kMemoryBytes / of_system(_SC_PAGESIZE)) : value;
}

// qemu 7.2 says that it has populated pages and does nothing. Kernels before 5.14 say that they can't.
extern "C" int madvise(void* address, size_t bytes, int advice) noexcept {
  static const auto of_system = reinterpret_cast<int (*)(void*, size_t, int)>(dlsym(RTLD_NEXT, "madvise"));
  if (advice != MADV_POPULATE_WRITE) return of_system(address, bytes, advice);
  errno = EINVAL;
  return -1;
}
