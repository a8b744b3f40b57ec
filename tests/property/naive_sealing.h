// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "base/half.h"
#include "cache/rope.h"
#include "codec/quantised_tile.h"
#include "codec/rotation.h"
#include "kernels/kernels.h"
#include "kvist/cache.h"
#include "tests/property/naive_cache.h"

namespace kvist::testing {

// What comes back of a quantised tile: rows [slot][dim] with the mean (of keys) apart, and the scales of the rows.
struct SealedTile {
  std::vector<float> rows;    // [slot][dim], the mean included
  std::vector<float> mean;    // [dim] of keys, else zeros
  std::vector<float> scales;  // [slot]

  SealedTile(const QuantisedTile& tile, std::vector<float> open_rows, int first_slot, int end_slot)
      : rows(open_rows.size()), mean(size_t(tile.dim), 0.0f) {
    std::vector<std::byte> stored(tile.num_bytes);
    EncodeTile(tile, open_rows.data(), first_slot, end_slot, stored.data());
    DecodeTile(tile, stored.data(), rows.data());
    for (int slot = 0; slot < tile.block_tokens; ++slot) {
      uint16_t scale;
      std::memcpy(&scale, stored.data() + tile.scales_offset + size_t(slot) * sizeof(scale), sizeof(scale));
      scales.push_back(Bf16ToF32(scale));
    }
    if (!tile.is_key) return;
    float mean_scale;
    std::memcpy(&mean_scale, stored.data() + tile.mean_scale_offset, sizeof(mean_scale));
    for (size_t c = 0; c < mean.size(); ++c)
      mean[c] = mean_scale * float(std::to_integer<int8_t>(stored[tile.mean_offset + c]));
  }
};

// A sequence some of whose layers have quantised forms, by the words of kvist/sealing.h: which of its blocks are open
// and which sealed, what attention gives, and how far rounding may lead away from that. Values come from EncodeTile
// and DecodeTile, blocks are shared and copied as concepts.md says.
//
// Attention is computed in double, of quantised keys with the query as RoundQueries makes it. What is left:
//   - floats: kFloatTolerance, as for forms that are not quantised;
//   - weights on quantised values, which are rounded to whole numbers up to W (255, q8: 32767): a weight times its
//     value's scale, w s, to within half of max(w s) / W, the maximum over the tile. So the output is off by at most
//     the sum over tiles and their tokens of  max(w s) / (2 W s) |v|, over the sum of all w.
class NaiveSealedSequence {
 public:
  static constexpr double kFloatTolerance = 2e-5;

  // One form for each layer.
  NaiveSealedSequence(const CacheGeometry& geometry, std::vector<Form> forms, const SealingOptions& sealing)
      : geometry_(&geometry), forms_(std::move(forms)), sealing_(sealing) {
    for (size_t i = 0; i < geometry.layers.size(); ++i) {
      const int window = geometry.layers[i].window;
      auto group = std::ranges::find(groups_, window, &Group::window);
      if (group == groups_.end()) group = groups_.insert(group, Group{window, {}, false, {}, 0});
      group->layers.push_back(i);
      group->is_quantised |= IsQuantised(forms_[i]);
    }
  }
  // A fork: a step under way stays behind.
  NaiveSealedSequence(const NaiveSealedSequence& other)
      : geometry_(other.geometry_),
        forms_(other.forms_),
        sealing_(other.sealing_),
        groups_(other.groups_),
        num_tokens_(other.num_tokens_),
        num_prepared_(other.num_prepared_) {
    Forget();
  }
  NaiveSealedSequence(NaiveSealedSequence&&) = default;
  NaiveSealedSequence& operator=(const NaiveSealedSequence&) = delete;

  int64_t num_tokens() const { return num_tokens_; }

  void Prepare(const StepData& step) {
    Forget();
    num_prepared_ = int64_t(step.tokens.size());
    for (Group& group : groups_) {
      for (int64_t token = 0; token < num_prepared_; ++token) AddToken(group, step, size_t(token));
      if (group.is_quantised) Seal(group);
    }
  }
  void Commit() {
    num_tokens_ += std::exchange(num_prepared_, 0);
    for (Group& group : groups_) {
      for (Run& run : group.runs) {
        if (run.sealed) run.open.reset();
      }
      while (group.window > 0 && !group.runs.empty() &&
             group.begin + group.runs.front().count <= num_tokens_ - group.window + 1) {
        group.begin += group.runs.front().count;
        group.runs.erase(group.runs.begin());
      }
    }
  }
  void Forget() {
    for (Group& group : groups_) {
      for (Run& run : group.runs) {
        if (run.open) run.sealed.reset();
      }
      Cut(group, num_tokens_, num_tokens_ + num_prepared_);
    }
    num_prepared_ = 0;
  }
  void Remove(int64_t begin, int64_t end) {
    Forget();
    for (Group& group : groups_) Cut(group, begin, end);
    num_tokens_ -= end - begin;
  }
  void Truncate(int64_t num_tokens) { Remove(num_tokens, num_tokens_); }

