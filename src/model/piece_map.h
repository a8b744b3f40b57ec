// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "model/tokenizer.h"

namespace kvist {

// From a piece's text to its id: an open hash table over views that it doesn't own. std::unordered_map took 3 times as
// long to fill with Gemma's 262,144 pieces, which every start of the program would pay.
class PieceMap {
 public:
  static constexpr Token kNone = -1;

  explicit PieceMap(std::span<const std::string_view> pieces);  // of equal pieces the first is found
  Token Find(std::string_view piece) const;                     // kNone when there is none
  size_t longest_piece_bytes() const { return longest_piece_bytes_; }

 private:
  struct Slot {
    uint32_t tag;  // the hash's upper half, so that most misses never touch the text
    Token token = kNone;
  };
  std::span<const std::string_view> pieces_;
  std::vector<Slot> slots_;  // a power of two
  size_t longest_piece_bytes_ = 0;
};

}  // namespace kvist
