// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "codec/block_layout.h"
#include "kernels/kernels.h"
#include "kvist/cache.h"
#include "storage/block_table.h"

namespace kvist {

// One layer of one sequence, as Append and Attend see it.
struct LayerView {
  const LayerGeometry& geometry;
  const BlockLayout::Layer& open;
  const BlockLayout::Layer& sealed;
  const BlockTable& table;
  int block_tokens;
  const Kernels& kernels;

  // Where the lane's tiles in a ref's block begin: K, then V.
  std::byte* OpenLane(const BlockRef& ref, int kv_head) const {
    return table.open_pool()->data(ref.block) + open.k_offset_bytes(kv_head);
  }
  std::byte* SealedLane(const BlockRef& ref, int kv_head) const {
    return table.sealed_pool()->data(ref.is_sealed ? ref.block : *ref.sealing) + sealed.k_offset_bytes(kv_head);
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

// Room that a step's Attend calls share: partial results of the splits, and who has finished. Owned by the sequence.
class AttendSpace {
 public:
  void Resize(const CacheGeometry& geometry, int64_t num_tokens, std::span<const BlockTable> tables);

  WorkQueue queue;
  std::vector<float> partial_results;
  std::vector<std::atomic<int>> num_finished_splits;  // [kv head]
};

// Sequence::Append and Sequence::Attend; `first_position` is that of the step's first token. Append also seals the
// tiles of blocks that the step seals.
void AppendRows(const LayerView& layer, int64_t first_position, const float* keys, const float* values, Worker worker);
void AttendRows(const LayerView& layer, int64_t first_position, int64_t num_tokens, const float* queries, float* out,
                Worker worker, AttendSpace& space);

}  // namespace kvist
