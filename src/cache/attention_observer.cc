// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "cache/attention_observer.h"

#include <algorithm>
#include <span>
#include <utility>

#include "cache/rope.h"

namespace kvist {
namespace {

// The first position from `position` on that is a multiple of the stride.
int64_t NextMultiple(int64_t position, int64_t stride) {
  return (position + stride - 1) / stride * stride;
}

// Where a step's query of a token and a head of the KV head's group is.
const float* QueryAt(const LayerGeometry& geometry, const float* queries, int64_t token, int head) {
  return queries + (size_t(token) * size_t(geometry.num_query_heads) + size_t(head)) * size_t(geometry.key_dim);
}

// Of the query heads of one KV head.
size_t FloatsPerQuery(const LayerGeometry& geometry) {
  return size_t(geometry.num_heads_per_kv_head()) * size_t(geometry.key_dim);
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
    : geometry_(geometry),
      layers_(geometry->layers.size()),
      recent_positions_(kNumRecent, -1),
      turns_back_(geometry->layers.size()) {
  for (size_t i = 0; i < layers_.size(); ++i) {
    const LayerGeometry& of_layer = geometry->layers[i];
    layers_[i].mass.resize(size_t(of_layer.num_kv_heads));
    layers_[i].waiting.resize(size_t(of_layer.num_kv_heads));
    layers_[i].peak.resize(size_t(of_layer.num_kv_heads));
    layers_[i].moments.resize(size_t(of_layer.num_query_heads));
    layers_[i].first_with_same_rope =
        size_t(std::ranges::find(geometry->layers, of_layer.rope, &LayerGeometry::rope) - geometry->layers.begin());
  }
}

void AttentionObserver::Want(const WantedEvidence& wanted) {
  wanted_.recent |= wanted.recent;
  wanted_.mass |= wanted.mass;
  wanted_.future_queries |= wanted.future_queries;
}

bool AttentionObserver::Has(const WantedEvidence& wanted, int64_t num_tokens) const {
  const bool has_seen = seen_.recent >= wanted.recent && seen_.mass >= wanted.mass &&
                        seen_.future_queries >= wanted.future_queries && seen_.peak >= wanted.peak;
  return has_seen && (!wanted.recent || !RecentPositions(num_tokens, kNumRecent).empty());
}

WantedEvidence AttentionObserver::Known(int64_t num_tokens) const {
  return {.recent = Has({.recent = true}, num_tokens),
          .rows = Has({.recent = true}, num_tokens),
          .mass = Has({.mass = true}, num_tokens),
          .future_queries = Has({.future_queries = true}, num_tokens),
          .peak = Has({.peak = true}, num_tokens)};
}

void AttentionObserver::WantRepeating(int64_t begin, int64_t end, int64_t first_position) {
  wanted_.peak = true;
  repeating_ = {begin, end, first_position};
  for (Layer& layer : layers_) {
    for (auto& of_head : layer.peak) of_head.resize(std::max(of_head.size(), size_t(end)));
  }
}

void AttentionObserver::TakePeaks(const AttentionObserver& other) {
  wanted_.peak |= other.wanted_.peak;
  seen_.peak |= other.seen_.peak;
  for (size_t i = 0; i < layers_.size(); ++i) layers_[i].peak = other.layers_[i].peak;
}

void AttentionObserver::Clear() {
  Truncate(0);
  for (Layer& layer : layers_) std::ranges::fill(layer.moments, Moments());
  wanted_.peak = false;
  seen_ = {};
  repeating_.reset();
}

void AttentionObserver::Truncate(int64_t num_tokens) {
  const auto shorten = [&](auto& of_heads) {
    for (auto& of_head : of_heads) of_head.resize(std::min(of_head.size(), size_t(num_tokens)));
  };
  for (size_t i = 0; i < layers_.size(); ++i) {
    shorten(layers_[i].mass);
    shorten(layers_[i].peak);
    for (Waiting& of_head : layers_[i].waiting) of_head.Truncate(num_tokens, FloatsPerQuery(geometry_->layers[i]));
  }
  for (int64_t& position : recent_positions_) {
    if (position >= num_tokens) position = -1;
  }
}

void AttentionObserver::Prepare(int64_t first_position, int64_t num_tokens) {
  const int64_t end_position = first_position + num_tokens;
  seen_ = wanted_;
  const int64_t first_recent = wanted_.recent ? std::max(first_position, end_position - kNumRecent) : end_position;
  for (int64_t position = first_recent; position < end_position; ++position) {
    recent_positions_[size_t(position % kNumRecent)] = position;
  }
  for (size_t i = 0; i < layers_.size(); ++i) {
    const LayerGeometry& geometry = geometry_->layers[i];
    if (geometry.window > 0) continue;
    const auto floats_per_token = size_t(geometry.num_query_heads) * size_t(geometry.key_dim);
    if (wanted_.recent) layers_[i].recent_queries.resize(kNumRecent * floats_per_token);
    if (!wanted_.mass) continue;
    for (auto& of_head : layers_[i].mass) of_head.resize(size_t(end_position));
  }
  if (wanted_.future_queries) PrepareTurns(first_position, end_position);
}

void AttentionObserver::PrepareTurns(int64_t first_position, int64_t end_position) {
  for (size_t i = 0; i < layers_.size(); ++i) {
    turns_back_[i].clear();
    if (layers_[i].first_with_same_rope != i) continue;
    for (int64_t position = FirstMoment(first_position); position < end_position; position += kMomentStride) {
      turns_back_[i].push_back(MeanTurn(geometry_->layers[i].rope, -position, 1));
    }
  }
}

int64_t AttentionObserver::FirstMoment(int64_t first_position) {
  return NextMultiple(std::max(first_position, kNumSkippedMoments), kMomentStride);
}

void AttentionObserver::Note(const LayerView& layer, int64_t first_position, int64_t num_tokens, const float* queries,
                             Worker worker) {
  const LayerGeometry& geometry = layer.geometry;
  if (geometry.window > 0) return;
  const bool reads_keys = !layer.table.HasSpilled();
  for (int kv_head = worker.index; kv_head < geometry.num_kv_heads; kv_head += worker.count) {
    if (repeating_) {  // what else it would show is not of the text
      if (reads_keys) NotePeak(layer, kv_head, first_position, num_tokens, queries);
      continue;
    }
    if (seen_.recent) NoteRecent(layer, kv_head, first_position, num_tokens, queries);
    if (seen_.mass && reads_keys) NoteMass(layer, kv_head, first_position, num_tokens, queries);
    if (seen_.future_queries) NoteMoments(layer, kv_head, first_position, num_tokens, queries);
  }
}

void AttentionObserver::NoteRecent(const LayerView& layer, int kv_head, int64_t first_position, int64_t num_tokens,
                                   const float* queries) {
  const LayerGeometry& geometry = layer.geometry;
  const int first_head = kv_head * geometry.num_heads_per_kv_head();
  for (int64_t token = std::max<int64_t>(0, num_tokens - kNumRecent); token < num_tokens; ++token) {
    const auto slot = (first_position + token) % kNumRecent;
    float* to = layers_[size_t(layer.index)].recent_queries.data() +
                (size_t(slot) * size_t(geometry.num_query_heads) + size_t(first_head)) * size_t(geometry.key_dim);
    std::copy_n(QueryAt(geometry, queries, token, first_head), FloatsPerQuery(geometry), to);
  }
}

void AttentionObserver::NoteMass(const LayerView& layer, int kv_head, int64_t first_position, int64_t num_tokens,
                                 const float* queries) {
  const LayerGeometry& geometry = layer.geometry;
  const int num_heads = geometry.num_heads_per_kv_head();
  Waiting& waiting = layers_[size_t(layer.index)].waiting[size_t(kv_head)];
  // Those of steps before this one, which may be forgotten yet.
  if (waiting.positions.size() >= kMostWaiting) {
    SumWaiting(layer, kv_head, ReadLane(layer, kv_head, first_position, {.keys = true}));
  }
  const int64_t end_position = first_position + num_tokens;
  if (NextMultiple(first_position, kMassStride) >= end_position) return;  // as most steps of one token
  const int64_t num_evicted = end_position - NumHeld(layer, kv_head, end_position);
  for (int64_t position = NextMultiple(first_position, kMassStride); position < end_position; position += kMassStride) {
    const int64_t stride = MassStride(position - num_evicted);
    if (position % stride != 0) continue;
    const float* from = QueryAt(geometry, queries, position - first_position, kv_head * num_heads);
    waiting.queries.insert(waiting.queries.end(), from, from + FloatsPerQuery(geometry));
    waiting.positions.push_back(int32_t(position));
    waiting.weights.push_back(float(stride / kMassStride));
  }
}

bool AttentionObserver::IsWaiting(const LayerView& layer, int kv_head) const {
  return !layers_[size_t(layer.index)].waiting[size_t(kv_head)].positions.empty();
}

void AttentionObserver::SumWaiting(const LayerView& layer, int kv_head, const LaneRows& rows) {
  Waiting& waiting = layers_[size_t(layer.index)].waiting[size_t(kv_head)];
  const auto num_heads = size_t(layer.geometry.num_heads_per_kv_head());
  std::vector<int32_t> row_positions;
  for (const int32_t position : waiting.positions) row_positions.insert(row_positions.end(), num_heads, position);
  std::vector<float>& mass = layers_[size_t(layer.index)].mass[size_t(kv_head)];
  ForEachProbabilities(layer, rows.positions, rows.keys, waiting.queries, row_positions,
                       [&](size_t row, std::span<const float> probabilities) {
                         const float share = waiting.weights[row / num_heads] / float(num_heads);
                         for (size_t i = 0; i < probabilities.size(); ++i)
                           mass[size_t(rows.positions[i])] += probabilities[i] * share;
                       });
  waiting = {};
}

void AttentionObserver::Waiting::Truncate(int64_t end_position, size_t floats_per_query) {
  while (!positions.empty() && positions.back() >= end_position) positions.pop_back();
  weights.resize(positions.size());
  queries.resize(positions.size() * floats_per_query);
}

// KVzip's softmax: over the first tokens, those that are repeated, and the repetition itself.
void AttentionObserver::NotePeak(const LayerView& layer, int kv_head, int64_t first_position, int64_t num_tokens,
                                 const float* queries) {
  const LayerGeometry& geometry = layer.geometry;
  const int num_heads = geometry.num_heads_per_kv_head();
  const auto dim = size_t(geometry.key_dim);
  LaneRows lane = ReadLane(layer, kv_head, first_position + num_tokens, {.keys = true});
  size_t num_seen = 0;
  for (size_t i = 0; i < lane.positions.size(); ++i) {
    const int64_t position = lane.positions[i];
    const bool is_repeated = position >= repeating_->begin && position < repeating_->end;
    if (!is_repeated && position >= kNumRepeatSinks && position < repeating_->first_position) continue;
    lane.positions[num_seen] = lane.positions[i];
    std::copy_n(lane.keys.data() + i * dim, dim, lane.keys.data() + num_seen * dim);
    ++num_seen;
  }
  lane.positions.resize(num_seen);
  lane.keys.resize(num_seen * dim);
  std::vector<float> rows;
  std::vector<int32_t> row_positions;
  for (int64_t token = 0; token < num_tokens; ++token) {
    const float* from = QueryAt(geometry, queries, token, kv_head * num_heads);
    rows.insert(rows.end(), from, from + size_t(num_heads) * dim);
    row_positions.insert(row_positions.end(), size_t(num_heads), int32_t(first_position + token));
  }
  std::vector<float>& peak = layers_[size_t(layer.index)].peak[size_t(kv_head)];
  const auto first = size_t(std::ranges::lower_bound(lane.positions, repeating_->begin) - lane.positions.begin());
  const auto end = size_t(std::ranges::lower_bound(lane.positions, repeating_->end) - lane.positions.begin());
  ForEachProbabilities(layer, lane.positions, lane.keys, rows, row_positions,
                       [&](size_t, std::span<const float> probabilities) {
                         for (size_t i = first; i < end; ++i) {
                           float& largest = peak[size_t(lane.positions[i])];
                           largest = std::max(largest, probabilities[i]);
                         }
                       });
}

void AttentionObserver::NoteMoments(const LayerView& layer, int kv_head, int64_t first_position, int64_t num_tokens,
                                    const float* queries) {
  const LayerGeometry& geometry = layer.geometry;
  const int num_heads = geometry.num_heads_per_kv_head(), dim = geometry.key_dim;
  const auto& turns_back = turns_back_[layers_[size_t(layer.index)].first_with_same_rope];
  std::vector<float> rows(FloatsPerQuery(geometry));
  for (size_t i = 0; i < turns_back.size(); ++i) {
    const int64_t token = FirstMoment(first_position) + int64_t(i) * kMomentStride - first_position;
    KVIST_CHECK(token < num_tokens);
    std::copy_n(QueryAt(geometry, queries, token, kv_head * num_heads), rows.size(), rows.data());
    Rotate(geometry.rope, turns_back[i], rows.data(), num_heads, dim);
    for (int head = 0; head < num_heads; ++head) {
      layers_[size_t(layer.index)].moments[size_t(kv_head * num_heads + head)].Add(
          {rows.data() + head * dim, size_t(dim)});
    }
  }
}

void AttentionObserver::Moments::Add(std::span<const float> query) {
  const size_t dim = query.size();
  sum.resize(dim);
  products_sum.resize(dim * dim);
  ++count;
  for (size_t i = 0; i < dim; ++i) {
    sum[i] += query[i];
    float* products = products_sum.data() + i * dim;
    const float factor = query[i];
    for (size_t j = 0; j < dim; ++j) products[j] += factor * query[j];
  }
}

std::vector<int64_t> AttentionObserver::RecentPositions(int64_t num_tokens, int num_queries) const {
  std::vector<int64_t> positions;
  for (int64_t position = std::max<int64_t>(0, num_tokens - num_queries); position < num_tokens; ++position) {
    if (recent_positions_[size_t(position % kNumRecent)] == position) positions.push_back(position);
  }
  return positions;
}

void AttentionObserver::Collect(const LayerView& layer, int kv_head, const LaneRows& rows, int64_t num_tokens,
                                int num_queries, const WantedEvidence& wanted, LaneEvidence& evidence) const {
  const LayerGeometry& geometry = layer.geometry;
  const Layer& noted = layers_[size_t(layer.index)];
  const int num_heads = geometry.num_heads_per_kv_head(), first_head = kv_head * num_heads;
  if (wanted.recent)
    CollectRecent(layer, kv_head, rows, RecentPositions(num_tokens, num_queries), wanted.rows, evidence);
  if (wanted.mass) {
    const auto& mass = noted.mass[size_t(kv_head)];
    for (const int32_t position : rows.positions) {
      evidence.mass.push_back(size_t(position) < mass.size() ? mass[size_t(position)] : 0.0f);
    }
  }
  if (wanted.peak) {
    // What came after the repetition was not looked at, and stays.
    const auto& peak = noted.peak[size_t(kv_head)];
    for (const int32_t position : rows.positions) {
      evidence.peak.push_back(size_t(position) < peak.size() ? peak[size_t(position)] : 1.0f);
    }
  }
  if (!wanted.future_queries) return;
  const Turn turn = MeanTurn(geometry.rope, num_tokens, kExpectedFuture);
  for (int head = first_head; head < first_head + num_heads; ++head) {
    evidence.future_queries.push_back(FutureMoments(geometry, turn, noted.moments[size_t(head)]));
  }
}

void AttentionObserver::CollectRecent(const LayerView& layer, int kv_head, const LaneRows& rows,
                                      std::span<const int64_t> positions, bool each, LaneEvidence& evidence) const {
  const LayerGeometry& geometry = layer.geometry;
  const auto dim = size_t(geometry.key_dim), num_heads = size_t(evidence.num_query_heads);
  const float* noted = layers_[size_t(layer.index)].recent_queries.data();
  std::vector<float> queries;
  std::vector<int32_t> query_positions;
  for (size_t head = size_t(kv_head) * num_heads; head < size_t(kv_head + 1) * num_heads; ++head) {
    for (const int64_t position : positions) {
      const float* from = noted + (size_t(position % kNumRecent) * size_t(geometry.num_query_heads) + head) * dim;
      queries.insert(queries.end(), from, from + dim);
      query_positions.push_back(int32_t(position));
    }
  }
  evidence.num_rows_per_head = int(positions.size());
  if (each) evidence.probabilities.reserve(query_positions.size() * rows.positions.size());
  std::vector<double> sums(rows.positions.size());
  ForEachProbabilities(
      layer, rows.positions, rows.keys, queries, query_positions, [&](size_t, std::span<const float> probabilities) {
        for (size_t i = 0; i < sums.size(); ++i) sums[i] += double(probabilities[i]);
        if (!each) return;
        evidence.probabilities.insert(evidence.probabilities.end(), probabilities.begin(), probabilities.end());
      });
  const auto count = double(query_positions.size());
  for (const double sum : sums) evidence.recent.push_back(float(sum / count));
}

}  // namespace kvist
