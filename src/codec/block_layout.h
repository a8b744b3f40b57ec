// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "codec/quantised_tile.h"
#include "kvist/geometry.h"

namespace kvist {

// Where the tiles of one group's lanes lie inside a block. A group is the layers that keep the same tokens (here: that
// have the same window) and so share one block table. A lane's K tile and V tile are neighbours, because attention
// reads one right after the other.
struct BlockLayout {
  struct Layer {
    int layer = 0;  // index in the geometry
    Form form = {};
    size_t offset_bytes = 0;  // of KV head 0's K tile in the block
    size_t k_tile_bytes = 0;
    size_t v_tile_bytes = 0;
    QuantisedTile k_quantised = {}, v_quantised = {};  // of quantised codecs
    size_t lane_bytes() const { return k_tile_bytes + v_tile_bytes; }
    size_t k_offset_bytes(int kv_head) const { return offset_bytes + size_t(kv_head) * lane_bytes(); }
    size_t v_offset_bytes(int kv_head) const { return k_offset_bytes(kv_head) + k_tile_bytes; }
  };
  int window = 0;  // of every layer of the group; 0: full attention
  std::vector<Layer> layers;
  size_t block_bytes = 0;  // whole operating-system pages
  bool any_is_quantised() const;
  // A block's bytes layer by layer: what layer layers[i] has of it, with the gap behind.
  size_t PartOffset(size_t i) const { return i == 0 ? 0 : layers[i].offset_bytes; }
  size_t PartBytes(size_t i) const {
    return (i + 1 < layers.size() ? layers[i + 1].offset_bytes : block_bytes) - PartOffset(i);
  }
  std::vector<uint64_t> AllPartBytes() const;  // [i]
  size_t LargestPartBytes() const;
};

// The groups of a valid geometry, in the order their first layer appears; layer i is stored in forms[i], or all in one
// form. Tiles start at multiples of 64 bytes, of 16 in layers with a quantised form.
std::vector<BlockLayout> LayOutGroups(const CacheGeometry& geometry, std::span<const Form> forms);
std::vector<BlockLayout> LayOutGroups(const CacheGeometry& geometry, Form form);
// The same of blocks that are still open.
std::vector<BlockLayout> LayOutOpenGroups(const CacheGeometry& geometry, std::span<const Form> forms);

}  // namespace kvist
