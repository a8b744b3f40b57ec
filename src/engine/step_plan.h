// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/active_request.h"
#include "model/model.h"

namespace kvist {

// Tokens [begin, end) of a request, to be computed in one step.
struct Piece {
  ActiveRequest* request;
  int64_t begin;
  int64_t end;

  LogitsWanted logits_wanted() const {
    const bool is_last = end == request->text.num_tokens();
    return is_last && request->text.wants_output() ? LogitsWanted::kLast : LogitsWanted::kNone;
  }
};

struct StepPlan {
  std::vector<Piece> pieces;
  int64_t num_tokens = 0;
  int64_t num_shared_waits = 0;
  int64_t num_reused_tokens = 0;  // taken from other sequences while it was made
};

// What the next step computes of the running requests: a token of each one that decodes, then pieces of prompts, those
// in front first. Before its piece a request takes the blocks that another has stored of the same text; and it gets
// none while one before it computes the block that it needs next. REQUIRES: no more requests than max_batch_tokens.
// With any request, any piece.
StepPlan PlanStep(const Line& running, int64_t max_batch_tokens, int64_t block_tokens);

}  // namespace kvist
