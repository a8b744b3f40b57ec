// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>

namespace kvist {

// A cost in seconds as a straight line over a size, learned from what was measured; old measurements fade, so that it
// follows a machine that becomes slower or faster. Thread-safe.
class CostLine {
 public:
  void Add(double size, double seconds);
  // Nothing before the first measurement. Never negative.
  std::optional<double> SecondsFor(double size) const;

 private:
  mutable std::mutex mutex_;
  // Weighted sums of the measurements.
  double weight_ = 0, sizes_ = 0, seconds_ = 0, squares_ = 0, products_ = 0;
};

// How much of a stored prefix is worth loading. Loading blocks costs the same wherever they lie in the text; computing
// a token costs more the more tokens there are before it. So it is all of it or nothing: what is stored of tokens
// [begin, end) is loaded when that takes no longer than computing them. A cost that has not been measured yet is no
// reason not to load.
//   load_seconds: of all of them.  compute: seconds a token by position.
bool IsWorthLoading(std::optional<double> load_seconds, const CostLine& compute, int64_t begin, int64_t end);

}  // namespace kvist
