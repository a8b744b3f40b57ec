// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "kvist/cache.h"

namespace kvist {

// What decoding costs when most of a sequence is in the disk tier: the steps of the cache alone (append and attend in
// every layer), without a model's own work, which would hide a part of the reading.
struct SpilledBench {
  CacheGeometry geometry;
  Form form;
  std::string disk_tier;  // specification
  ModelIdentity identity;
  int num_threads = 1;
  int num_rounds = 3;
  int num_steps = 16;  // of a round
};

struct SpilledTiming {
  // Medians of the rounds: spilled; spilled, without reading ahead (CacheOptions::reads_ahead); all in memory.
  double tokens_per_s = 0, in_turn_tokens_per_s = 0, memory_tokens_per_s = 0;
  double read_bytes = 0, wait_ms = 0;  // of a step: read from the tier, and waited for that (median)
  int64_t spilled_tokens = 0;
  size_t budget_bytes = 0;  // of the spilled sequence's cache
};

// Fills a sequence with the tokens in a quarter of the memory that they need (or what is needed at least, where that is
// more), twice, and one without a limit; then decodes a token at a time behind each, in turns. Asks keeps_going before
// each step. Errors as Cache::Open and Sequence::Spill; kInvalidArgument where nothing has to be spilled.
Result<SpilledTiming> MeasureSpilled(const SpilledBench& bench, std::span<const Token> tokens,
                                     const std::function<Status()>& keeps_going);

}  // namespace kvist
