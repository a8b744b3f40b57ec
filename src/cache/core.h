// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <vector>

#include "cache/known_sessions.h"
#include "codec/block_layout.h"
#include "kernels/kernels.h"
#include "kvist/cache.h"
#include "policy/growth.h"
#include "storage/block_pool.h"
#include "storage/housekeeper.h"
#include "storage/memory_budget.h"
#include "storage/prefix_index.h"

namespace kvist {

class TierStore;

// What a cache and its sequences share.
struct Cache::Core {
  struct Group {
    BlockLayout layout;  // of open blocks
    std::unique_ptr<BlockPool> pool;
    BlockLayout sealed_layout;               // the same layers in the same order
    std::unique_ptr<BlockPool> sealed_pool;  // null when no layer has a quantised form
    const BlockLayout& LayoutOf(bool is_sealed) const { return is_sealed ? sealed_layout : layout; }
    // Of blocks that never change again.
    const BlockLayout& final_layout() const { return sealed_pool ? sealed_layout : layout; }
    BlockPool& final_pool() const { return sealed_pool ? *sealed_pool : *pool; }
  };
  struct LayerPlace {
    int group = 0;
    int layer_in_group = 0;
  };

  Core(const CacheGeometry& geometry_in, CacheOptions options_in, const Kernels* kernels_in);
  ~Core();

  // Calls visit(pool) for every pool there is.
  template <class Visit>
  void ForEachPool(Visit visit) const {
    for (const Group& group : groups) {
      visit(*group.pool);
      if (group.sealed_pool) visit(*group.sealed_pool);
    }
  }
  size_t LiveBytes() const {
    size_t bytes = kept_bytes.load(std::memory_order_relaxed);
    ForEachPool([&](const BlockPool& pool) { bytes += pool.stats().num_live_blocks * pool.block_bytes(); });
    return bytes;
  }
  void NotePeak() {
    const size_t live = LiveBytes();
    size_t peak = peak_live_bytes.load(std::memory_order_relaxed);
    while (live > peak && !peak_live_bytes.compare_exchange_weak(peak, live, std::memory_order_relaxed)) {
    }
  }

  void Trim();  // gives back the spare blocks of all pools
  // Frees bytes that idle prefixes hold, the least recently used first. Waits for those that are being written to a
  // tier. Whether there were any.
  bool EvictPrefixes(size_t bytes);
  // After an attempt that found no room: gives spare blocks back, then evicts so many bytes at a time (none when 0),
  // and calls attempt() after each until it is true; whether it was.
  template <class Attempt>
  bool RetryWithRoom(size_t bytes, Attempt attempt) {
    Trim();
    bool has_room = attempt();
    while (!has_room && bytes > 0 && EvictPrefixes(bytes)) has_room = attempt();
    return has_room;
  }

  const CacheGeometry geometry;
  const CacheOptions options;
  const Kernels* const kernels;
  MemoryBudget budget;  // before the pools, which refund to it when they go
  std::vector<Group> groups;
  std::vector<LayerPlace> places;          // [layer]
  SurvivalCurve lengths;                   // of the sequences so far
  std::optional<PrefixIndex> prefixes;     // when they are shared; after the pools it holds blocks of
  std::optional<Housekeeper> housekeeper;  // after the pools it keeps
  std::atomic<size_t> num_sequences{0};
  std::atomic<size_t> copied_bytes{0};
  std::atomic<size_t> peak_live_bytes{0};
  std::atomic<size_t> kept_bytes{0};          // of tokens that eviction has left, in no block
  std::atomic<size_t> page_bounds_bytes{0};   // of what sequences know of their blocks' keys
  std::atomic<size_t> staging_bytes{0};       // memory for layers of spilled blocks
  std::atomic<uint64_t> spill_bytes_read{0};  // of spilled blocks, by steps
  std::atomic<uint64_t> spill_wait_ns{0};     // that steps waited for them
  KnownSessions known_sessions;
  std::unique_ptr<TierStore> tiers;  // null when there are none; last: what it writes are blocks of the prefixes
};

}  // namespace kvist
