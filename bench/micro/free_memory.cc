// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "bench/micro/free_memory.h"

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <optional>
#include <string>

#include "base/address_range.h"

namespace kvist {
namespace {

// The number after a name, in files with a name and a number a line.
std::optional<size_t> Number(const char* path, const std::string& name) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(name)) return std::strtoull(line.c_str() + name.size(), nullptr, 10);
  }
  return std::nullopt;
}

size_t LeftInControlGroup() {
  size_t limit_bytes = 0, used_bytes = 0;
  std::ifstream limit("/sys/fs/cgroup/memory.max"), used("/sys/fs/cgroup/memory.current");
  if (!(limit >> limit_bytes && used >> used_bytes)) return SIZE_MAX;  // no such file, or "max"
  used_bytes -= std::min(used_bytes, Number("/sys/fs/cgroup/memory.stat", "inactive_file ").value_or(0));
  return limit_bytes - std::min(limit_bytes, used_bytes);
}

}  // namespace

size_t FreeMemoryBytes() {
  const auto free_kib = Number("/proc/meminfo", "MemAvailable:");
  return std::min(free_kib ? *free_kib << 10 : PhysicalBytes(), LeftInControlGroup());
}

}  // namespace kvist
