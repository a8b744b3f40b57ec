// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "cache/lane_rows.h"

#include <algorithm>

#include "cache/rope.h"
#include "codec/tile.h"

namespace kvist {
namespace {

// One tile's numbers as rows [slot][dim].
class TileReader {
 public:
  explicit TileReader(const LayerView& layer)
      : layer_(layer),
        block_tokens_(layer.block_tokens),
        key_dim_(layer.geometry.key_dim),
        value_dim_(layer.geometry.value_dim) {}

  // Appends slots [first, end).
  void Read(const BlockLayout::Layer& place, const std::byte* k, int first, int end, LaneParts parts, LaneRows& rows) {
    if (parts.keys) {
      ReadKeys(place, k);
      rows.keys.insert(rows.keys.end(), tile_rows_.begin() + first * key_dim_, tile_rows_.begin() + end * key_dim_);
    }
    if (!parts.values) return;
    ReadValues(place, k + place.k_tile_bytes);
    rows.values.insert(rows.values.end(), tile_rows_.begin() + first * value_dim_,
                       tile_rows_.begin() + end * value_dim_);
  }

 private:
  void ReadKeys(const BlockLayout::Layer& place, const std::byte* tile) {
    tile_rows_.resize(size_t(block_tokens_) * size_t(key_dim_));
    if (IsQuantised(place.form.k)) return DecodeTile(place.k_quantised, tile, tile_rows_.data());
    columns_.resize(tile_rows_.size());
    layer_.kernels.decode(place.form.k, tile, columns_.size(), columns_.data());
    for (int slot = 0; slot < block_tokens_; ++slot)
      for (int c = 0; c < key_dim_; ++c)
        tile_rows_[size_t(slot * key_dim_ + c)] = columns_[size_t(c * block_tokens_ + slot)];
  }
  void ReadValues(const BlockLayout::Layer& place, const std::byte* tile) {
    tile_rows_.resize(size_t(block_tokens_) * size_t(value_dim_));
    if (IsQuantised(place.form.v)) return DecodeTile(place.v_quantised, tile, tile_rows_.data());
    layer_.kernels.decode(place.form.v, tile, tile_rows_.size(), tile_rows_.data());
  }

