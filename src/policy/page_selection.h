// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kvist/page_selection.h"

namespace kvist {

// Blocks that hold one of the first or of the last so many tokens are read whatever they promise.
inline constexpr int64_t kPageSinkTokens = 4;
inline constexpr int64_t kPageRecentTokens = 64;

// Sets chosen[i] to 1 for the `count` largest of the bounds and to 0 for the others; of equal bounds the later ones'.
// REQUIRES: no bound is NaN. O(n).
void ChooseLargest(std::span<const float> bounds, size_t count, std::span<uint8_t> chosen);

}  // namespace kvist
