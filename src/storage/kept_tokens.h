// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/address_range.h"
#include "codec/block_layout.h"
#include "kvist/error.h"
#include "storage/memory_budget.h"

namespace kvist {

// The tokens of one group that eviction has left of a sequence's older part: in each lane others, and of each lane as
// many as it was given. A lane's tokens lie in tiles of its own, `block_tokens` to a tile, the last one partly filled.
// Filled once by whoever made it, then never changed, so that sequences may share it. Thread-safe from then on.
class KeptTokens {
 public:
  using Positions = std::vector<int32_t>;             // of one lane's tokens, ascending
  using Lanes = std::vector<std::vector<Positions>>;  // [layer in group][kv head]

  struct Account {
    MemoryBudget* budget;
    std::atomic<size_t>* num_bytes;  // of all kept tokens there are
  };
  // Takes the memory, charged to the account, which must outlive it. kOutOfMemory.
  static Result<std::shared_ptr<KeptTokens>> Make(Account account, const BlockLayout& layout, int block_tokens,
                                                  Lanes lanes);
  KeptTokens(const KeptTokens&) = delete;
  ~KeptTokens();

  std::span<const int32_t> positions(size_t layer_in_group, int kv_head) const {
    return lanes_[layer_in_group][size_t(kv_head)];
  }
  int num_tiles(size_t layer_in_group, int kv_head) const {
    return int((positions(layer_in_group, kv_head).size() + size_t(block_tokens_) - 1) / size_t(block_tokens_));
  }
  int num_slots(size_t layer_in_group, int kv_head, int tile) const {  // of the tile that hold tokens
    const size_t left = positions(layer_in_group, kv_head).size() - size_t(tile) * size_t(block_tokens_);
    return int(std::min(left, size_t(block_tokens_)));
  }
  // The tile's K part; its V part follows, as in a block.
  std::byte* tile(size_t layer_in_group, int kv_head, int tile) const {
    return memory_.data() + offsets_[layer_in_group][size_t(kv_head)] + size_t(tile) * lane_bytes_[layer_in_group];
  }
  int max_num_tiles() const { return max_num_tiles_; }  // of any lane
  double mean_num_tokens() const;                       // of a lane
  size_t num_bytes() const { return memory_.size(); }

 private:
  KeptTokens(Account account, AddressRange memory, int block_tokens, Lanes lanes);

  const Account account_;
  AddressRange memory_;
  const int block_tokens_;
  const Lanes lanes_;
  std::vector<std::vector<size_t>> offsets_;  // [layer in group][kv head]
  std::vector<size_t> lane_bytes_;            // [layer in group] of a tile
  int max_num_tiles_ = 0;
};

}  // namespace kvist