  // Whether all layers still hold what a query at `position` would see of what lies before `gap`.
  bool Sees(int64_t position, int64_t gap) const {
    return std::ranges::all_of(groups_, [&](const Group& group) {
      const int64_t first = std::max<int64_t>(0, position - group.window + 1);
      return group.window == 0 || first >= std::min(gap, position) || group.begin <= first;
    });
  }

  // Calls visit(block, group, is_sealed) for every block that is held; for a shared one as often as it is held.
  template <class Visit>
  void ForEachBlock(Visit visit) const {
    for (size_t group = 0; group < groups_.size(); ++group) {
      for (const Run& run : groups_[group].runs) {
        if (run.open) visit(static_cast<const void*>(run.open.get()), group, false);
        if (run.sealed) visit(static_cast<const void*>(run.sealed.get()), group, true);
      }
    }
  }

  struct Output {
    std::vector<double> values, tolerances;  // [value_dim]
  };
  // What the query head at that position of the step under way, or of the last one, must get.
  Output Attend(size_t layer_index, int64_t position, int query_head, const float* query) const {
    const LayerGeometry& layer = geometry_->layers[layer_index];
    const Group& group = *std::ranges::find(groups_, layer.window, &Group::window);
    const auto layer_in_group = size_t(std::ranges::find(group.layers, layer_index) - group.layers.begin());
    const auto kv_head = size_t(query_head / (layer.num_query_heads / layer.num_kv_heads));
    const float scale = layer.attention_scale != 0 ? layer.attention_scale : 1.0f / std::sqrt(float(layer.key_dim));
    std::vector<float> scaled(query, query + layer.key_dim);
    for (float& x : scaled) x *= scale;

    std::vector<Seen> all_seen;
    int64_t begin = group.begin;
    for (const Run& run : group.runs) {
      const int64_t first = layer.window > 0 ? std::max(begin, position - layer.window + 1) : begin;
      const int64_t end = std::min(begin + run.count, position + 1);
      if (first < end) {
        Seen seen{.first_slot = run.first + first - begin, .weights = std::vector<double>(size_t(end - first))};
        const bool is_sealed = run.sealed && (!run.open || SeesSealed(begin, begin + run.count, position));
        seen.rows = &(is_sealed ? run.sealed : run.open)->lanes[layer_in_group][kv_head];
        if (is_sealed && IsQuantised(forms_[layer_index].k)) {
          ScoreSealed(layer, forms_[layer_index].k, scaled, run.delta, seen);
        } else {
          ScoreOpen(layer, scaled, run.delta, seen);
        }
        if (is_sealed && IsQuantised(forms_[layer_index].v))
          seen.largest_number = forms_[layer_index].v == Codec::kQ8 ? 32767 : 255;
        all_seen.push_back(std::move(seen));
      }
      begin += run.count;
    }
    return Mix(size_t(layer.value_dim), all_seen);
  }

  // The largest error of a step's output in units of what it may be, over some of its rows (all for one_in = 1).
  // After Prepare, before or after Commit, and before anything else.
  double WorstError(const StepData& step, const StepOutput& out, std::mt19937& random, unsigned one_in = 1) const {
    const int64_t first_position = num_tokens_ + num_prepared_ - int64_t(step.tokens.size());
    double worst = 0;
    for (size_t i = 0; i < out.size(); ++i) {
      const LayerGeometry& layer = geometry_->layers[i];
      for (size_t row = 0; row < step.tokens.size() * size_t(layer.num_query_heads); ++row) {
        if (random() % one_in != 0) continue;
        const Output wanted =
            Attend(i, first_position + int64_t(row) / layer.num_query_heads, int(row) % layer.num_query_heads,
                   step.queries[i].data() + row * size_t(layer.key_dim));
        for (size_t c = 0; c < wanted.values.size(); ++c) {
          const double error = std::fabs(wanted.values[c] - double(out[i][row * wanted.values.size() + c]));
          worst = std::isnan(error) ? 1e9 : std::max(worst, error / wanted.tolerances[c]);
        }
      }
    }
    return worst;
  }

