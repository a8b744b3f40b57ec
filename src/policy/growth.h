// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <vector>

#include "kvist/growth.h"

namespace kvist {

// How long sequences got: of those that reached n tokens, which share reached n + h? Learned online from the lengths
// at which sequences ended; old ones fade, so that it follows a changing load. Thread-safe.
class SurvivalCurve {
 public:
  void AddLength(int64_t num_tokens);
  // The most tokens that a sequence of this length will reach with at least this probability; the length itself when
  // too little is known.
  int64_t LikelyLength(int64_t num_tokens, double confidence) const;

 private:
  mutable std::mutex mutex_;
  std::vector<double> weights_;  // of ended sequences by bucket of their length
};

// Decides for one sequence how many tokens memory should be there for. Pure arithmetic; owns no memory.
class GrowthPredictor {
 public:
  explicit GrowthPredictor(const GrowthOptions& options) : options_(options), capacity_(InitialCapacity(options)) {}

  int64_t capacity() const { return capacity_; }

  // A step has brought the sequence to `num_tokens`. Returns the capacity, at least num_tokens.
  // curve: what earlier sequences did (used by kLearned).
  int64_t Grow(int64_t num_tokens, int64_t num_step_tokens, const SurvivalCurve& curve);
  // The sequence was cut to `num_tokens`; the capacity follows when it is more than twice what is needed (kExact:
  // always), so that cutting and growing again by turns takes no memory system calls.
  int64_t Shrink(int64_t num_tokens);

  // Mean ratio of a step's tokens to the step's before, over the window, and its variance: the article's measures of
  // growth and stability (1 / (1 + variance)).
  double mean_growth() const { return mean_growth_; }
  double growth_variance() const { return growth_variance_; }

 private:
  static int64_t InitialCapacity(const GrowthOptions& options);
  int64_t Predict(int64_t num_tokens, const SurvivalCurve& curve) const;
  void Remember(int64_t num_step_tokens);

  GrowthOptions options_;
  int64_t capacity_;
  std::deque<int64_t> steps_;  // tokens of the last steps
  double mean_growth_ = 1.0;
  double growth_variance_ = 0.0;
};

}  // namespace kvist
