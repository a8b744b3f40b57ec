// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "engine/active_request.h"
#include "kvist/cache.h"

namespace kvist {

// Foresees what memory requests will want, so that none is admitted that would only have another one parked. What it
// says is an estimate: a step that does not fit all the same parks a request, nothing worse.
class Admission {
 public:
  // Borrows the cache. step_tokens: of one request, at most.
  Admission(const Cache& cache, int64_t step_tokens);

  // Whether there is room, beside what the running requests have and what their prompts still want, for the request's
  // tokens and one more block for each. Blocks that a running one has or will have too count once; idle prefixes don't
  // count, they make room. Cost: passes the blocks of the cache's prefix index, and the tokens of all.
  bool HasRoomFor(const ActiveRequest& request, const Line& running) const;
  // Whether so many tokens can be in memory when there is nothing else, computed a block at a time.
  bool FitsAlone(int64_t num_tokens) const;

 private:
  size_t WantedBytes(const ActiveRequest& request, std::span<const std::shared_ptr<ActiveRequest>> others) const;

  const Cache& cache_;
  const int64_t step_tokens_;
  // The layers that see all tokens. What others keep of the layers with a window is of other tokens.
  CacheGeometry full_geometry_;
  CacheOptions full_options_;
};

}  // namespace kvist
