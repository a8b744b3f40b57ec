// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "cache/attend.h"
#include "kvist/page_selection.h"

namespace kvist {

// What one sequence knows of the keys in its blocks: of each lane and full block the largest and the smallest value of
// every channel, and, while a step is under way, which blocks each lane is going to read.
//
// A query's score with any key of a block is at most  sum over c of max(q[c] * largest[c], q[c] * smallest[c]).  That
// sum is the dot product of (q where positive, q where negative) with (largest, smallest): bounds lie in tiles like
// those of keys, of twice the channels and with blocks for slots, and are met by the same kernel. They are in bf16,
// rounded outward. Memory, beside the budget: 4 * key_dim + 8 bytes a lane and block, 3 % of a block in f16.
//
// Bounds belong to a ref's version (storage/block_table.h) and are noted when a step first may leave the block out:
// whatever happens to the table between two steps, those of other contents are not used.
//
// Prepare and copying: one thread. Choose: any, each with another lane of a layer. chosen: after Choose.
class PageBounds {
 public:
  static constexpr int kTileBlocks = 32;

  // [layer] group_of_layer. num_bytes: of all bounds there are. Both pointers must outlive it.
  PageBounds(const PageSelection& selection, const CacheGeometry* geometry, std::vector<int> group_of_layer,
             std::atomic<size_t>* num_bytes);
  PageBounds(const PageBounds& other);
  PageBounds& operator=(const PageBounds&) = delete;
  ~PageBounds();

  const PageSelection& selection() const { return selection_; }

  // For a step of so many tokens over these tables [group], which they are in already.
  void Prepare(std::span<const BlockTable> tables, int64_t num_step_tokens);
  // Whether the step leaves out anything at all; in this layer.
  bool is_selecting() const { return is_selecting_; }
  bool IsSelecting(int layer) const { return is_selecting_ && !PlanOf(layer).candidates.empty() && HasLanes(layer); }

  // Tokens in blocks that each lane of the layer reads. REQUIRES: IsSelecting.
  int64_t num_read_tokens(int layer) const { return PlanOf(layer).num_read_tokens; }

  // Notes what is new of the lane, and chooses its blocks for the queries [query head of the group, key_dim] of the
  // step's token (rotated, not scaled). About 20 ns a block that is known; a new one 4 us, in a quantised form 10 us.
  // REQUIRES: IsSelecting.
  void Choose(const LayerView& layer, int kv_head, const float* queries);
  std::span<const uint8_t> chosen(int layer, int kv_head) const {  // [ref]
    return LaneOf(layer, kv_head).chosen;
  }
  // The upper bounds that were last chosen by, of refs candidates(layer): of scaled scores, and of all query heads.
  std::span<const float> upper_bounds(int layer, int kv_head) const { return LaneOf(layer, kv_head).upper_bounds; }
  std::span<const int32_t> candidates(int layer) const { return PlanOf(layer).candidates; }

 private:
  // Which refs of a group a step may leave out, and how many of them it reads.
  struct Plan {
    std::vector<int32_t> candidates;  // ascending; empty where everything is read
    size_t num_chosen = 0;
    int64_t num_read_tokens = 0;
  };
  using Tile = std::vector<uint16_t>;  // bf16 [largest of channels, smallest of channels][kTileBlocks]
  struct Lane {
    std::vector<Tile> tiles;          // of kTileBlocks refs each
    std::vector<uint64_t> versions;   // [ref] that is noted; 0: none
    std::vector<uint8_t> chosen;      // [ref]
    std::vector<float> upper_bounds;  // [candidate]
  };
  struct Workspace;
  class SignedQueries;

  Plan PlanFor(const BlockTable& table) const;
  const Plan& PlanOf(int layer) const { return plans_[size_t(group_of_layer_[size_t(layer)])]; }
  bool HasLanes(int layer) const { return layer >= selection_.num_dense_layers; }
  Lane& LaneOf(int layer, int kv_head) { return lanes_[size_t(layer)][size_t(kv_head)]; }
  const Lane& LaneOf(int layer, int kv_head) const { return lanes_[size_t(layer)][size_t(kv_head)]; }
  void MakeRoom(int layer, size_t num_refs);
  void CountBytes();
  void Note(const LayerView& layer, int kv_head, size_t ref_index, Lane& lane) const;
  void BoundTile(const LayerView& layer, const Tile& tile, std::span<const int32_t> candidates, SignedQueries& queries,
                 std::span<float> bounds) const;

  const PageSelection selection_;
  const CacheGeometry* const geometry_;
  const std::vector<int> group_of_layer_;
  std::atomic<size_t>* const num_bytes_of_all_;
  std::vector<std::vector<Lane>> lanes_;  // [layer][kv head]
  std::vector<Plan> plans_;               // [group]
  bool is_selecting_ = false;
  size_t num_bytes_ = 0;
};

}  // namespace kvist
