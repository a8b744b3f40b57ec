// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <string_view>

#include "base/digest.h"
#include "kvist/cache.h"

namespace kvist {

// Of all that keys and values depend on beside the tokens: the model, the geometry, how they are stored, and the salt,
// which keeps tenants apart. The parent of every sequence's first block.
Digest RootDigest(const CacheGeometry& geometry, const CacheOptions& options, std::string_view salt);

}  // namespace kvist