 private:
  // The K and V tile of one lane as they are met.
  struct LaneRows {
    std::vector<float> keys, values;       // [slot][dim]
    std::vector<float> key_mean = {};      // [key_dim] of quantised keys
    std::vector<float> value_scales = {};  // [slot] of quantised values
  };
  struct Block {
    std::vector<std::vector<LaneRows>> lanes;  // [layer of the group][kv head]
  };
  // Consecutive tokens in consecutive slots of a block. While a step seals the block there are both.
  struct Run {
    std::shared_ptr<Block> open, sealed;
    int64_t first, count, delta;
  };
  struct Group {
    int window;
    std::vector<size_t> layers;
    bool is_quantised;
    std::vector<Run> runs;
    int64_t begin;  // position of the first run
  };
  // What one query sees of one tile.
  struct Seen {
    const LaneRows* rows = nullptr;
    int64_t first_slot = 0;
    std::vector<double> weights = {};  // of the slots from the first on; at first their scores
    double largest_number = 0;         // that weights are rounded to; 0: not rounded
  };

  int64_t block_tokens() const { return geometry_->block_tokens; }

  // A query sees its last `recent_tokens`, itself included, open.
  bool SeesSealed(int64_t begin, int64_t end, int64_t query) const {
    const bool is_sink = begin < sealing_.sink_tokens;
    return !is_sink && query >= sealing_.begin_position && end <= query + 1 - sealing_.recent_tokens;
  }

  void AddToken(Group& group, const StepData& step, size_t token) {
    auto& runs = group.runs;
    const bool has_room = !runs.empty() && runs.back().open && runs.back().delta == 0 &&
                          runs.back().first + runs.back().count < block_tokens();
    if (!has_room) {
      runs.push_back({std::make_shared<Block>(EmptyBlock(group)), nullptr, 0, 0, 0});
    } else if (runs.back().open.use_count() > 1) {
      runs.back().open = std::make_shared<Block>(*runs.back().open);
    }
    const auto slot = size_t(runs.back().first + runs.back().count++);
    for (size_t i = 0; i < group.layers.size(); ++i) {
      const size_t index = group.layers[i];
      const LayerGeometry& layer = geometry_->layers[index];
      const Form form = OpenForm(forms_[index]);
      for (size_t head = 0; head < size_t(layer.num_kv_heads); ++head) {
        LaneRows& lane = runs.back().open->lanes[i][head];
        const size_t row = token * size_t(layer.num_kv_heads) + head;
        auto store = [&](Codec codec, const std::vector<float>& from, int dim, std::vector<float>& to) {
          const auto begin = from.begin() + int64_t(row) * dim;
          std::ranges::copy(Stored(codec, {begin, begin + dim}), to.begin() + int64_t(slot) * dim);
        };
        store(form.k, step.keys[index], layer.key_dim, lane.keys);
        store(form.v, step.values[index], layer.value_dim, lane.values);
      }
    }
  }

  Block EmptyBlock(const Group& group) const {
    Block block;
    for (const size_t index : group.layers) {
      const LayerGeometry& layer = geometry_->layers[index];
      const LaneRows empty{.keys = std::vector<float>(size_t(block_tokens() * layer.key_dim)),
                           .values = std::vector<float>(size_t(block_tokens() * layer.value_dim))};
      block.lanes.emplace_back(size_t(layer.num_kv_heads), empty);
    }
    return block;
  }

  // Blocks are sealed in order, so what is older than a sealed one stays as it is.
  void Seal(Group& group) const {
    int64_t end = num_tokens_ + num_prepared_;
    const int64_t last_query = end - 1;
    for (size_t i = group.runs.size(); i-- > 0 && group.runs[i].open;) {
      Run& run = group.runs[i];
      const bool may_grow = i + 1 == group.runs.size() && run.delta == 0 && run.first + run.count < block_tokens();
      if (!may_grow && SeesSealed(end - run.count, end, last_query)) SealRun(group, run);
      end -= run.count;
    }
  }

  void SealRun(const Group& group, Run& run) const {
    run.sealed = std::make_shared<Block>(*run.open);
    for (size_t i = 0; i < group.layers.size(); ++i) {
      const LayerGeometry& layer = geometry_->layers[group.layers[i]];
      const Form form = forms_[group.layers[i]];
      const int first = int(run.first), end = int(run.first + run.count);
      for (LaneRows& lane : run.sealed->lanes[i]) {
        if (IsQuantised(form.k)) {
          const auto tile = QuantisedTile::OfKeys(form.k, layer.key_dim, geometry_->block_tokens);
          SealedTile sealed(tile, lane.keys, first, end);
          lane.keys = std::move(sealed.rows);
          lane.key_mean = std::move(sealed.mean);
        }
        if (IsQuantised(form.v)) {
          const auto tile = QuantisedTile::OfValues(form.v, layer.value_dim, geometry_->block_tokens);
          SealedTile sealed(tile, lane.values, first, end);
          lane.values = std::move(sealed.rows);
          lane.value_scales = std::move(sealed.scales);
        }
      }
    }
  }

