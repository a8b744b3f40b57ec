// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstddef>
#include <cstdint>

#include "kvist/cache.h"
#include "kvist/geometry.h"

namespace kvist {

// Bytes of one block of every group, sealed where the form is quantised: about what a sequence grows by.
size_t KvBlockBytes(const CacheGeometry& geometry, Form form);

// Bytes of the blocks that a sequence of num_tokens tokens needs at most while it is computed in steps of up to
// step_tokens, in a cache of these options (the form and when it is sealed count): as CacheOptions::budget_bytes they
// are enough for one such sequence that grows exactly; sequences that share nothing add up. Layers with a sliding
// window keep only what the next step can see.
size_t KvBytes(const CacheGeometry& geometry, const CacheOptions& options, int64_t num_tokens, int64_t step_tokens);
// The same when all that can be is spilled to a disk tier (Sequence::Spill).
size_t SpilledKvBytes(const CacheGeometry& geometry, const CacheOptions& options, int64_t num_tokens,
                      int64_t step_tokens);

// What a cache that is allocated for num_tokens tokens from the start takes, windows or not.
size_t StaticKvBytes(const CacheGeometry& geometry, Form form, int64_t num_tokens);

}  // namespace kvist
