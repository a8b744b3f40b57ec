// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstddef>
#include <span>
#include <string_view>
#include <vector>

#include "base/digest.h"
#include "codec/block_layout.h"
#include "kvist/cache.h"

namespace kvist {

// Of all that keys and values depend on beside the tokens: the model, the geometry, how they are stored, and the salt,
// which keeps tenants apart. The parent of every sequence's first block.
Digest RootDigest(const CacheGeometry& geometry, const CacheOptions& options, std::string_view salt);

// A copy of an open block in which only the first slots are used, with zeros in the others: they may hold what was
// somebody else's once, and what leaves the process must not.
std::vector<std::byte> ScrubbedBlock(const CacheGeometry& geometry, const BlockLayout& layout,
                                     std::span<const std::byte> block, int num_slots);

}  // namespace kvist
