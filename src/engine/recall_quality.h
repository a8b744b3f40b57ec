// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "engine/recall.h"
#include "engine/repetition.h"
#include "engine/retention_case.h"
#include "kvist/cache.h"
#include "kvist/error.h"
#include "model/model.h"

namespace kvist {

struct RecallQualityOptions {
  CacheOptions cache = {};    // its form does not count
  RepeatPrompts repeat = {};  // for kvzip
};

struct RecallQuality {
  RetentionCase what;
  int64_t num_asked = 0;
  double found = 0;            // share of answers of which every token is the likeliest
  double right_tokens = 0;     // share of the answers' tokens that are
  double log_probability = 0;  // of an answer's token, mean, in nats
};

struct RecallReport {
  double no_context_log_probability = 0;  // the same with the cue alone
  std::vector<RecallQuality> cases;
};

// How well a model recalls what was in a context of which tokens have been given up before it is asked.
// kInvalidArgument: no cases, nothing to recall, no cue or answer, a context longer than the model's; kCancelled when
// progress(done, all) returns false; what Forward returns.
Result<RecallReport> MeasureRecall(Model& model, std::span<const Recall> recalls, std::span<const RetentionCase> cases,
                                   const RecallQualityOptions& options,
                                   const std::function<bool(int64_t, int64_t)>& progress);

}  // namespace kvist
