// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "cache/attention_observer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "cache/rope.h"

namespace kvist {
namespace {

int HeadsPerGroup(const LayerGeometry& geometry) {
  return geometry.num_query_heads / geometry.num_kv_heads;
}

// Where a step's query of a token and a head of the KV head's group is.
const float* QueryAt(const LayerGeometry& geometry, const float* queries, int64_t token, int head) {
  return queries + (size_t(token) * size_t(geometry.num_query_heads) + size_t(head)) * size_t(geometry.key_dim);
}

}  // namespace

QueryMoments AttentionObserver::FutureMoments(const LayerGeometry& geometry, const Turn& turn, const Moments& moments) {
  const int dim = geometry.key_dim;
  QueryMoments future{std::vector<float>(size_t(dim)), std::vector<float>(size_t(dim) * size_t(dim))};
  if (moments.count == 0) return future;
  const float scale = 1 / float(moments.count);
  for (size_t i = 0; i < future.mean.size(); ++i) future.mean[i] = moments.sum[i] * scale;
  for (size_t i = 0; i < future.second.size(); ++i) future.second[i] = moments.products_sum[i] * scale;
  Rotate(geometry.rope, turn, future.mean.data(), 1, dim);
  // R S RT, S symmetric: turn the rows, transpose, turn again.
  for (int pass = 0; pass < 2; ++pass) {
    Rotate(geometry.rope, turn, future.second.data(), dim, dim);
    for (int i = 0; i < dim; ++i)
      for (int j = 0; j < i; ++j) std::swap(future.second[size_t(i * dim + j)], future.second[size_t(j * dim + i)]);
  }
  return future;
}

AttentionObserver::AttentionObserver(const CacheGeometry* geometry)
    : geometry_(geometry), layers_(geometry->layers.size()), recent_positions_(kNumRecent, -1) {
  for (size_t i = 0; i < layers_.size(); ++i) {
    layers_[i].mass.resize(size_t(geometry->layers[i].num_kv_heads));
    layers_[i].moments.resize(size_t(geometry->layers[i].num_query_heads));
  }
}

void AttentionObserver::Want(const WantedEvidence& wanted) {
  wanted_.probabilities |= wanted.probabilities;
  wanted_.mass |= wanted.mass;
  wanted_.future_queries |= wanted.future_queries;
}

bool AttentionObserver::Has(const WantedEvidence& wanted) const {
  return wanted_.probabilities >= wanted.probabilities && wanted_.mass >= wanted.mass &&
         wanted_.future_queries >= wanted.future_queries;
}

void AttentionObserver::Clear() {
  for (Layer& layer : layers_) {
    for (auto& of_head : layer.mass) of_head.clear();
    std::ranges::fill(layer.moments, Moments());
  }
  std::ranges::fill(recent_positions_, -1);
}

void AttentionObserver::Prepare(int64_t first_position, int64_t num_tokens) {
  const int64_t end_position = first_position + num_tokens;
  for (int64_t position = std::max(first_position, end_position - kNumRecent); position < end_position; ++position) {
    recent_positions_[size_t(position % kNumRecent)] = position;
  }
  for (size_t i = 0; i < layers_.size(); ++i) {
    const LayerGeometry& geometry = geometry_->layers[i];
    if (geometry.window > 0) continue;
    const auto floats_per_token = size_t(geometry.num_query_heads) * size_t(geometry.key_dim);
    if (wanted_.probabilities) layers_[i].recent_queries.resize(kNumRecent * floats_per_token);
    if (!wanted_.mass) continue;
    for (auto& of_head : layers_[i].mass) {
      of_head.resize(size_t(first_position));  // what a step that was forgotten has left
      of_head.resize(size_t(end_position));
    }
  }
}

void AttentionObserver::Note(const LayerView& layer, int64_t first_position, int64_t num_tokens, const float* queries,
                             Worker worker) {
  const LayerGeometry& geometry = layer.geometry;
  if (geometry.window > 0) return;
  for (int kv_head = worker.index; kv_head < geometry.num_kv_heads; kv_head += worker.count) {
    if (wanted_.probabilities) NoteRecent(layer, kv_head, first_position, num_tokens, queries);
    if (wanted_.mass && !layer.table.HasSpilled()) NoteMass(layer, kv_head, first_position, num_tokens, queries);
    if (wanted_.future_queries) NoteMoments(layer, kv_head, first_position, num_tokens, queries);
  }
}

void AttentionObserver::NoteRecent(const LayerView& layer, int kv_head, int64_t first_position, int64_t num_tokens,
                                   const float* queries) {
  const LayerGeometry& geometry = layer.geometry;
  const int num_heads = HeadsPerGroup(geometry), first_head = kv_head * num_heads;
  const size_t floats = size_t(num_heads) * size_t(geometry.key_dim);
  for (int64_t token = std::max<int64_t>(0, num_tokens - kNumRecent); token < num_tokens; ++token) {
    const auto slot = (first_position + token) % kNumRecent;
    float* to = layers_[size_t(layer.index)].recent_queries.data() +
                (size_t(slot) * size_t(geometry.num_query_heads) + size_t(first_head)) * size_t(geometry.key_dim);
    std::copy_n(QueryAt(geometry, queries, token, first_head), floats, to);
  }
}

void AttentionObserver::NoteMass(const LayerView& layer, int kv_head, int64_t first_position, int64_t num_tokens,
                                 const float* queries) {
  const LayerGeometry& geometry = layer.geometry;
  const int num_heads = HeadsPerGroup(geometry);
  std::vector<float> rows;
  std::vector<int32_t> row_positions;
  const int64_t end_position = first_position + num_tokens;
  for (int64_t position = (first_position + kMassStride - 1) / kMassStride * kMassStride; position < end_position;
       position += kMassStride) {
    const float* from = QueryAt(geometry, queries, position - first_position, kv_head * num_heads);
    rows.insert(rows.end(), from, from + size_t(num_heads) * size_t(geometry.key_dim));
    row_positions.insert(row_positions.end(), size_t(num_heads), int32_t(position));
  }
  if (row_positions.empty()) return;
  const LaneRows lane = ReadLane(layer, kv_head, end_position, false);
  const size_t num_lane_tokens = lane.positions.size();
  std::vector<float> probabilities(row_positions.size() * num_lane_tokens);
  AddProbabilities(geometry, lane.positions, lane.keys, rows, row_positions, probabilities);
  std::vector<float>& mass = layers_[size_t(layer.index)].mass[size_t(kv_head)];
  for (size_t row = 0; row < row_positions.size(); ++row)
    for (size_t i = 0; i < num_lane_tokens; ++i)
      mass[size_t(lane.positions[i])] += probabilities[row * num_lane_tokens + i] / float(num_heads);
}

void AttentionObserver::NoteMoments(const LayerView& layer, int kv_head, int64_t first_position, int64_t num_tokens,
                                    const float* queries) {
  const LayerGeometry& geometry = layer.geometry;
  const int num_heads = HeadsPerGroup(geometry), dim = geometry.key_dim;
  std::vector<float> rows(size_t(num_heads) * size_t(dim));
  for (int64_t token = std::max<int64_t>(0, kNumSkippedMoments - first_position); token < num_tokens; ++token) {
    std::copy_n(QueryAt(geometry, queries, token, kv_head * num_heads), rows.size(), rows.data());
    Rotate(geometry.rope, -(first_position + token), rows.data(), num_heads, dim);
    for (int head = 0; head < num_heads; ++head) {
      Moments& moments = layers_[size_t(layer.index)].moments[size_t(kv_head * num_heads + head)];
      moments.sum.resize(size_t(dim));
      moments.products_sum.resize(size_t(dim) * size_t(dim));
      const float* query = rows.data() + head * dim;
      ++moments.count;
      for (int i = 0; i < dim; ++i) {
        moments.sum[size_t(i)] += query[i];
        float* products = moments.products_sum.data() + size_t(i) * size_t(dim);
        for (int j = 0; j < dim; ++j) products[j] += query[i] * query[j];
      }
    }
  }
}

std::vector<int64_t> AttentionObserver::RecentPositions(int64_t num_tokens, int num_queries) const {
  std::vector<int64_t> positions;
  for (int64_t position = std::max<int64_t>(0, num_tokens - num_queries); position < num_tokens; ++position) {
    if (recent_positions_[size_t(position % kNumRecent)] == position) positions.push_back(position);
  }
  return positions;
}

bool AttentionObserver::HasQueries(int64_t num_tokens) const {
  return !RecentPositions(num_tokens, kNumRecent).empty();
}

void AttentionObserver::Collect(const LayerView& layer, int kv_head, const LaneRows& rows, int64_t num_tokens,
                                int num_queries, const WantedEvidence& wanted, LaneEvidence& evidence) const {
  const LayerGeometry& geometry = layer.geometry;
  const Layer& noted = layers_[size_t(layer.index)];
  const int num_heads = HeadsPerGroup(geometry), first_head = kv_head * num_heads;
  const auto dim = size_t(geometry.key_dim);
  evidence.num_query_heads = num_heads;
  if (wanted.probabilities) {
    const auto positions = RecentPositions(num_tokens, num_queries);
    evidence.num_rows_per_head = int(positions.size());
    std::vector<float> queries;
    std::vector<int32_t> query_positions;
    for (int head = first_head; head < first_head + num_heads; ++head) {
      for (const int64_t position : positions) {
        const float* from = noted.recent_queries.data() +
                            (size_t(position % kNumRecent) * size_t(geometry.num_query_heads) + size_t(head)) * dim;
        queries.insert(queries.end(), from, from + dim);
        query_positions.push_back(int32_t(position));
      }
    }
    evidence.probabilities.assign(query_positions.size() * rows.positions.size(), 0.0f);
    AddProbabilities(geometry, rows.positions, rows.keys, queries, query_positions, evidence.probabilities);
  }
  if (wanted.mass) {
    const auto& mass = noted.mass[size_t(kv_head)];
    for (const int32_t position : rows.positions) {
      evidence.mass.push_back(size_t(position) < mass.size() ? mass[size_t(position)] : 0.0f);
    }
  }
  if (!wanted.future_queries) return;
  evidence.attention_scale =
      geometry.attention_scale != 0 ? geometry.attention_scale : 1 / std::sqrt(float(geometry.key_dim));
  const Turn turn = MeanTurn(geometry.rope, num_tokens, kExpectedFuture);
  for (int head = first_head; head < first_head + num_heads; ++head) {
    evidence.future_queries.push_back(FutureMoments(geometry, turn, noted.moments[size_t(head)]));
  }
}

}  // namespace kvist
