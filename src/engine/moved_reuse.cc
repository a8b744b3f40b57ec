// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "engine/moved_reuse.h"

namespace kvist {

int64_t MovedReuse::Take(Sequence& sequence, std::span<const Token> reusable) {
  int64_t num_taken = 0;
  while (!has_searched_ || (next_ && next_->position <= sequence.num_tokens())) {
    if (next_ && next_->position == sequence.num_tokens()) {
      const int64_t num_tokens = sequence.ReuseMoved(reusable);
      num_taken += num_tokens;
      num_chunks_ += num_tokens > 0 ? 1 : 0;
    }
    has_searched_ = true;
    next_.reset();
    if (std::ssize(reusable) > sequence.num_tokens()) next_ = sequence.FindMoved(reusable);
    if (next_) end_of_prefix_ = std::min(end_of_prefix_, next_->position);
  }
  num_tokens_ += num_taken;
  return num_taken;
}

void MovedReuse::CountInto(ReuseReport& report, const Sequence& sequence) const {
  report.moved_tokens = std::max(report.moved_tokens, num_tokens_);
  report.moved_chunks = std::max(report.moved_chunks, num_chunks_);
  report.is_approximate |= sequence.is_approximate();
}

}  // namespace kvist
