// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "policy/page_selection.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

namespace kvist {

Status PageSelection::Validate() const {
  if (num_tokens >= 0 && num_dense_layers >= 0) return {};
  return Fail(ErrorCode::kInvalidArgument, "page selection counts tokens and layers: " + std::to_string(num_tokens) +
                                               " tokens and " + std::to_string(num_dense_layers) +
                                               " dense layers must not be negative");
}

void ChooseLargest(std::span<const float> bounds, size_t count, std::span<uint8_t> chosen) {
  std::ranges::fill(chosen, uint8_t{0});
  count = std::min(count, bounds.size());
  static thread_local std::vector<uint32_t> order;  // kept: allocating would cost more than choosing
  order.resize(bounds.size());
  std::iota(order.begin(), order.end(), 0u);
  std::ranges::nth_element(order, order.begin() + std::ptrdiff_t(count), [&](uint32_t a, uint32_t b) {
    return bounds[a] != bounds[b] ? bounds[a] > bounds[b] : a > b;
  });
  for (size_t i = 0; i < count; ++i) chosen[order[i]] = 1;
}

}  // namespace kvist
