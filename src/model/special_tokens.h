// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "model/vocabulary.h"

namespace kvist {

// Finds the tokens that are recognised in text as a whole, before anything is split into words or pieces: user-defined
// ones always, control ones when asked. Of those that match, the leftmost is taken, and at one place the longest.
// A trie: finding all of them costs O(text x longest special token), in practice a few compares a byte.
class SpecialTokens {
 public:
  struct Match {
    size_t begin, end;  // bytes of the text
    Token token;
  };

  explicit SpecialTokens(const Vocabulary& vocabulary);
  // The first match at or after `from`.
  std::optional<Match> Find(std::string_view text, size_t from, bool parse_special) const;

 private:
  struct Node {
    uint8_t byte;
    Token token = -1;
    bool is_control = false;
    int32_t first_child = -1, next_sibling = -1;
  };
  int32_t Child(int32_t node, uint8_t byte) const;
  void Insert(std::string_view piece, Token token, bool is_control);

  std::vector<Node> nodes_;
  std::vector<int32_t> roots_;  // [256] by first byte; -1 where no special token starts with it
};

}  // namespace kvist
