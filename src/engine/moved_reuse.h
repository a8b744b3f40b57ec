// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>

#include "kvist/cache.h"

namespace kvist {

// Takes a sequence through its prompt from one stored chunk to the next (Sequence::FindMoved), where the cache reuses
// moved chunks: computing has to stop where one begins. One for each sequence.
class MovedReuse {
 public:
  // To be called before each step: goes on with the chunks that begin where the sequence ends, and looks for the next
  // when there is none. Returns the tokens. reusable: all of the prompt but its last token.
  int64_t Take(Sequence& sequence, std::span<const Token> reusable);

  // Where a step that would end there has to end.
  int64_t StepEnd(int64_t end) const { return next_ ? std::min(end, next_->position) : end; }
  // Tokens before it will be found by others whose prompt begins alike.
  int64_t end_of_prefix() const { return end_of_prefix_; }
  // Into the report of the request that the sequence is for, however often it begins again.
  void CountInto(ReuseReport& report, const Sequence& sequence) const;

 private:
  bool has_searched_ = false;
  std::optional<MovedChunk> next_;
  int64_t end_of_prefix_ = INT64_MAX;
  int64_t num_tokens_ = 0;
  int64_t num_chunks_ = 0;
};

}  // namespace kvist
