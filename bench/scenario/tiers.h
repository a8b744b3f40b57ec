// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kvist/cache.h"
#include "model/model.h"

namespace kvist {

// How long it takes to keep a prefix and to have it back, by path.
struct TierBench {
  std::vector<Form> forms;
  std::vector<int64_t> tokens;     // lengths of the prefix
  std::vector<std::string> tiers;  // specifications; memory is always measured
  ModelIdentity identity;
  int num_rounds = 3;
  bool measures_prefill = true;  // computes the longest prefix once a form
  int num_chats = 50;            // that begin with the same prefix, the shortest one
};

struct TierTiming {
  std::string path;  // "memory", "disk", "redis", "session", "spilled", "prefill", "chats"
  Form form;
  int64_t tokens = 0;
  std::string metric;
  double value = 0;
};

// Fills a sequence of each length with random numbers and ends it. Metrics, medians of the rounds:
//   memory, disk, redis   resume_ms: until a new sequence (of a newly opened cache, but for memory) has the prefix;
//                         first_token_ms: the same and one step of the model; load_gb_per_s, store_gb_per_s
//   session               save_ms (durable), resume_ms
//   spilled               tokens_per_s, in_turn_tokens_per_s, memory_tokens_per_s, read_bytes, wait_ms, spilled_tokens,
//                         budget_bytes, as SpilledTiming has them; with a disk tier, where the prefix is long enough to
//                         be spilled
//   prefill               prefill_ms: what computing the prefix takes
//   chats                 kv_bytes: of num_chats sequences with that prefix and 16 tokens of their own;
//                         unshared_kv_bytes: of as many that share nothing
// Errors as Cache::Open and Model::Forward; kIo when a tier did not give back what it was given.
Result<std::vector<TierTiming>> MeasureTiers(Model& model, const TierBench& bench,
                                             const std::function<bool(int64_t done, int64_t all)>& progress);

}  // namespace kvist
