// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "bench/scenario/article_caches.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <numeric>

#include "kvist/error.h"

namespace kvist {
namespace {

// How growing copies: the article clones what it holds, allocates anew and copies the clone back; once is enough.
enum class Copying { kOnce, kThroughClone };

// Counts bytes as they come and go.
struct Meter {
  size_t allocated_bytes = 0, peak_bytes = 0, cumulative_bytes = 0;
  void Take(size_t bytes) {
    allocated_bytes += bytes;
    cumulative_bytes += bytes;
    peak_bytes = std::max(peak_bytes, allocated_bytes);
  }
  void Give(size_t bytes) { allocated_bytes -= bytes; }
};

struct Free {
  void operator()(float* memory) const { std::free(memory); }
};
using Zeros = std::unique_ptr<float, Free>;

Zeros AllocateZeros(size_t num_floats) {
  Zeros memory(static_cast<float*>(std::calloc(std::max<size_t>(num_floats, 1), sizeof(float))));
  KVIST_CHECK(memory != nullptr);
  return memory;
}

// Contiguous arrays with room for some tokens.
class Arrays {
 public:
  Arrays(TokenShape shape, Meter* meter) : shape_(shape), meter_(meter) {}
  ~Arrays() { meter_->Give(bytes()); }
  Arrays(const Arrays&) = delete;
  Arrays& operator=(const Arrays&) = delete;

  // Allocates anew, copies what is held, frees the old: array by array. Returns the bytes copied.
  size_t Resize(int64_t capacity_tokens, Copying copying = Copying::kOnce) {
    const size_t old_bytes = bytes() / size_t(shape_.num_arrays);
    const size_t new_floats = size_t(capacity_tokens) * shape_.row_floats;
    const size_t held_bytes = size_t(num_tokens_) * shape_.row_floats * sizeof(float);
    arrays_.resize(size_t(shape_.num_arrays));
    for (Zeros& array : arrays_) {
      Zeros clone;
      if (copying == Copying::kThroughClone && array != nullptr) {
        clone = AllocateZeros(held_bytes / sizeof(float));
        meter_->Take(held_bytes);
        std::memcpy(clone.get(), array.get(), held_bytes);
      }
      Zeros fresh = AllocateZeros(new_floats);
      meter_->Take(new_floats * sizeof(float));
      if (array != nullptr) std::memcpy(fresh.get(), clone != nullptr ? clone.get() : array.get(), held_bytes);
      array = std::move(fresh);
      meter_->Give(old_bytes);
      if (clone != nullptr) meter_->Give(held_bytes);
    }
    capacity_tokens_ = capacity_tokens;
    if (old_bytes == 0) return 0;
    return held_bytes * size_t(shape_.num_arrays) * (copying == Copying::kThroughClone ? 2 : 1);
  }

  void Append(const float* rows, int64_t num_tokens) {
    const size_t offset = size_t(num_tokens_) * shape_.row_floats, count = size_t(num_tokens) * shape_.row_floats;
    for (Zeros& array : arrays_) std::memcpy(array.get() + offset, rows, count * sizeof(float));
    num_tokens_ += num_tokens;
  }

  // Takes the first tokens out; returns the bytes moved.
  size_t DropFirst(int64_t num_tokens) {
    const size_t from = size_t(num_tokens) * shape_.row_floats;
    const size_t rest = size_t(num_tokens_ - num_tokens) * shape_.row_floats * sizeof(float);
    for (Zeros& array : arrays_) std::memmove(array.get(), array.get() + from, rest);
    num_tokens_ -= num_tokens;
    return rest * size_t(shape_.num_arrays);
  }

  // Of a cache that holds these arrays and nothing else.
  ArticleStats Stats(size_t copied_bytes, int64_t num_resizes) const {
    return {num_tokens_,
            capacity_tokens_,
            size_t(num_tokens_) * shape_.token_bytes(),
            meter_->allocated_bytes,
            meter_->peak_bytes,
            meter_->cumulative_bytes,
            copied_bytes,
            num_resizes};
  }

  const float* array(int index) const { return arrays_[size_t(index)].get(); }
  int64_t num_tokens() const { return num_tokens_; }
  int64_t capacity_tokens() const { return capacity_tokens_; }
  size_t bytes() const { return size_t(capacity_tokens_) * shape_.token_bytes(); }

 private:
  const TokenShape shape_;
  Meter* const meter_;
  std::vector<Zeros> arrays_;
  int64_t num_tokens_ = 0;
  int64_t capacity_tokens_ = 0;
};

// Static, and with a factor dynamic.
class GrowingCache : public ArticleCache {
 public:
  GrowingCache(TokenShape shape, int64_t initial_tokens, double factor, int64_t max_tokens, Copying copying)
      : shape_(shape), factor_(factor), max_tokens_(max_tokens), copying_(copying), arrays_(shape, &meter_) {
    arrays_.Resize(initial_tokens);
  }

