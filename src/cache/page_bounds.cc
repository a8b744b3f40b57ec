// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "cache/page_bounds.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <utility>

#include "base/half.h"
#include "cache/rope.h"
#include "policy/page_selection.h"

namespace kvist {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

uint16_t RoundDownToBf16(float x) {
  return RoundUpToBf16(-x) ^ 0x8000u;
}

// The keys of a lane's tile as numbers, and how far apart two channels and two slots are.
struct Keys {
  const float* numbers;
  int channel_stride, slot_stride;
};

Keys ReadKeys(const LayerView& layer, const BlockRef& ref, int kv_head, std::vector<float>& memory) {
  const BlockLayout::Layer& place = ref.is_sealed ? layer.sealed : layer.open;
  const std::byte* tile = ref.is_sealed ? layer.SealedLane(ref, kv_head) : layer.OpenLane(ref, kv_head);
  const int key_dim = layer.geometry.key_dim;
  memory.resize(size_t(key_dim) * size_t(layer.block_tokens));
  if (IsQuantised(place.form.k)) {
    DecodeTile(place.k_quantised, tile, memory.data());
    return {memory.data(), 1, key_dim};
  }
  layer.kernels.decode(place.form.k, tile, memory.size(), memory.data());
  return {memory.data(), layer.block_tokens, 1};
}

}  // namespace

// What a thread needs while it works, kept from call to call.
struct PageBounds::Workspace {
  std::vector<float> queries, signed_queries, scores, keys;

  static Workspace& OfThisThread() {
    thread_local Workspace workspace;
    return workspace;
  }
};

// The queries of one token and lane, scaled: each row's channels where they are positive, then where they are negative.
class PageBounds::SignedQueries {
 public:
  SignedQueries(const LayerGeometry& geometry, const float* queries, Workspace& workspace)
      : geometry_(geometry), num_rows_(geometry.num_heads_per_kv_head()), queries_(queries), workspace_(workspace) {
    workspace.signed_queries.resize(size_t(2 * num_rows_ * geometry.key_dim));
  }

  int num_rows() const { return num_rows_; }

  // Turned to meet keys that have moved by the delta.
  const float* At(int64_t delta) {
    if (delta != delta_) Build(delta);
    delta_ = delta;
    return workspace_.signed_queries.data();
  }

 private:
  void Build(int64_t delta) {
    const int key_dim = geometry_.key_dim;
    const float scale = geometry_.score_scale();
    std::vector<float>& turned = workspace_.queries;
    turned.assign(queries_, queries_ + num_rows_ * key_dim);
    if (delta != 0) Rotate(geometry_.rope, -delta, turned.data(), num_rows_, key_dim);
    for (int row = 0; row < num_rows_; ++row) {
      float* positive = workspace_.signed_queries.data() + size_t(2 * row * key_dim);
      for (int c = 0; c < key_dim; ++c) {
        const float x = turned[size_t(row * key_dim + c)] * scale;
        positive[c] = x > 0.0f ? x : 0.0f;
        positive[key_dim + c] = x > 0.0f ? 0.0f : x;
      }
    }
  }

  const LayerGeometry& geometry_;
  const int num_rows_;
  const float* const queries_;
  Workspace& workspace_;
  std::optional<int64_t> delta_;  // of the rows in the workspace
};

PageBounds::PageBounds(const PageSelection& selection, const CacheGeometry* geometry, std::vector<int> group_of_layer,
                       std::atomic<size_t>* num_bytes)
    : selection_(selection),
      geometry_(geometry),
      group_of_layer_(std::move(group_of_layer)),
      num_bytes_of_all_(num_bytes) {
  for (const LayerGeometry& layer : geometry->layers) lanes_.emplace_back(size_t(layer.num_kv_heads));
  plans_.resize(size_t(std::ranges::max(group_of_layer_)) + 1);
}

PageBounds::PageBounds(const PageBounds& other)
    : selection_(other.selection_),
      geometry_(other.geometry_),
      group_of_layer_(other.group_of_layer_),
      num_bytes_of_all_(other.num_bytes_of_all_),
      lanes_(other.lanes_),
      plans_(other.plans_.size()),
      num_bytes_(other.num_bytes_) {
  num_bytes_of_all_->fetch_add(num_bytes_, std::memory_order_relaxed);
}

PageBounds::~PageBounds() {
  num_bytes_of_all_->fetch_sub(num_bytes_, std::memory_order_relaxed);
}

PageBounds::Plan PageBounds::PlanFor(const BlockTable& table) const {
  Plan plan;
  int64_t num_all = 0, num_always_read = 0;
  const int64_t recent_position = table.end_position() - kPageRecentTokens;
  for (size_t i = 0; i < table.refs().size(); ++i) {
    const BlockRef& ref = table.refs()[i];
    num_all += ref.num_slots;
    const bool is_final = ref.is_sealed || table.sealed_pool() == nullptr;
    if (is_final && ref.position >= kPageSinkTokens && ref.end_position() <= recent_position) {
      plan.candidates.push_back(int32_t(i));
    } else {
      num_always_read += ref.num_slots;
    }
  }
  if (num_all <= selection_.num_tokens) return {};
  const int64_t num_left = std::max<int64_t>(0, selection_.num_tokens - num_always_read);
  plan.num_chosen = size_t(num_left / geometry_->block_tokens);
  plan.num_read_tokens = num_always_read + int64_t(plan.num_chosen) * geometry_->block_tokens;
  return plan;
}

