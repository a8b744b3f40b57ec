// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace kvist {

size_t PhysicalBytes();  // memory the machine has

// The memory of a control group that this process is in and that limits it, as containers and systemd's units do
// (cgroups(7), versions 1 and 2).
struct ControlGroupMemory {
  size_t limit_bytes = 0;
  size_t used_bytes = 0;  // but for file caches that the kernel gives up when it wants memory
};
// Those that have a limit. root: where /proc and /sys are.
std::vector<ControlGroupMemory> LimitingControlGroups(const std::string& root = "");

// What this process may take at most: the machine's memory, or less where a control group limits it.
size_t UsableBytes(const std::string& root = "");

}  // namespace kvist
