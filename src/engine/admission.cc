// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "engine/admission.h"

#include <algorithm>

#include "kvist/kv_size.h"

namespace kvist {

Admission::Admission(const Cache& cache, int64_t step_tokens)
    : cache_(cache), step_tokens_(step_tokens), full_geometry_(cache.geometry()), full_options_(cache.options()) {
  const CacheGeometry& geometry = cache.geometry();
  full_geometry_.layers.clear();
  full_options_.layer_forms.clear();
  for (size_t i = 0; i < geometry.layers.size(); ++i) {
    if (geometry.layers[i].window > 0) continue;
    full_geometry_.layers.push_back(geometry.layers[i]);
    if (!cache.options().layer_forms.empty()) full_options_.layer_forms.push_back(cache.options().layer_forms[i]);
  }
}

size_t Admission::WantedBytes(const ActiveRequest& request,
                              std::span<const std::shared_ptr<ActiveRequest>> others) const {
  int64_t num_common = 0;
  for (const auto& other : others) {
    if (other->salt() != request.salt()) continue;
    num_common = std::max(num_common, NumCommonTokens(request.reusable_tokens(), other->text.tokens()));
  }
  const int64_t num_shared = num_common / cache_.geometry().block_tokens * cache_.geometry().block_tokens;
  const auto bytes = [this](int64_t num_tokens) {
    return KvBytes(cache_.geometry(), cache_.options(), num_tokens, step_tokens_);
  };
  size_t there = bytes(request.num_stored());
  if (num_shared > request.num_stored() && !full_geometry_.layers.empty()) {
    there = std::max(there, KvBytes(full_geometry_, full_options_, num_shared, step_tokens_));
  }
  const size_t all = bytes(request.text.num_tokens());
  return all - std::min(all, there);
}

bool Admission::HasRoomFor(const ActiveRequest& request, const Line& running) const {
  const size_t budget_bytes = cache_.options().budget_bytes;
  const CacheStats stats = cache_.stats();
  const size_t block_bytes = KvBytes(cache_.geometry(), cache_.options(), cache_.geometry().block_tokens, 1);
  size_t bytes = stats.live_bytes - std::min(stats.live_bytes, stats.idle_bytes);
  for (size_t i = 0; i < running.size(); ++i) {
    if (!running[i]->is_decoding()) bytes += WantedBytes(*running[i], std::span(running).first(i));
  }
  bytes += WantedBytes(request, running);
  return bytes + (running.size() + 1) * block_bytes <= budget_bytes;
}

bool Admission::FitsAlone(int64_t num_tokens) const {
  const CacheOptions& options = cache_.options();
  return KvBytes(cache_.geometry(), options, num_tokens, cache_.geometry().block_tokens) <= options.budget_bytes;
}

}  // namespace kvist
