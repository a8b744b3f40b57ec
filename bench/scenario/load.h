// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "engine/scheduler.h"
#include "kvist/cache.h"
#include "kvist/error.h"
#include "model/model.h"
#include "model/tokenizer.h"

namespace kvist {

// Many requests at once: what they want and what they get.
struct LoadOptions {
  int num_requests = 32;
  int64_t prompt_tokens = 512;
  int64_t output_tokens = 128;  // fewer where the model ends a text
  double shared_share = 0.5;    // of each prompt, from its first token on: the same tokens in all of them; 0 to 1
  uint64_t seed = 1;            // of the prompts, and of each request's sampling at temperature 1
  SchedulerOptions scheduler = {};
};

struct LoadResult {
  size_t wanted_bytes = 0;  // of keys and values, if all had all of their tokens in memory at once and shared nothing
  size_t budget_bytes = 0;
  size_t peak_committed_bytes = 0;
  size_t peak_resident_bytes = 0;  // as the operating system tells, looked at every few steps
  int64_t num_failed = 0;          // requests that ended with an error
  int64_t output_tokens = 0;
  double seconds = 0;
  double output_tokens_per_s = 0;
  double first_token_mean_s = 0;  // from the start, when all requests come, to a request's first text
  double first_token_p95_s = 0;
  SchedulerStats scheduler = {};
};

// Submits all requests to a scheduler and runs it until none is left. Looking at resident bytes is part of the time
// (about 1 ms every 16 steps). `progress` (may be empty) is called before each step with the requests that have ended
// and their number; false stops with kCancelled.
// REQUIRES: the cache was opened with the model's geometry and shares prefixes; for peaks of this load alone, nothing
// else has used it.
// kInvalidArgument for a number out of range; else as Scheduler::Submit and Cache::ResidentBytes.
Result<LoadResult> RunLoad(Model& model, const std::shared_ptr<const Tokenizer>& tokenizer, Cache& cache,
                           const LoadOptions& options, const std::function<bool(int64_t, int64_t)>& progress = {});

}  // namespace kvist