  bool Append(const float* rows, int64_t num_tokens) override {
    if (!MakeRoom(arrays_.num_tokens() + num_tokens)) return false;
    arrays_.Append(rows, num_tokens);
    return true;
  }

  ArticleStats stats() const override { return arrays_.Stats(copied_bytes_, num_resizes_); }

 protected:
  bool MakeRoom(int64_t required_tokens) {
    if (required_tokens <= arrays_.capacity_tokens()) return true;
    if (required_tokens > max_tokens_) return false;
    const auto grown = int64_t(double(arrays_.capacity_tokens()) * factor_);
    copied_bytes_ += arrays_.Resize(std::max(required_tokens, std::min(grown, max_tokens_)), copying_);
    ++num_resizes_;
    return true;
  }

  const TokenShape shape_;
  const double factor_;
  const int64_t max_tokens_;
  const Copying copying_;
  Meter meter_;
  Arrays arrays_;
  size_t copied_bytes_ = 0;
  int64_t num_resizes_ = 0;
};

class PredictiveCache : public GrowingCache {
 public:
  PredictiveCache(TokenShape shape, int64_t initial_tokens, int history_window, int64_t max_tokens)
      : GrowingCache(shape, initial_tokens, 1.5, max_tokens, Copying::kThroughClone),
        history_window_(size_t(history_window)) {}

  bool Append(const float* rows, int64_t num_tokens) override {
    history_.push_back(num_tokens);
    if (history_.size() > history_window_) history_.pop_front();
    // Mended: the article compares the next step alone with the capacity. What must fit is all that is held, this
    // step and the predicted one.
    const int64_t predicted = arrays_.num_tokens() + num_tokens + PredictedStep();
    if (predicted > arrays_.capacity_tokens()) {
      const double growth = double(predicted) / double(arrays_.capacity_tokens());
      const auto capacity = int64_t(double(arrays_.capacity_tokens()) * std::max(growth, 1.3));
      if (capacity <= max_tokens_) MakeRoom(capacity);
    }
    return GrowingCache::Append(rows, num_tokens);
  }

 private:
  int64_t PredictedStep() const {
    if (history_.size() < 2) return 100;
    double sum = 0, squares = 0;
    for (size_t i = 1; i < history_.size(); ++i) {
      const double growth = double(history_[i]) / double(history_[i - 1]);
      sum += growth;
      squares += growth * growth;
    }
    const auto count = double(history_.size() - 1);
    const double mean = sum / count, variance = squares / count - mean * mean;
    return int64_t(double(history_.back()) * (variance < 0.1 ? mean : std::min(mean, 1.2)) * 1.1);
  }

  const size_t history_window_;
  std::deque<int64_t> history_;
};

class HierarchicalCache : public ArticleCache {
 public:
  HierarchicalCache(TokenShape shape, int64_t fast_tokens, int64_t slow_tokens)
      : shape_(shape), fast_tokens_(fast_tokens), slow_tokens_(slow_tokens), fast_(shape, &meter_) {
    fast_.Resize(fast_tokens);
  }

  bool Append(const float* rows, int64_t num_tokens) override {
    if (num_slow_ + fast_.num_tokens() + num_tokens > fast_tokens_ + slow_tokens_) return false;
    while (num_tokens > 0) {
      if (fast_.num_tokens() == fast_tokens_) MoveOlderHalf();
      // Mended: a step larger than the fast part raises in the article; here it goes in by pieces.
      const int64_t piece = std::min(num_tokens, fast_tokens_ - fast_.num_tokens());
      fast_.Append(rows, piece);
      rows += size_t(piece) * shape_.row_floats;
      num_tokens -= piece;
    }
    return true;
  }

  ArticleStats stats() const override {
    const int64_t num_tokens = num_slow_ + fast_.num_tokens();
    return {num_tokens,
            num_slow_ + fast_tokens_,
            size_t(num_tokens) * shape_.token_bytes(),
            meter_.allocated_bytes,
            meter_.peak_bytes,
            meter_.cumulative_bytes,
            copied_bytes_,
            num_moves_};
  }

