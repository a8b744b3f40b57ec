// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <algorithm>
#include <barrier>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "codec/tile.h"
#include "kvist/cache.h"
#include "kvist/geometry.h"

// What the cache is measured against: sequences as plain vectors, attention in double precision, rotation written out.
// Shares no code with the cache but the rounding of a number to its codec.
namespace kvist::testing {

// For playing another game, or a longer one.
inline uint64_t NumberFromEnvironment(const char* name, uint64_t otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr || *value == '\0' ? otherwise : std::strtoull(value, nullptr, 10);
}

// Three layers: full attention, a window (0: full, too), and full attention of another shape. Two groups or one.
inline CacheGeometry SmallGeometry(int window) {
  CacheGeometry geometry;
  geometry.block_tokens = 16;
  LayerGeometry layer;
  layer.num_query_heads = 2;
  layer.num_kv_heads = 1;
  layer.key_dim = 16;
  layer.value_dim = 8;
  layer.rope.dims = 16;
  geometry.layers.assign(3, layer);
  geometry.layers[1].window = window;
  geometry.layers[1].rope.pairing = RopePairing::kHalves;
  geometry.layers[1].rope.dims = 8;
  geometry.layers[2].num_query_heads = 6;
  geometry.layers[2].num_kv_heads = 2;
  return geometry;
}

inline std::vector<float> RandomFloats(std::mt19937& random, size_t n, float magnitude = 1.0f) {
  std::normal_distribution<float> normal(0, magnitude);
  std::vector<float> floats(n);
  for (float& x : floats) x = normal(random);
  return floats;
}

// What comes back when the numbers are stored in the codec.
inline std::vector<float> Stored(Codec codec, std::vector<float> numbers) {
  std::vector<std::byte> bytes(CodecBytes(codec, numbers.size()));
  Encode(codec, numbers.data(), numbers.size(), bytes.data());
  Decode(codec, bytes.data(), numbers.size(), numbers.data());
  return numbers;
}

// The numbers of one step for every layer.
struct StepData {
  std::vector<Token> tokens;
  std::vector<std::vector<float>> keys;     // [layer][token, kv_head, key_dim]
  std::vector<std::vector<float>> values;   // [layer][token, kv_head, value_dim]
  std::vector<std::vector<float>> queries;  // [layer][token, query_head, key_dim]

