// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstddef>

namespace kvist {

// Memory that this process can take without anything being swapped out: what the machine has free or can free of its
// file caches, and no more than its control group has left. Reads /proc and /sys.
size_t FreeMemoryBytes();

}  // namespace kvist