 private:
  void MoveOlderHalf() {
    const int64_t half = fast_.num_tokens() / 2;
    auto chunk = std::make_unique<Arrays>(TokenShape{1, shape_.row_floats * size_t(shape_.num_arrays)}, &meter_);
    chunk->Resize(half);
    std::vector<float> gathered(size_t(half) * shape_.row_floats * size_t(shape_.num_arrays));
    for (int i = 0; i < shape_.num_arrays; ++i) {
      std::memcpy(gathered.data() + size_t(i) * size_t(half) * shape_.row_floats, fast_.array(i),
                  size_t(half) * shape_.row_floats * sizeof(float));
    }
    chunk->Append(gathered.data(), half);
    slow_.push_back(std::move(chunk));
    copied_bytes_ += size_t(half) * shape_.token_bytes() + fast_.DropFirst(half);
    num_slow_ += half;
    ++num_moves_;
  }

  const TokenShape shape_;
  const int64_t fast_tokens_, slow_tokens_;
  Meter meter_;
  Arrays fast_;
  std::vector<std::unique_ptr<Arrays>> slow_;
  int64_t num_slow_ = 0;
  size_t copied_bytes_ = 0;
  int64_t num_moves_ = 0;
};

class CompressedCache : public ArticleCache {
 public:
  CompressedCache(TokenShape shape, double ratio, int64_t max_tokens)
      : shape_(shape), ratio_(ratio), max_tokens_(max_tokens), arrays_(shape, &meter_) {}

  bool Append(const float* rows, int64_t num_tokens) override {
    const std::vector<float> kept = KeepLargest(rows, num_tokens);
    const auto num_kept = int64_t(kept.size() / shape_.row_floats);
    if (arrays_.num_tokens() + num_kept > max_tokens_) return false;
    copied_bytes_ += arrays_.Resize(arrays_.num_tokens() + num_kept);  // a concatenation is a new array
    arrays_.Append(kept.data(), num_kept);
    ++num_resizes_;
    return true;
  }

  ArticleStats stats() const override { return arrays_.Stats(copied_bytes_, num_resizes_); }

 private:
  std::vector<float> KeepLargest(const float* rows, int64_t num_tokens) const {
    // Mended: int(1 * ratio) is 0, so the article drops every decoded token. Here at least one stays.
    const auto num_kept = std::max<size_t>(1, size_t(double(num_tokens) * ratio_));
    std::vector<float> norms(static_cast<size_t>(num_tokens));
    for (size_t i = 0; i < norms.size(); ++i) {
      const float* row = rows + i * shape_.row_floats;
      norms[i] = std::inner_product(row, row + shape_.row_floats, row, 0.0f);
    }
    std::vector<size_t> order(norms.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::nth_element(order.begin(), order.begin() + int64_t(num_kept) - 1, order.end(),
                     [&](size_t a, size_t b) { return norms[a] > norms[b]; });
    order.resize(num_kept);
    std::ranges::sort(order);
    std::vector<float> kept;
    kept.reserve(num_kept * shape_.row_floats);
    for (size_t i : order) kept.insert(kept.end(), rows + i * shape_.row_floats, rows + (i + 1) * shape_.row_floats);
    return kept;
  }

  const TokenShape shape_;
  const double ratio_;
  const int64_t max_tokens_;
  Meter meter_;
  Arrays arrays_;
  size_t copied_bytes_ = 0;
  int64_t num_resizes_ = 0;
};

}  // namespace

std::unique_ptr<ArticleCache> MakeArticleStatic(TokenShape shape, int64_t max_tokens) {
  return std::make_unique<GrowingCache>(shape, max_tokens, 1.0, max_tokens, Copying::kOnce);
}
std::unique_ptr<ArticleCache> MakeArticleDynamic(TokenShape shape, int64_t initial_tokens, double factor,
                                                 int64_t max_tokens) {
  return std::make_unique<GrowingCache>(shape, initial_tokens, factor, max_tokens, Copying::kThroughClone);
}
std::unique_ptr<ArticleCache> MakeCopyAndGrow(TokenShape shape, int64_t initial_tokens, double factor,
                                              int64_t max_tokens) {
  return std::make_unique<GrowingCache>(shape, initial_tokens, factor, max_tokens, Copying::kOnce);
}
std::unique_ptr<ArticleCache> MakeArticlePredictive(TokenShape shape, int64_t initial_tokens, int history_window,
                                                    int64_t max_tokens) {
  return std::make_unique<PredictiveCache>(shape, initial_tokens, history_window, max_tokens);
}
std::unique_ptr<ArticleCache> MakeArticleHierarchical(TokenShape shape, int64_t fast_tokens, int64_t slow_tokens) {
  return std::make_unique<HierarchicalCache>(shape, fast_tokens, slow_tokens);
}
std::unique_ptr<ArticleCache> MakeArticleCompressed(TokenShape shape, double ratio, int64_t max_tokens) {
  return std::make_unique<CompressedCache>(shape, ratio, max_tokens);
}

}  // namespace kvist
