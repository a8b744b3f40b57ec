// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors

#include "model/piece_map.h"

#include <algorithm>
#include <bit>
#include <functional>

namespace kvist {

PieceMap::PieceMap(std::span<const std::string_view> pieces)
    : pieces_(pieces), slots_(std::bit_ceil(pieces.size() * 2 + 1)) {
  const size_t mask = slots_.size() - 1;
  for (size_t i = 0; i < pieces.size(); ++i) {
    longest_piece_bytes_ = std::max(longest_piece_bytes_, pieces[i].size());
    const uint64_t hash = std::hash<std::string_view>()(pieces[i]);
    const auto tag = static_cast<uint32_t>(hash >> 32);
    size_t slot = hash & mask;
    bool duplicate = false;
    for (; slots_[slot].token != kNone && !duplicate; slot = (slot + 1) & mask) {
      duplicate = slots_[slot].tag == tag && pieces_[slots_[slot].token] == pieces[i];
    }
    if (!duplicate) slots_[slot] = {tag, static_cast<Token>(i)};
  }
}

Token PieceMap::Find(std::string_view piece) const {
  const size_t mask = slots_.size() - 1;
  const uint64_t hash = std::hash<std::string_view>()(piece);
  const auto tag = static_cast<uint32_t>(hash >> 32);
  for (size_t slot = hash & mask; slots_[slot].token != kNone; slot = (slot + 1) & mask) {
    if (slots_[slot].tag == tag && pieces_[slots_[slot].token] == piece) return slots_[slot].token;
  }
  return kNone;
}

}  // namespace kvist
