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
  const size_t alignment = IsQuantised(form) ? 16 : 64;
  group.block_bytes = RoundUp(group.block_bytes, alignment);
  group.layers.push_back(
      {.layer = index,
       .form = form,
       .offset_bytes = group.block_bytes,
       .k_tile_bytes = RoundUp(KTileBytes(form.k, layer.key_dim, geometry.block_tokens), alignment),
       .v_tile_bytes = RoundUp(VTileBytes(form.v, layer.value_dim, geometry.block_tokens), alignment)});
  BlockLayout::Layer& place = group.layers.back();
  if (IsQuantised(form.k)) place.k_quantised = QuantisedTile::OfKeys(form.k, layer.key_dim, geometry.block_tokens);
  if (IsQuantised(form.v)) place.v_quantised = QuantisedTile::OfValues(form.v, layer.value_dim, geometry.block_tokens);
  group.block_bytes += size_t(layer.num_kv_heads) * place.lane_bytes();
}

}  // namespace

std::vector<BlockLayout> LayOutGroups(const CacheGeometry& geometry, std::span<const Form> forms) {
  std::vector<BlockLayout> groups;
  for (size_t i = 0; i < geometry.layers.size(); ++i) {
    const int window = geometry.layers[i].window;
    auto group = std::ranges::find(groups, window, &BlockLayout::window);
    if (group == groups.end()) group = groups.insert(groups.end(), BlockLayout{window, {}, 0});
    AddLayer(geometry, forms[i], int(i), *group);
  }
  for (BlockLayout& group : groups) group.block_bytes = RoundUp(group.block_bytes, PageBytes());
  return groups;
}

std::vector<BlockLayout> LayOutGroups(const CacheGeometry& geometry, Form form) {
  return LayOutGroups(geometry, std::vector<Form>(geometry.layers.size(), form));
}

std::vector<BlockLayout> LayOutOpenGroups(const CacheGeometry& geometry, std::span<const Form> forms) {
  std::vector<Form> open_forms;
  for (const Form form : forms) open_forms.push_back(OpenForm(form));
  return LayOutGroups(geometry, open_forms);
}

std::vector<uint64_t> BlockLayout::AllPartBytes() const {
  std::vector<uint64_t> bytes;
  for (size_t i = 0; i < layers.size(); ++i) bytes.push_back(PartBytes(i));
  return bytes;
}

size_t BlockLayout::LargestPartBytes() const {
  size_t most = 0;
  for (size_t i = 0; i < layers.size(); ++i) most = std::max(most, PartBytes(i));
  return most;
}

bool BlockLayout::any_is_quantised() const {
  return std::ranges::any_of(layers, [](const Layer& layer) { return IsQuantised(layer.form); });
}

}  // namespace kvist