  // Tokens [begin, end) of it.
  StepData Part(const CacheGeometry& geometry, int64_t begin, int64_t end) const {
    auto cut = [&](const std::vector<float>& numbers, int per_token) {
      return std::vector<float>(numbers.begin() + begin * per_token, numbers.begin() + end * per_token);
    };
    StepData part;
    part.tokens.assign(tokens.begin() + begin, tokens.begin() + end);
    for (size_t i = 0; i < geometry.layers.size(); ++i) {
      const LayerGeometry& layer = geometry.layers[i];
      part.keys.push_back(cut(keys[i], layer.num_kv_heads * layer.key_dim));
      part.values.push_back(cut(values[i], layer.num_kv_heads * layer.value_dim));
      part.queries.push_back(cut(queries[i], layer.num_query_heads * layer.key_dim));
    }
    return part;
  }
};

inline StepData RandomStep(std::mt19937& random, const CacheGeometry& geometry, int64_t num_tokens) {
  StepData step;
  for (int64_t i = 0; i < num_tokens; ++i) step.tokens.push_back(Token(random() % 50000));
  for (const LayerGeometry& layer : geometry.layers) {
    const auto n = size_t(num_tokens);
    step.keys.push_back(RandomFloats(random, n * size_t(layer.num_kv_heads * layer.key_dim)));
    step.values.push_back(RandomFloats(random, n * size_t(layer.num_kv_heads * layer.value_dim)));
    // A little more than the usual spread, so that some tokens weigh much more than others.
    step.queries.push_back(RandomFloats(random, n * size_t(layer.num_query_heads * layer.key_dim), 2.0f));
  }
  return step;
}

// The outputs of one step, [layer][token, query_head, value_dim].
using StepOutput = std::vector<std::vector<float>>;

inline StepOutput EmptyOutput(const CacheGeometry& geometry, size_t num_tokens) {
  StepOutput out;
  for (const LayerGeometry& layer : geometry.layers) {
    // Not zeros: what is never written must show.
    out.emplace_back(num_tokens * size_t(layer.num_query_heads * layer.value_dim), -12345.0f);
  }
  return out;
}

inline void AppendAll(const StepData& step, Sequence& sequence) {
  for (size_t i = 0; i < step.keys.size(); ++i) sequence.Append(int(i), step.keys[i].data(), step.values[i].data());
}

// Where it does not matter what is stored.
inline void AppendZeros(const CacheGeometry& geometry, Sequence& sequence) {
  for (size_t i = 0; i < geometry.layers.size(); ++i) {
    const LayerGeometry& layer = geometry.layers[i];
    const size_t num_rows = size_t(sequence.num_prepared_tokens()) * size_t(layer.num_kv_heads);
    const std::vector<float> zeros(num_rows * size_t(std::max(layer.key_dim, layer.value_dim)));
    sequence.Append(int(i), zeros.data(), zeros.data());
  }
}

inline StepOutput AttendAll(const CacheGeometry& geometry, const StepData& step, Sequence& sequence) {
  StepOutput out = EmptyOutput(geometry, step.tokens.size());
  for (size_t i = 0; i < out.size(); ++i) sequence.Attend(int(i), step.queries[i].data(), out[i].data());
  return out;
}

// A whole step on threads that meet between Append and Attend, as a model's graph has them do.
inline Result<StepOutput> RunStepOnThreads(const CacheGeometry& geometry, const StepData& step, Sequence& sequence,
                                           int num_threads) {
  KVIST_TRY_VOID(sequence.Prepare(step.tokens));
  StepOutput out = EmptyOutput(geometry, step.tokens.size());
  std::barrier barrier(num_threads);
  auto work = [&](int index) {
    for (size_t i = 0; i < out.size(); ++i) {
      sequence.Append(int(i), step.keys[i].data(), step.values[i].data(), {index, num_threads});
      barrier.arrive_and_wait();
      sequence.Attend(int(i), step.queries[i].data(), out[i].data(), {index, num_threads});
    }
  };
  std::vector<std::thread> threads;
  for (int index = 1; index < num_threads; ++index) threads.emplace_back(work, index);
  work(0);
  for (std::thread& thread : threads) thread.join();
  KVIST_TRY_VOID(sequence.Commit());
  return out;
}

inline Result<StepOutput> RunStep(const CacheGeometry& geometry, const StepData& step, Sequence& sequence) {
  return RunStepOnThreads(geometry, step, sequence, 1);
}

// The outputs of the data's tokens after the sequence's, by run(part) for each step. Steps end at multiples of
// step_tokens, however many tokens there were before, so that results compare.
template <class Run>
StepOutput RunRest(const CacheGeometry& geometry, const StepData& data, Sequence& sequence, int64_t step_tokens,
                   Run run) {
  StepOutput all(geometry.layers.size());
  while (sequence.num_tokens() < std::ssize(data.tokens)) {
    const int64_t begin = sequence.num_tokens();
    const int64_t end = std::min(std::ssize(data.tokens), (begin / step_tokens + 1) * step_tokens);
    const StepOutput out = run(data.Part(geometry, begin, end));
    for (size_t i = 0; i < all.size(); ++i) all[i].insert(all[i].end(), out[i].begin(), out[i].end());
  }
  return all;
}

inline StepOutput RunRest(const CacheGeometry& geometry, const StepData& data, Sequence& sequence,
                          int64_t step_tokens = 64) {
  return RunRest(geometry, data, sequence, step_tokens,
                 [&](const StepData& part) { return RunStep(geometry, part, sequence).value(); });
}

// Of outputs [layer][token, ...] of a text of num_tokens, those of the last tokens.
inline StepOutput Last(StepOutput out, int64_t num_tokens, int64_t num_last) {
  for (std::vector<float>& layer : out) {
    const int64_t per_token = std::ssize(layer) / num_tokens;
    layer.erase(layer.begin(), layer.end() - num_last * per_token);
  }
  return out;
}

// A vector turned by that many positions, as the definition of rotary embeddings says.
inline std::vector<double> Turned(const RopeSpec& rope, int64_t positions, const float* x, int dim) {
  std::vector<double> turned(x, x + dim);
  for (int i = 0; i < rope.dims / 2; ++i) {
    double angle = double(positions) * double(rope.position_scale) / std::pow(double(rope.base), 2.0 * i / rope.dims);
    if (!rope.frequency_factors.empty()) angle /= double(rope.frequency_factors[size_t(i)]);
    const auto a = size_t(rope.pairing == RopePairing::kAdjacent ? 2 * i : i);
    const auto b = size_t(rope.pairing == RopePairing::kAdjacent ? 2 * i + 1 : i + rope.dims / 2);
    turned[a] = std::cos(angle) * double(x[a]) - std::sin(angle) * double(x[b]);
    turned[b] = std::sin(angle) * double(x[a]) + std::cos(angle) * double(x[b]);
  }
  return turned;
}

class NaiveSequence {
 public:
  NaiveSequence(const CacheGeometry& geometry, Form form)
      : geometry_(&geometry), form_(form), keys_(geometry.layers.size()), values_(geometry.layers.size()) {}

