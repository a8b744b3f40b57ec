// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "policy/load_plan.h"

#include <algorithm>

namespace kvist {
namespace {

constexpr double kFade = 0.9;  // what a measurement still weighs after the next one

}  // namespace

void CostLine::Add(double size, double seconds) {
  const std::lock_guard lock(mutex_);
  for (double* sum : {&weight_, &sizes_, &seconds_, &squares_, &products_}) *sum *= kFade;
  weight_ += 1;
  sizes_ += size;
  seconds_ += seconds;
  squares_ += size * size;
  products_ += size * seconds;
}

std::optional<double> CostLine::SecondsFor(double size) const {
  const std::lock_guard lock(mutex_);
  if (weight_ == 0) return std::nullopt;
  const double mean_size = sizes_ / weight_, mean_seconds = seconds_ / weight_;
  const double variance = squares_ / weight_ - mean_size * mean_size;
  // Sizes that are nearly alike say nothing of the slope: the cost is proportional then.
  double slope = mean_size > 0 ? mean_seconds / mean_size : 0;
  if (variance > 0.01 * mean_size * mean_size) {
    slope = std::clamp((products_ / weight_ - mean_size * mean_seconds) / variance, 0.0, slope);
  }
  return std::max(0.0, mean_seconds + slope * (size - mean_size));
}

bool IsWorthLoading(std::optional<double> load_seconds, const CostLine& compute, int64_t begin, int64_t end) {
  const auto seconds_a_token = compute.SecondsFor(double(begin + end) / 2);
  if (!load_seconds || !seconds_a_token) return true;
  return *load_seconds <= *seconds_a_token * double(end - begin);
}

}  // namespace kvist
