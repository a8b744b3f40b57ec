// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "cache/lane_rows.h"

#include <algorithm>
#include <array>
#include <cmath>

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
  void Read(const BlockLayout::Layer& place, const std::byte* k, int first, int end, bool with_values, LaneRows& rows) {
    ReadKeys(place, k);
    rows.keys.insert(rows.keys.end(), tile_rows_.begin() + first * key_dim_, tile_rows_.begin() + end * key_dim_);
    if (!with_values) return;
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

void ReadKept(const LayerView& layer, int kv_head, bool with_values, TileReader& reader, LaneRows& rows) {
  if (layer.kept == nullptr) return;
  const auto positions = layer.kept->positions(layer.layer_in_group, kv_head);
  rows.positions.insert(rows.positions.end(), positions.begin(), positions.end());
  for (int tile = 0; tile < layer.kept->num_tiles(layer.layer_in_group, kv_head); ++tile) {
    reader.Read(layer.final_place(), layer.kept->tile(layer.layer_in_group, kv_head, tile), 0,
                layer.kept->num_slots(layer.layer_in_group, kv_head, tile), with_values, rows);
  }
}

void ReadRef(const LayerView& layer, int kv_head, const BlockRef& ref, int num_slots, bool with_values,
             TileReader& reader, LaneRows& rows) {
  AppendPositions(ref.position, num_slots, rows.positions);
  const size_t first_key = rows.keys.size();
  const std::byte* lane = ref.is_sealed ? layer.SealedLane(ref, kv_head) : layer.OpenLane(ref, kv_head);
  reader.Read(ref.is_sealed ? layer.sealed : layer.open, lane, ref.first_slot, ref.first_slot + num_slots, with_values,
              rows);
  if (ref.delta != 0) {
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

constexpr size_t kTokensAtOnce = 32;

// Dot products of a row with so many keys, channel by channel: keys[channel][token].
void Dot(const float* query, const float* keys, int key_dim, float* scores) {
  std::array<float, kTokensAtOnce> sums{};
  for (int c = 0; c < key_dim; ++c)
    for (size_t i = 0; i < kTokensAtOnce; ++i) sums[i] += query[c] * keys[size_t(c) * kTokensAtOnce + i];
  std::ranges::copy(sums, scores);
}

// Of one row's scores; adds to what is there.
void AddSoftmax(std::span<const float> scores, std::span<float> probabilities) {
  const float largest = std::ranges::max(scores);
  std::vector<float> weights(scores.size());
  double sum = 0;
  for (size_t i = 0; i < scores.size(); ++i) sum += weights[i] = std::exp(scores[i] - largest);
  const auto scale = float(1 / sum);
  for (size_t i = 0; i < scores.size(); ++i) probabilities[i] += weights[i] * scale;
}

}  // namespace

LaneRows ReadLane(const LayerView& layer, int kv_head, int64_t end_position, bool with_values) {
  LaneRows rows;
  TileReader reader(layer);
  ReadKept(layer, kv_head, with_values, reader, rows);
  const size_t num_kept = rows.positions.size();
  for (const BlockRef& ref : layer.table.refs()) {
    const auto num_slots = int(std::clamp<int64_t>(end_position - ref.position, 0, ref.num_slots));
    KVIST_CHECK(!ref.spilled);
    if (num_slots > 0) ReadRef(layer, kv_head, ref, num_slots, with_values, reader, rows);
  }
  SortByPosition(layer.geometry, rows, num_kept);
  return rows;
}

void AddProbabilities(const LayerGeometry& geometry, std::span<const int32_t> positions, std::span<const float> keys,
                      std::span<const float> queries, std::span<const int32_t> query_positions,
                      std::span<float> probabilities) {
  const size_t num_tokens = positions.size(), num_rows = query_positions.size(), dim = size_t(geometry.key_dim);
  const float scale = geometry.attention_scale != 0 ? geometry.attention_scale : 1 / std::sqrt(float(dim));
  const size_t stride = (num_tokens + kTokensAtOnce - 1) / kTokensAtOnce * kTokensAtOnce;
  std::vector<float> scores(num_rows * stride), columns(dim * kTokensAtOnce);
  for (size_t first = 0; first < num_tokens; first += kTokensAtOnce) {
    const size_t count = std::min(kTokensAtOnce, num_tokens - first);
    for (size_t i = 0; i < count; ++i)
      for (size_t c = 0; c < dim; ++c) columns[c * kTokensAtOnce + i] = keys[(first + i) * dim + c];
    for (size_t row = 0; row < num_rows; ++row) {
      Dot(queries.data() + row * dim, columns.data(), geometry.key_dim, scores.data() + row * stride + first);
    }
  }
  for (size_t row = 0; row < num_rows; ++row) {
    const std::span of_row(scores.data() + row * stride, num_tokens);
    const auto num_visible = size_t(std::ranges::upper_bound(positions, query_positions[row]) - positions.begin());
    if (num_visible == 0) continue;
    for (float& score : of_row) score *= scale;
    AddSoftmax(of_row.first(num_visible), probabilities.subspan(row * num_tokens, num_visible));
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
