// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "bench/micro/free_memory.h"

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <string>

#include "base/machine_memory.h"

namespace kvist {
namespace {

size_t AvailableOnMachine() {
  std::ifstream file("/proc/meminfo");
  for (std::string word; file >> word;) {
    uint64_t kib = 0;
    if (word == "MemAvailable:" && file >> kib) return size_t(kib << 10);
  }
  return PhysicalBytes();
}

}  // namespace

size_t FreeMemoryBytes() {
  size_t bytes = AvailableOnMachine();
  for (const ControlGroupMemory& group : LimitingControlGroups()) {
    bytes = std::min(bytes, group.limit_bytes - std::min(group.limit_bytes, group.used_bytes));
  }
  return bytes;
}

}  // namespace kvist
