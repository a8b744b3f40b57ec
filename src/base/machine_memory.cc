// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "base/machine_memory.h"

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <string_view>

#include "base/address_range.h"

namespace kvist {
namespace {

// How the two versions call their files.
struct GroupFiles {
  std::string mount, limit, used, inactive;
};

std::optional<size_t> ReadNumber(const std::string& path) {
  std::ifstream file(path);
  uint64_t number = 0;
  return file >> number ? std::optional(size_t(number)) : std::nullopt;  // no such file, or "max"
}

// The number after a name, in a file with a name and a number a line.
size_t ReadNumber(const std::string& path, const std::string& name) {
  std::ifstream file(path);
  for (std::string word; file >> word;) {
    uint64_t number = 0;
    if (word == name && file >> number) return size_t(number);
  }
  return 0;
}

// The group and those around it. What a container sees of its own path may not be there: the mount is its group then.
void AddLimiting(const GroupFiles& files, std::string_view path, std::vector<ControlGroupMemory>& groups) {
  if (path.find("..") != path.npos || path == "/") path = {};
  while (true) {
    const std::string folder = files.mount + std::string(path) + "/";
    if (const auto limit_bytes = ReadNumber(folder + files.limit)) {
      const size_t used_bytes = ReadNumber(folder + files.used).value_or(0);
      const size_t inactive_bytes = ReadNumber(folder + "memory.stat", files.inactive);
      groups.push_back({*limit_bytes, used_bytes - std::min(used_bytes, inactive_bytes)});
    }
    if (path.empty()) return;
    path = path.substr(0, path.rfind('/'));
  }
}

bool HasMemory(std::string_view controllers) {
  return ("," + std::string(controllers) + ",").find(",memory,") != std::string::npos;
}

}  // namespace

size_t PhysicalBytes() {
  return size_t(sysconf(_SC_PHYS_PAGES)) * PageBytes();
}

std::vector<ControlGroupMemory> LimitingControlGroups(const std::string& root) {
  const GroupFiles version1{root + "/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
                            "total_inactive_file"};
  const GroupFiles version2{root + "/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"};
  std::vector<ControlGroupMemory> groups;
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {  // NUMBER:CONTROLLERS:PATH
    const size_t first = line.find(':');
    const size_t second = first == line.npos ? line.npos : line.find(':', first + 1);
    if (second == line.npos) continue;
    const std::string_view text = line, controllers = text.substr(first + 1, second - first - 1);
    if (controllers.empty()) AddLimiting(version2, text.substr(second + 1), groups);
    if (HasMemory(controllers)) AddLimiting(version1, text.substr(second + 1), groups);
  }
  return groups;
}

size_t UsableBytes(const std::string& root) {
  size_t bytes = PhysicalBytes();
  for (const ControlGroupMemory& group : LimitingControlGroups(root)) bytes = std::min(bytes, group.limit_bytes);
  return bytes;
}

}  // namespace kvist
