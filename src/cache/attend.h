// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "cache/spill_stage.h"
#include "codec/block_layout.h"
#include "kernels/kernels.h"
#include "kvist/cache.h"
#include "storage/block_table.h"
#include "storage/kept_tokens.h"

namespace kvist {

class PageBounds;

// One layer of one sequence, as Append and Attend see it.
struct LayerView {
  int index;
  const LayerGeometry& geometry;
  const BlockLayout::Layer& open;
  const BlockLayout::Layer& sealed;
  const BlockTable& table;
  int block_tokens;
  const Kernels& kernels;
  size_t layer_in_group = 0;
  const KeptTokens* kept = nullptr;        // what eviction has left of tokens that are in no block any more
  std::optional<StagedParts> staged = {};  // of the blocks that have been spilled
  PageBounds* pages = nullptr;             // where the step reads chosen blocks only

  // The form that kept tokens are in.
  const BlockLayout::Layer& final_place() const { return table.sealed_pool() != nullptr ? sealed : open; }

  // Where the lane's tiles in one of the table's refs begin: K, then V.
  std::byte* OpenLane(const BlockRef& ref, int kv_head) const {
    return Lane(*table.open_pool(), ref, ref.block, open.k_offset_bytes(kv_head));
  }
  std::byte* SealedLane(const BlockRef& ref, int kv_head) const {
    return Lane(*table.sealed_pool(), ref, ref.is_sealed ? ref.block : *ref.sealing, sealed.k_offset_bytes(kv_head));
  }

 private:
  std::byte* Lane(const BlockPool& pool, const BlockRef& ref, BlockId block, size_t offset_bytes) const {
    if (!ref.spilled) return pool.data(block) + offset_bytes;
    return staged->Part(size_t(&ref - table.refs().data())) + (offset_bytes - staged->part_offset);
  }
};

// Hands out units of work to the workers of one call, whichever is free next, so that a slow core does not hold up the
// others. The last worker to leave makes it ready for the next call.
class WorkQueue {
 public:
  // Calls run(unit) for units [0, num_units), each once among all workers. Every worker calls this once.
  template <class Run>
  void Work(int num_units, int num_workers, Run run) {
    for (int unit; (unit = next_.fetch_add(1, std::memory_order_relaxed)) < num_units;) run(unit);
    if (num_left_.fetch_add(1, std::memory_order_acq_rel) + 1 == num_workers) {
      num_left_.store(0, std::memory_order_relaxed);
      next_.store(0, std::memory_order_release);
    }
  }

 private:
  std::atomic<int> next_{0};
  std::atomic<int> num_left_{0};
};

// Where the workers of one call wait for each other.
class Barrier {
 public:
  // Returns when all have arrived.
  void Arrive(int num_workers) {
    const uint32_t round = round_.load(std::memory_order_acquire);
    if (num_arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 < num_workers) {
      return round_.wait(round, std::memory_order_acquire);
    }
    num_arrived_.store(0, std::memory_order_relaxed);
    round_.store(round + 1, std::memory_order_release);
    round_.notify_all();
  }

 private:
  std::atomic<uint32_t> round_{0};
  std::atomic<int> num_arrived_{0};
};

// Room that a step's Attend calls share: partial results of the splits, or of query tiles that meet the blocks in
// several passes, and who has finished. Owned by the sequence.
class AttendSpace {
 public:
  void Resize(const CacheGeometry& geometry, int64_t num_tokens, std::span<const BlockTable> tables,
              int64_t max_kept_splits, bool has_passes);

  WorkQueue queue;
  Barrier barrier;
  std::vector<float> partial_results;
  std::vector<std::atomic<int>> num_finished_splits;  // [kv head]
  std::vector<std::atomic<int>> are_pages_chosen;     // [kv head] 1: they are
};

// Sequence::Append and Sequence::Attend; `first_position` is that of the step's first token. Append also seals the
// tiles of blocks that the step seals. `stage` is null where nothing is ever spilled.
void AppendRows(const LayerView& layer, int64_t first_position, const float* keys, const float* values, Worker worker);
void AttendRows(const LayerView& layer, int64_t first_position, int64_t num_tokens, const float* queries, float* out,
                Worker worker, AttendSpace& space, SpillStage* stage);

}  // namespace kvist