  int64_t num_tokens() const { return int64_t(tokens_.size()); }
  const std::vector<Token>& tokens() const { return tokens_; }

  // delta: the tokens' positions less those that their keys are rotated to.
  void Add(const StepData& step, int64_t delta = 0) {
    for (size_t t = 0; t < step.tokens.size(); ++t) rotated_to_.push_back(num_tokens() + int64_t(t) - delta);
    tokens_.insert(tokens_.end(), step.tokens.begin(), step.tokens.end());
    for (size_t i = 0; i < keys_.size(); ++i) {
      const auto keys = Stored(form_.k, step.keys[i]), values = Stored(form_.v, step.values[i]);
      keys_[i].insert(keys_[i].end(), keys.begin(), keys.end());
      values_[i].insert(values_[i].end(), values.begin(), values.end());
    }
  }

  void Remove(int64_t begin, int64_t end) {
    auto cut = [&](auto& numbers, int per_token) {
      numbers.erase(numbers.begin() + begin * per_token, numbers.begin() + end * per_token);
    };
    for (size_t i = 0; i < keys_.size(); ++i) {
      const LayerGeometry& layer = geometry_->layers[i];
      cut(keys_[i], layer.num_kv_heads * layer.key_dim);
      cut(values_[i], layer.num_kv_heads * layer.value_dim);
    }
    cut(tokens_, 1);
    cut(rotated_to_, 1);
  }
  void Truncate(int64_t num_tokens) { Remove(num_tokens, this->num_tokens()); }

  // What the query head at that position must get.
  std::vector<double> Attend(int layer_index, int64_t position, int query_head, const float* query) const {
    const LayerGeometry& layer = geometry_->layers[size_t(layer_index)];
    const int kv_head = query_head / (layer.num_query_heads / layer.num_kv_heads);
    const int64_t first = layer.window > 0 ? std::max<int64_t>(0, position - layer.window + 1) : 0;
    const double scale =
        layer.attention_scale != 0 ? double(layer.attention_scale) : 1 / std::sqrt(double(layer.key_dim));
    std::vector<double> weights;
    for (int64_t t = first; t <= position; ++t) {
      const float* key = keys_[size_t(layer_index)].data() + (t * layer.num_kv_heads + kv_head) * layer.key_dim;
      const auto turned = Turned(layer.rope, t - rotated_to_[size_t(t)], key, layer.key_dim);
      double score = 0;
      for (int c = 0; c < layer.key_dim; ++c) score += turned[size_t(c)] * double(query[c]);
      weights.push_back(score * scale);
    }
    const double largest = *std::max_element(weights.begin(), weights.end());
    double sum = 0;
    for (double& weight : weights) sum += weight = std::exp(weight - largest);
    std::vector<double> out(size_t(layer.value_dim), 0.0);
    for (int64_t t = first; t <= position; ++t) {
      const float* value = values_[size_t(layer_index)].data() + (t * layer.num_kv_heads + kv_head) * layer.value_dim;
      for (int c = 0; c < layer.value_dim; ++c) out[size_t(c)] += weights[size_t(t - first)] / sum * double(value[c]);
    }
    return out;
  }

