// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "kvist/kv_size.h"

#include <algorithm>
#include <vector>

#include "cache/spill_stage.h"
#include "codec/block_layout.h"
#include "policy/sealing.h"

namespace kvist {

size_t KvBlockBytes(const CacheGeometry& geometry, Form form) {
  size_t bytes = 0;
  for (const BlockLayout& group : LayOutGroups(geometry, form)) bytes += group.block_bytes;
  return bytes;
}

namespace {

// What a sequence of the layouts of all groups has in memory in the step that ends after num_tokens.
struct BlockCounts {
  size_t bytes = 0;  // of all that cannot be spilled
  size_t spillable_bytes = 0;
  size_t staging_bytes = 0;  // to read what is spilled, at most
};

BlockCounts CountBlocks(const CacheGeometry& geometry, const CacheOptions& options, int64_t num_tokens,
                        int64_t step_tokens) {
  std::vector<Form> forms = options.layer_forms;
  if (forms.empty()) forms.assign(geometry.layers.size(), options.form);
  const std::vector<BlockLayout> open_groups = LayOutOpenGroups(geometry, forms);
  const std::vector<BlockLayout> sealed_groups = LayOutGroups(geometry, forms);
  const int64_t block_tokens = geometry.block_tokens, end_block = (num_tokens + block_tokens - 1) / block_tokens;
  BlockCounts counts;
  for (size_t i = 0; i < open_groups.size(); ++i) {
    const BlockLayout& sealed = sealed_groups[i];
    const bool is_quantised = sealed.any_is_quantised();
    int64_t num_blocks = end_block;
    if (sealed.window > 0) {
      // What a step sees before it and the step itself can begin and end anywhere in a block.
      const int64_t num_seen = sealed.window - 1 + step_tokens;
      num_blocks = std::min(num_blocks, (num_seen + block_tokens - 1) / block_tokens + 1);
    }
    for (int64_t block = end_block - num_blocks; block < end_block; ++block) {
      const int64_t begin = block * block_tokens, end = begin + block_tokens;
      const int64_t sealed_from = is_quantised ? SealedFrom(options.sealing, begin, end) : INT64_MAX;
      // A step has both forms of what it seals.
      size_t bytes = 0;
      if (sealed_from < num_tokens) bytes += sealed.block_bytes;
      if (sealed_from >= num_tokens - step_tokens) bytes += open_groups[i].block_bytes;
      // The last block stays in memory, full or not.
      const int64_t num_before = num_tokens - step_tokens;
      const bool is_final = end < num_before && (!is_quantised || sealed_from < num_before);
      (sealed.window == 0 && is_final ? counts.spillable_bytes : counts.bytes) += bytes;
    }
    if (sealed.window == 0)
      counts.staging_bytes = StagingBytes(is_quantised ? sealed : open_groups[i], options.budget_bytes);
  }
  return counts;
}

// The step that ends last is not always the one that takes most: one before may have begun a block and sealed another.
// What it takes depends on where in a block it ends, and else only grows.
template <class BytesOf>
size_t MostBytes(const CacheGeometry& geometry, const CacheOptions& options, int64_t num_tokens, int64_t step_tokens,
                 BytesOf bytes_of) {
  size_t most = 0;
  for (int64_t end = std::max<int64_t>(1, num_tokens - geometry.block_tokens + 1); end <= num_tokens; ++end) {
    most = std::max(most, bytes_of(CountBlocks(geometry, options, end, std::min(end, step_tokens))));
  }
  return most;
}

}  // namespace

size_t KvBytes(const CacheGeometry& geometry, const CacheOptions& options, int64_t num_tokens, int64_t step_tokens) {
  return MostBytes(geometry, options, num_tokens, step_tokens,
                   [](const BlockCounts& counts) { return counts.bytes + counts.spillable_bytes; });
}

size_t SpilledKvBytes(const CacheGeometry& geometry, const CacheOptions& options, int64_t num_tokens,
                      int64_t step_tokens) {
  return MostBytes(geometry, options, num_tokens, step_tokens, [](const BlockCounts& counts) {
    return counts.bytes + std::min(counts.spillable_bytes, counts.staging_bytes);
  });
}

size_t StaticKvBytes(const CacheGeometry& geometry, Form form, int64_t num_tokens) {
  return static_cast<size_t>(num_tokens) * geometry.BytesPerToken(form);
}

}  // namespace kvist
