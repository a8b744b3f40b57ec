// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "codec/block_layout.h"

#include <algorithm>

#include "base/address_range.h"
#include "base/round_up.h"
#include "codec/tile.h"

namespace kvist {
namespace {

void AddLayer(const CacheGeometry& geometry, Form form, int index, BlockLayout& group) {
  const LayerGeometry& layer = geometry.layers[size_t(index)];
  auto tile_bytes = [&](Codec codec, int dim) {
    return RoundUp(CodecBytes(codec, size_t(dim) * size_t(geometry.block_tokens)), 64);
  };
  group.layers.push_back(
      {index, group.block_bytes, tile_bytes(form.k, layer.key_dim), tile_bytes(form.v, layer.value_dim)});
  group.block_bytes += size_t(layer.num_kv_heads) * group.layers.back().lane_bytes();
}

}  // namespace

std::vector<BlockLayout> LayOutGroups(const CacheGeometry& geometry, Form form) {
  std::vector<BlockLayout> groups;
  for (size_t i = 0; i < geometry.layers.size(); ++i) {
    const int window = geometry.layers[i].window;
    auto group = std::ranges::find(groups, window, &BlockLayout::window);
    if (group == groups.end()) group = groups.insert(groups.end(), BlockLayout{window, {}, 0});
    AddLayer(geometry, form, int(i), *group);
  }
  for (BlockLayout& group : groups) group.block_bytes = RoundUp(group.block_bytes, PageBytes());
  return groups;
}

}  // namespace kvist
