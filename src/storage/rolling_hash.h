// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <span>

#include "kvist/reuse.h"

namespace kvist {

// A hash of some consecutive tokens that moves on by one token in O(1) (Karp and Rabin 1987): a polynomial of the
// tokens modulo 2^64. Two texts with the same hash are easily made on purpose, so whoever looks something up compares
// tokens.
class RollingHash {
 public:
  explicit RollingHash(std::span<const Token> tokens) {
    for (const Token token : tokens) value_ = value_ * kBase + Number(token);
    for (size_t i = 1; i < tokens.size(); ++i) first_weight_ *= kBase;
  }

  uint64_t value() const { return value_; }
  // `first` leaves, `next` comes to the end.
  void Move(Token first, Token next) { value_ = (value_ - Number(first) * first_weight_) * kBase + Number(next); }

  static constexpr uint64_t kBase = 16777619;  // odd, and more than a vocabulary has

 private:
  static uint64_t Number(Token token) { return static_cast<uint64_t>(int64_t{token}); }

  uint64_t value_ = 0;
  uint64_t first_weight_ = 1;  // of the first token
};

}  // namespace kvist
