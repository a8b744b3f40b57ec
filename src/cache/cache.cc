// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "kvist/cache.h"

#include <algorithm>

#include "base/address_range.h"
#include "cache/core.h"
#include "cache/sequence_state.h"

namespace kvist {

Result<std::unique_ptr<Cache>> Cache::Open(const CacheGeometry& geometry, const CacheOptions& options) {
  KVIST_TRY_VOID(geometry.Validate());
  KVIST_TRY_VOID(options.growth.Validate());
  KVIST_TRY(const Kernels* kernels, ChooseKernels());
  const size_t budget_bytes = options.budget_bytes != 0 ? options.budget_bytes : PhysicalBytes() / 8 * 7;
  auto core = std::make_shared<Core>(geometry, options, kernels, budget_bytes);
  core->places.resize(geometry.layers.size());
  for (BlockLayout& layout : LayOutGroups(geometry, options.form)) {
    const int group = int(core->groups.size());
    for (size_t i = 0; i < layout.layers.size(); ++i) {
      core->places[size_t(layout.layers[i].layer)] = {group, int(i)};
    }
    const size_t max_blocks = std::max<size_t>(1, budget_bytes / layout.block_bytes);
    KVIST_TRY(auto pool, BlockPool::Open(layout.block_bytes, max_blocks, &core->budget));
    core->groups.push_back({std::move(layout), std::move(pool)});
  }
  std::vector<BlockPool*> pools;
  for (const Core::Group& group : core->groups) pools.push_back(group.pool.get());
  core->housekeeper.emplace(std::move(pools));
  return std::unique_ptr<Cache>(new Cache(std::move(core)));
}

Cache::Cache(std::shared_ptr<Core> core) : core_(std::move(core)) {}
Cache::~Cache() = default;

Sequence Cache::Begin() {
  return Sequence(std::make_unique<Sequence::State>(core_));
}

const CacheGeometry& Cache::geometry() const {
  return core_->geometry;
}
const CacheOptions& Cache::options() const {
  return core_->options;
}

CacheStats Cache::stats() const {
  CacheStats stats;
  for (const Core::Group& group : core_->groups) {
    const BlockPoolStats pool = group.pool->stats();
    const size_t block_bytes = group.pool->block_bytes();
    stats.reserved_bytes += group.pool->reserved_bytes();
    stats.committed_bytes += pool.num_committed_blocks * block_bytes;
    stats.live_bytes += pool.num_live_blocks * block_bytes;
    stats.cumulative_bytes += pool.cumulative_blocks * block_bytes;
    stats.num_live_blocks += pool.num_live_blocks;
    stats.num_commits += pool.num_commits;
    stats.num_decommits += pool.num_decommits;
    stats.num_stalls += pool.num_stalls;
  }
  stats.peak_live_bytes = core_->peak_live_bytes.load(std::memory_order_relaxed);
  stats.peak_committed_bytes = core_->budget.peak_bytes();
  stats.copied_bytes = core_->copied_bytes.load(std::memory_order_relaxed);
  stats.num_sequences = core_->num_sequences.load(std::memory_order_relaxed);
  return stats;
}

Result<size_t> Cache::ResidentBytes() const {
  size_t bytes = 0;
  for (const Core::Group& group : core_->groups) {
    KVIST_TRY(const size_t of_pool, group.pool->ResidentBytes());
    bytes += of_pool;
  }
  return bytes;
}

}  // namespace kvist
