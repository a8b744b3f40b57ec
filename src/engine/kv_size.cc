// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "engine/kv_size.h"

#include <algorithm>

#include "codec/block_layout.h"

namespace kvist {

size_t KvBlockBytes(const CacheGeometry& geometry, Form form) {
  size_t bytes = 0;
  for (const BlockLayout& group : LayOutGroups(geometry, form)) bytes += group.block_bytes;
  return bytes;
}

size_t KvBytes(const CacheGeometry& geometry, Form form, int64_t num_tokens, int64_t step_tokens) {
  const int64_t block_tokens = geometry.block_tokens;
  size_t bytes = 0;
  for (const BlockLayout& group : LayOutGroups(geometry, form)) {
    int64_t num_blocks = (num_tokens + block_tokens - 1) / block_tokens;
    if (group.window > 0) {
      // What a step sees before it and the step itself can begin and end anywhere in a block.
      const int64_t num_seen = group.window - 1 + step_tokens;
      num_blocks = std::min(num_blocks, (num_seen + block_tokens - 1) / block_tokens + 1);
    }
    bytes += static_cast<size_t>(num_blocks) * group.block_bytes;
  }
  return bytes;
}

size_t StaticKvBytes(const CacheGeometry& geometry, Form form, int64_t num_tokens) {
  return static_cast<size_t>(num_tokens) * geometry.BytesPerToken(form);
}

}  // namespace kvist
