// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "kvist/cache.h"

namespace kvist {

// Fills sequences with random keys and values: what is stored does not change how long it takes to store, move or
// attend to it, and nothing has to be computed for it.
class RandomFill {
 public:
  explicit RandomFill(const CacheGeometry& geometry);
  // Appends the tokens. The numbers depend on the index and the positions only: all forms store the same.
  // Before each step `keeps_going` is asked; errors as Sequence::Prepare.
  Status Append(Sequence& sequence, std::span<const Token> tokens, int index,
                const std::function<Status()>& keeps_going) const;

 private:
  const int num_layers_;
  std::vector<float> numbers_;
};

}  // namespace kvist