  void Cut(Group& group, int64_t begin, int64_t end) const {
    if (begin == end) return;
    std::vector<Run> kept;
    int64_t position = group.begin;
    for (const Run& run : group.runs) {
      const int64_t before = std::clamp<int64_t>(begin - position, 0, run.count);
      const int64_t after = std::clamp<int64_t>(position + run.count - end, 0, run.count);
      if (before > 0) kept.push_back({run.open, run.sealed, run.first, before, run.delta});
      if (after > 0)
        kept.push_back({run.open, run.sealed, run.first + run.count - after, after, run.delta - (end - begin)});
      position += run.count;
    }
    group.begin -= std::clamp<int64_t>(group.begin - begin, 0, end - begin);
    group.runs = std::move(kept);
  }

  static double Dot(const float* a, const float* b, int n) {
    double sum = 0;
    for (int i = 0; i < n; ++i) sum += double(a[i]) * double(b[i]);
    return sum;
  }

  // Keys turned to where they are now.
  static void ScoreOpen(const LayerGeometry& layer, const std::vector<float>& query, int64_t delta, Seen& seen) {
    for (size_t i = 0; i < seen.weights.size(); ++i) {
      const float* key = seen.rows->keys.data() + (seen.first_slot + int64_t(i)) * layer.key_dim;
      if (delta == 0) {
        seen.weights[i] = Dot(key, query.data(), layer.key_dim);
        continue;
      }
      const auto turned = Turned(layer.rope, delta, key, layer.key_dim);
      for (int c = 0; c < layer.key_dim; ++c) seen.weights[i] += turned[size_t(c)] * double(query[size_t(c)]);
    }
  }

  // The query turned back, rotated and rounded, and rotated again: as if it had been rounded in plain channels.
  static void ScoreSealed(const LayerGeometry& layer, Codec codec, std::vector<float> query, int64_t delta,
                          Seen& seen) {
    if (delta != 0) Rotate(layer.rope, -delta, query.data(), 1, layer.key_dim);
    std::vector<float> rotated = query, rounded;
    RotateRows(rotated.data(), 1, layer.key_dim);
    float scale;
    int32_t sum;
    auto round = [&](auto numbers) {
      RoundQueries(rotated.data(), 1, layer.key_dim, numbers.data(), &scale, &sum);
      for (const auto number : numbers) rounded.push_back(float(number) * scale);
    };
    if (codec == Codec::kQ8) {
      round(std::vector<int16_t>(query.size()));
    } else {
      round(std::vector<int8_t>(query.size()));
    }
    RotateRows(rounded.data(), 1, layer.key_dim);
    const float* mean = seen.rows->key_mean.data();
    const double of_mean = Dot(query.data(), mean, layer.key_dim) - Dot(rounded.data(), mean, layer.key_dim);
    for (size_t i = 0; i < seen.weights.size(); ++i) {
      const float* key = seen.rows->keys.data() + (seen.first_slot + int64_t(i)) * layer.key_dim;
      seen.weights[i] = Dot(rounded.data(), key, layer.key_dim) + of_mean;
    }
  }

  static Output Mix(size_t value_dim, std::vector<Seen>& all_seen) {
    double largest = -std::numeric_limits<double>::infinity(), sum = 0;
    for (const Seen& seen : all_seen) largest = std::max(largest, *std::ranges::max_element(seen.weights));
    for (Seen& seen : all_seen)
      for (double& weight : seen.weights) sum += weight = std::exp(weight - largest);
    Output output{std::vector<double>(value_dim, 0.0), std::vector<double>(value_dim, kFloatTolerance)};
    for (const Seen& seen : all_seen) {
      const float* values = seen.rows->values.data() + size_t(seen.first_slot) * value_dim;
      const float* scales = seen.rows->value_scales.data() + seen.first_slot;
      double largest_scaled = 0;
      if (seen.largest_number > 0)
        for (size_t i = 0; i < seen.weights.size(); ++i)
          largest_scaled = std::max(largest_scaled, seen.weights[i] * double(scales[i]));
      for (size_t i = 0; i < seen.weights.size(); ++i) {
        const bool is_rounded = seen.largest_number > 0 && scales[i] > 0;
        const double rounding = is_rounded ? largest_scaled / (2 * seen.largest_number * double(scales[i])) : 0;
        for (size_t c = 0; c < value_dim; ++c) {
          const auto value = double(values[i * value_dim + c]);
          output.values[c] += seen.weights[i] / sum * value;
          output.tolerances[c] += rounding / sum * std::fabs(value);
        }
      }
    }
    return output;
  }

  const CacheGeometry* geometry_;
  std::vector<Form> forms_;  // [layer]
  SealingOptions sealing_;
  std::vector<Group> groups_;
  int64_t num_tokens_ = 0;    // stored
  int64_t num_prepared_ = 0;  // of the step under way
};

}  // namespace kvist::testing
