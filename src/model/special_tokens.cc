// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors

#include "model/special_tokens.h"

namespace kvist {

SpecialTokens::SpecialTokens(const Vocabulary& vocabulary) : roots_(256, -1) {
  for (size_t i = 0; i < vocabulary.pieces.size(); ++i) {
    const TokenType type = vocabulary.types[i];
    const bool is_control = type == TokenType::kControl || type == TokenType::kUnknown;
    if (vocabulary.pieces[i].empty() || !(is_control || type == TokenType::kUserDefined)) continue;
    Insert(vocabulary.pieces[i], static_cast<Token>(i), is_control);
  }
}

void SpecialTokens::Insert(std::string_view piece, Token token, bool is_control) {
  int32_t node = -1;
  for (const char c : piece) {
    const auto byte = static_cast<uint8_t>(c);
    int32_t child = node < 0 ? roots_[byte] : Child(node, byte);
    if (child < 0) {
      child = static_cast<int32_t>(nodes_.size());
      nodes_.push_back({.byte = byte, .next_sibling = node < 0 ? -1 : nodes_[node].first_child});
      (node < 0 ? roots_[byte] : nodes_[node].first_child) = child;
    }
    node = child;
  }
  if (nodes_[node].token >= 0) return;  // two tokens of one name: the first, as everywhere
  nodes_[node].token = token;
  nodes_[node].is_control = is_control;
}

int32_t SpecialTokens::Child(int32_t node, uint8_t byte) const {
  int32_t child = nodes_[node].first_child;
  while (child >= 0 && nodes_[child].byte != byte) child = nodes_[child].next_sibling;
  return child;
}

std::optional<SpecialTokens::Match> SpecialTokens::Find(std::string_view text, size_t from, bool parse_special) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    std::optional<Match> longest;
    int32_t node = roots_[static_cast<uint8_t>(text[begin])];
    for (size_t end = begin + 1; node >= 0; ++end) {
      const Node& at = nodes_[node];
      if (at.token >= 0 && (parse_special || !at.is_control)) longest = {begin, end, at.token};
      if (end == text.size()) break;
      node = Child(node, static_cast<uint8_t>(text[end]));
    }
    if (longest) return longest;
  }
  return std::nullopt;
}

}  // namespace kvist
