// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "kvist/cache.h"
#include "model/model.h"

namespace kvist {

struct SpeedupPoint {
  int num_tokens;
  double with_cache_ms;     // for the prompt and all tokens
  double without_cache_ms;  // the same when every token computes the whole text before it again
};

// What a cache is for: the time to generate tokens greedily after a prompt, with it and without it. One run of each
// way to the longest length gives the times of the shorter ones.
// `progress` is called with the tokens computed so far and all there are; false stops.
// kCorrupt when the two ways differ in the last bit of any logit; kCancelled when progress said so; kInvalidArgument
// for no prompt; else as Model::Forward.
Result<std::vector<SpeedupPoint>> MeasureSpeedup(Model& model, Cache& cache, std::span<const Token> prompt,
                                                 std::span<const int> lengths,
                                                 const std::function<bool(int64_t, int64_t)>& progress);

}  // namespace kvist
