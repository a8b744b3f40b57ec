// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/quality.h"
#include "engine/repetition.h"
#include "engine/retention_case.h"
#include "kvist/error.h"
#include "kvist/geometry.h"
#include "kvist/retention.h"
#include "model/model.h"

namespace kvist {

// What a text's continuation loses by retention and page selection. A prefix is computed with nothing lost, a policy
// then gives up tokens of it, without having seen what comes, and the model goes on with the text itself.
struct RetentionQualityOptions {
  int64_t prefix_tokens = 4096;
  int64_t continuation_tokens = 256;
  int num_windows = 2;
  std::optional<Token> bos = {};
  CacheOptions cache = {};    // its form does not count
  RepeatPrompts repeat = {};  // for kvzip
};

// One case, over all windows.
struct RetentionQuality {
  RetentionCase what;
  Estimate kl;  // of the continuation's predictions, from those with the whole prefix in f32
  double same_top = 0;
  double perplexity = 0;
  double recovered = 0;  // of what the prefix is worth, in nats: 1 as good as all of it, 0 as none of it
  double held_tokens = 0, held_bytes = 0, retain_s = 0;  // means over windows, when the continuation begins
  // By a lane, mean over windows, at the last token where pages are selected (Sequence::num_read_tokens); else 0.
  double read_tokens = 0;
};

struct RetentionQualityReport {
  double base_perplexity = 0;       // with the whole prefix, in f32
  double no_prefix_perplexity = 0;  // with none
  double prefill_s = 0;             // of a prefix, mean over windows, with nothing observed
  double observed_prefill_s = 0;    // and while attention is noted for all policies that ask
  double repetition_s = 0;          // of the second pass, where kvzip asks for it
  std::vector<RetentionQuality> cases;
};

// kInvalidArgument: no cases, a share that is not in (0, 1], too few tokens of text, a window longer than the model's
// context; kCancelled when progress(done, all) returns false; what Forward returns.
Result<RetentionQualityReport> MeasureRetention(Model& model, std::span<const Token> text,
                                                std::span<const RetentionCase> cases,
                                                const RetentionQualityOptions& options,
                                                const std::function<bool(int64_t, int64_t)>& progress);

}  // namespace kvist