void PageBounds::Prepare(std::span<const BlockTable> tables, int64_t num_step_tokens) {
  std::ranges::fill(plans_, Plan{});
  is_selecting_ = false;
  if (num_step_tokens != 1 || std::ranges::any_of(tables, &BlockTable::HasSpilled)) return;
  std::vector<bool> is_planned(plans_.size());
  for (size_t layer = 0; layer < lanes_.size(); ++layer) {
    const auto group = size_t(group_of_layer_[layer]);
    if (geometry_->layers[layer].window > 0 || !HasLanes(int(layer))) continue;
    if (!is_planned[group]) plans_[group] = PlanFor(tables[group]);
    is_planned[group] = true;
    if (plans_[group].candidates.empty()) continue;
    is_selecting_ = true;
    MakeRoom(int(layer), tables[group].refs().size());
  }
  CountBytes();
}

void PageBounds::MakeRoom(int layer, size_t num_refs) {
  for (Lane& lane : lanes_[size_t(layer)]) {
    lane.versions.resize(num_refs);
    lane.tiles.resize((num_refs + kTileBlocks - 1) / kTileBlocks);
    for (Tile& tile : lane.tiles) tile.resize(size_t(2 * geometry_->layers[size_t(layer)].key_dim * kTileBlocks));
  }
}

void PageBounds::CountBytes() {
  size_t num_bytes = 0;
  for (size_t layer = 0; layer < lanes_.size(); ++layer) {
    const auto tile_bytes = size_t(2 * geometry_->layers[layer].key_dim * kTileBlocks) * sizeof(uint16_t);
    for (const Lane& lane : lanes_[layer]) {
      num_bytes += lane.tiles.size() * tile_bytes + lane.versions.size() * sizeof(uint64_t);
    }
  }
  num_bytes_of_all_->fetch_add(num_bytes - num_bytes_, std::memory_order_relaxed);
  num_bytes_ = num_bytes;
}

void PageBounds::Choose(const LayerView& layer, int kv_head, const float* queries) {
  const Plan& plan = PlanOf(layer.index);
  const auto refs = layer.table.refs();
  Lane& lane = LaneOf(layer.index, kv_head);
  for (const int32_t i : plan.candidates) {
    if (lane.versions[size_t(i)] != refs[size_t(i)].version) Note(layer, kv_head, size_t(i), lane);
  }
  SignedQueries signed_queries(layer.geometry, queries, Workspace::OfThisThread());
  lane.upper_bounds.resize(plan.candidates.size());
  for (size_t first = 0, end = 0; first < plan.candidates.size(); first = end) {
    const int32_t tile = plan.candidates[first] / kTileBlocks;
    while (end < plan.candidates.size() && plan.candidates[end] / kTileBlocks == tile) ++end;
    BoundTile(layer, lane.tiles[size_t(tile)], std::span(plan.candidates).subspan(first, end - first), signed_queries,
              std::span(lane.upper_bounds).subspan(first, end - first));
  }
  static thread_local std::vector<uint8_t> is_chosen;
  is_chosen.resize(plan.candidates.size());
  ChooseLargest(lane.upper_bounds, plan.num_chosen, is_chosen);
  lane.chosen.assign(refs.size(), 1);
  for (size_t i = 0; i < is_chosen.size(); ++i) lane.chosen[size_t(plan.candidates[i])] = is_chosen[i];
}

void PageBounds::Note(const LayerView& layer, int kv_head, size_t ref_index, Lane& lane) const {
  const BlockRef& ref = layer.table.refs()[ref_index];
  const Keys keys = ReadKeys(layer, ref, kv_head, Workspace::OfThisThread().keys);
  const int key_dim = layer.geometry.key_dim;
  uint16_t* to = lane.tiles[ref_index / kTileBlocks].data() + ref_index % kTileBlocks;
  for (int c = 0; c < key_dim; ++c) {
    const float* key = keys.numbers + c * keys.channel_stride + ref.first_slot * keys.slot_stride;
    float smallest = *key, largest = *key, nothing = 0;
    for (int slot = 0; slot < ref.num_slots; ++slot, key += keys.slot_stride) {
      smallest = *key < smallest ? *key : smallest;
      largest = *key > largest ? *key : largest;
      nothing += *key * 0.0f;  // NaN where a key is not finite: such a block has to be read
    }
    to[size_t(c * kTileBlocks)] = RoundUpToBf16(largest + nothing);
    to[size_t((key_dim + c) * kTileBlocks)] = RoundDownToBf16(smallest + nothing);
  }
  lane.versions[ref_index] = ref.version;
}

void PageBounds::BoundTile(const LayerView& layer, const Tile& tile, std::span<const int32_t> candidates,
                           SignedQueries& queries, std::span<float> bounds) const {
  TileStep step{};
  step.k = reinterpret_cast<const std::byte*>(tile.data());
  step.block_tokens = kTileBlocks;
  step.key_dim = 2 * layer.geometry.key_dim;
  step.num_rows = queries.num_rows();
  std::vector<float>& scores = Workspace::OfThisThread().scores;
  scores.resize(size_t(step.num_rows * kTileBlocks));
  std::optional<int64_t> scored_delta;
  for (size_t i = 0; i < candidates.size(); ++i) {
    const int64_t delta = layer.table.refs()[size_t(candidates[i])].delta;
    if (delta != scored_delta) {
      step.queries = queries.At(delta);
      layer.kernels.score_bf16(step, scores.data());
      scored_delta = delta;
    }
    float largest = -kInfinity;
    for (int row = 0; row < step.num_rows; ++row) {
      const float score = scores[size_t(row * kTileBlocks + candidates[i] % kTileBlocks)];
      largest = std::max(largest, std::isnan(score) ? kInfinity : score);
    }
    bounds[i] = largest;
  }
}

}  // namespace kvist