  // The largest difference between a step's output and what it must be, over some of its rows (all for one_in = 1).
  // The step's tokens must be added already, and be the last ones.
  double WorstError(const StepData& step, const StepOutput& out, std::mt19937& random, unsigned one_in = 1) const {
    double worst = 0;
    for (size_t i = 0; i < keys_.size(); ++i) {
      const LayerGeometry& layer = geometry_->layers[i];
      for (size_t row = 0; row < step.tokens.size() * size_t(layer.num_query_heads); ++row) {
        if (random() % one_in != 0) continue;
        const auto token = int64_t(row) / layer.num_query_heads;
        const auto wanted =
            Attend(int(i), num_tokens() - int64_t(step.tokens.size()) + token, int(row) % layer.num_query_heads,
                   step.queries[i].data() + row * size_t(layer.key_dim));
        for (size_t c = 0; c < wanted.size(); ++c) {
          const double error = std::fabs(wanted[c] - double(out[i][row * wanted.size() + c]));
          worst = std::isnan(error) ? 1e9 : std::max(worst, error);
        }
      }
    }
    return worst;
  }

 private:
  const CacheGeometry* geometry_;
  Form form_;
  std::vector<Token> tokens_;
  std::vector<int64_t> rotated_to_;         // [token] the position its key was rotated to
  std::vector<std::vector<float>> keys_;    // [layer][token, kv_head, key_dim] as stored
  std::vector<std::vector<float>> values_;  // [layer][token, kv_head, value_dim] as stored
};

// Which blocks a sequence of one group should hold, by the rules of concepts.md: enough to know the bytes in use.
class NaiveBlocks {
 public:
  NaiveBlocks(int block_tokens, int window) : block_tokens_(block_tokens), window_(window) {}

  void Grow(int64_t num_tokens) {
    if (!runs_.empty() && !runs_.back().moved) {
      Run& last = runs_.back();
      const int64_t more = std::min(block_tokens_ - last.first - last.count, num_tokens);
      if (more > 0 && last.block.use_count() > 1) last.block = std::make_shared<int>();
      last.count += more;
      num_tokens -= more;
    }
    for (; num_tokens > 0; num_tokens -= runs_.back().count) {
      runs_.push_back({std::make_shared<int>(), 0, std::min(block_tokens_, num_tokens), false});
    }
  }
  void Remove(int64_t begin, int64_t end) {
    std::vector<Run> kept;
    int64_t position = begin_;
    for (const Run& run : runs_) {
      const int64_t before = std::clamp<int64_t>(begin - position, 0, run.count);
      const int64_t after = std::clamp<int64_t>(position + run.count - end, 0, run.count);
      if (before > 0) kept.push_back({run.block, run.first, before, run.moved});
      if (after > 0) kept.push_back({run.block, run.first + run.count - after, after, run.moved || end > begin});
      position += run.count;
    }
    begin_ -= std::clamp<int64_t>(begin_ - begin, 0, end - begin);
    runs_ = std::move(kept);
  }
  void Commit(int64_t num_tokens) {
    if (window_ == 0) return;
    while (!runs_.empty() && begin_ + runs_.front().count <= num_tokens - window_ + 1) {
      begin_ += runs_.front().count;
      runs_.erase(runs_.begin());
    }
  }
  // Whether a query at `position` finds all it would see of what lies before `gap`.
  bool Sees(int64_t position, int64_t gap) const {
    const int64_t first = std::max<int64_t>(0, position - window_ + 1);
    return window_ == 0 || first >= std::min(gap, position) || begin_ <= first;
  }

  template <class Visit>
  void ForEachBlock(Visit visit) const {
    for (const Run& run : runs_) visit(run.block.get());
  }

 private:
  struct Run {
    std::shared_ptr<int> block;
    int64_t first, count;
    bool moved;
  };
  int64_t block_tokens_, window_;
  std::vector<Run> runs_;
  int64_t begin_ = 0;  // position of the first run
};

}  // namespace kvist::testing