  const LayerView& layer_;
  const int block_tokens_, key_dim_, value_dim_;
  std::vector<float> tile_rows_, columns_;
};

void AppendPositions(int64_t begin, int count, std::vector<int32_t>& positions) {
  for (int i = 0; i < count; ++i) positions.push_back(int32_t(begin + i));
}

void ReadKept(const LayerView& layer, int kv_head, LaneParts parts, TileReader& reader, LaneRows& rows) {
  if (layer.kept == nullptr) return;
  const auto positions = layer.kept->positions(layer.layer_in_group, kv_head);
  rows.positions.insert(rows.positions.end(), positions.begin(), positions.end());
  for (int tile = 0; tile < layer.kept->num_tiles(layer.layer_in_group, kv_head); ++tile) {
    reader.Read(layer.final_place(), layer.kept->tile(layer.layer_in_group, kv_head, tile), 0,
                layer.kept->num_slots(layer.layer_in_group, kv_head, tile), parts, rows);
  }
}

void ReadRef(const LayerView& layer, int kv_head, const BlockRef& ref, int num_slots, LaneParts parts,
             TileReader& reader, LaneRows& rows) {
  AppendPositions(ref.position, num_slots, rows.positions);
  const size_t first_key = rows.keys.size();
  const std::byte* lane = ref.is_sealed ? layer.SealedLane(ref, kv_head) : layer.OpenLane(ref, kv_head);
  reader.Read(ref.is_sealed ? layer.sealed : layer.open, lane, ref.first_slot, ref.first_slot + num_slots, parts, rows);
  if (parts.keys && ref.delta != 0) {
    Rotate(layer.geometry.rope, ref.delta, rows.keys.data() + first_key, num_slots, layer.geometry.key_dim);
  }
}

// Kept tokens came after the first block's when they were still in blocks.
void SortByPosition(const LayerGeometry& geometry, LaneRows& rows, size_t num_kept) {
  const size_t num_before =
      size_t(std::ranges::lower_bound(rows.positions.begin() + int64_t(num_kept), rows.positions.end(),
                                      num_kept > 0 ? rows.positions.front() : 0) -
             rows.positions.begin()) -
      num_kept;
  if (num_kept == 0 || num_before == 0) return;
  const auto turn = [&](auto& numbers, size_t dim) {
    if (numbers.empty()) return;
    std::rotate(numbers.begin(), numbers.begin() + int64_t(num_kept * dim),
                numbers.begin() + int64_t((num_kept + num_before) * dim));
  };
  turn(rows.positions, 1);
  turn(rows.keys, size_t(geometry.key_dim));
  turn(rows.values, size_t(geometry.value_dim));
}

constexpr size_t kRowsAtOnce = 48;  // whose probabilities over some thousand tokens fit into the second-level cache

// Rows [token][dim] as tiles [tile][dim][slot], the last one filled up with zeros.
std::vector<float> TilesOf(std::span<const float> rows, size_t dim, size_t block_tokens) {
  const size_t num_rows = rows.size() / dim, num_tiles = (num_rows + block_tokens - 1) / block_tokens;
  std::vector<float> tiles(num_tiles * dim * block_tokens);
  for (size_t i = 0; i < num_rows; ++i) {
    float* column = tiles.data() + i / block_tokens * dim * block_tokens + i % block_tokens;
    for (size_t c = 0; c < dim; ++c) column[c * block_tokens] = rows[i * dim + c];
  }
  return tiles;
}

}  // namespace

int64_t NumHeld(const LayerView& layer, int kv_head, int64_t end_position) {
  int64_t num_held = layer.kept != nullptr ? std::ssize(layer.kept->positions(layer.layer_in_group, kv_head)) : 0;
  for (const BlockRef& ref : layer.table.refs()) {
    num_held += std::clamp<int64_t>(end_position - ref.position, 0, ref.num_slots);
  }
  return num_held;
}

LaneRows ReadLane(const LayerView& layer, int kv_head, int64_t end_position, LaneParts parts) {
  LaneRows rows;
  TileReader reader(layer);
  const auto num_held = size_t(NumHeld(layer, kv_head, end_position));
  rows.positions.reserve(num_held);
  if (parts.keys) rows.keys.reserve(num_held * size_t(layer.geometry.key_dim));
  if (parts.values) rows.values.reserve(num_held * size_t(layer.geometry.value_dim));
  ReadKept(layer, kv_head, parts, reader, rows);
  const size_t num_kept = rows.positions.size();
  for (const BlockRef& ref : layer.table.refs()) {
    const auto num_slots = int(std::clamp<int64_t>(end_position - ref.position, 0, ref.num_slots));
    KVIST_CHECK(!ref.spilled);
    if (num_slots > 0) ReadRef(layer, kv_head, ref, num_slots, parts, reader, rows);
  }
  SortByPosition(layer.geometry, rows, num_kept);
  return rows;
}

void ForEachProbabilities(const LayerView& layer, std::span<const int32_t> positions, std::span<const float> keys,
                          std::span<const float> queries, std::span<const int32_t> query_positions,
                          const VisitProbabilities& visit) {
  const auto dim = size_t(layer.geometry.key_dim), block_tokens = size_t(layer.block_tokens);
  if (positions.empty() || query_positions.empty()) return;
  const std::vector<float> tiles = TilesOf(keys, dim, block_tokens);
  std::vector<float> scaled(queries.begin(), queries.end());
  for (float& number : scaled) number *= layer.geometry.score_scale();
  std::vector<int32_t> num_seen;
  for (const int32_t position : query_positions) {
    num_seen.push_back(int32_t(std::ranges::upper_bound(positions, position) - positions.begin()));
  }
  ProbabilityStep step{.keys = tiles.data(),
                       .num_tiles = int(tiles.size() / (dim * block_tokens)),
                       .block_tokens = layer.block_tokens,
                       .key_dim = layer.geometry.key_dim,
                       .num_rows = 0,
                       .queries = nullptr,
                       .num_seen = nullptr,
                       .out = nullptr};
  std::vector<float> probabilities(std::min(kRowsAtOnce, num_seen.size()) * step.row_stride());
  step.out = probabilities.data();
  for (size_t first = 0; first < num_seen.size(); first += kRowsAtOnce) {
    step.num_rows = int(std::min(kRowsAtOnce, num_seen.size() - first));
    step.queries = scaled.data() + first * dim;
    step.num_seen = num_seen.data() + first;
    layer.kernels.probabilities(step);
    for (size_t row = 0; row < size_t(step.num_rows); ++row) {
      visit(first + row, {step.out + row * step.row_stride(), positions.size()});
    }
  }
}

void WriteTiles(const LayerView& layer, const LaneRows& rows, std::span<const int32_t> chosen,
                std::span<std::byte* const> tiles) {
  const BlockLayout::Layer& place = layer.final_place();
  const auto key_dim = size_t(layer.geometry.key_dim), value_dim = size_t(layer.geometry.value_dim);
  const auto block_tokens = size_t(layer.block_tokens);
  std::vector<float> keys, values;
  std::vector<std::byte> encoded(CodecBytes(IsQuantised(place.form.k) ? Codec::kF32 : place.form.k, key_dim));
  for (size_t tile = 0; tile < tiles.size(); ++tile) {
    const auto here = chosen.subspan(tile * block_tokens, std::min(block_tokens, chosen.size() - tile * block_tokens));
    keys.assign(block_tokens * key_dim, 0);
    values.assign(block_tokens * value_dim, 0);
    for (size_t slot = 0; slot < here.size(); ++slot) {
      std::copy_n(rows.keys.data() + size_t(here[slot]) * key_dim, key_dim, keys.data() + slot * key_dim);
      std::copy_n(rows.values.data() + size_t(here[slot]) * value_dim, value_dim, values.data() + slot * value_dim);
    }
    std::byte* const k = tiles[tile];
    std::byte* const v = k + place.k_tile_bytes;
    const auto num_slots = int(here.size());
    if (IsQuantised(place.form.k)) {
      EncodeTile(place.k_quantised, keys.data(), 0, num_slots, k);
    } else {
      for (int slot = 0; slot < num_slots; ++slot) {
        layer.kernels.encode(place.form.k, keys.data() + size_t(slot) * key_dim, key_dim, encoded.data());
        ScatterKeyRow(place.form.k, encoded.data(), layer.geometry.key_dim, layer.block_tokens, slot, k);
      }
    }
    if (IsQuantised(place.form.v)) {
      EncodeTile(place.v_quantised, values.data(), 0, num_slots, v);
    } else {
      layer.kernels.encode(place.form.v, values.data(), size_t(num_slots) * value_dim, v);
    }
  }
}

}  // namespace kvist
