// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <queue>
#include <span>
#include <vector>

#include "model/tokenizer.h"

namespace kvist {

// A stretch of text that is one piece so far. Symbols that were merged into their left neighbour have begin == end.
struct Symbol {
  uint32_t begin, end;     // bytes of the text
  Token token;             // PieceMap::kNone when the vocabulary has none
  int32_t previous, next;  // neighbours by index; -1 at the ends
};

// What joining two neighbours gives; token is PieceMap::kNone when they don't join.
struct Merge {
  Token token;
  float priority;  // higher goes first; of equal ones the leftmost
};

// Joins neighbours, best first, until none join: the loop both kinds of BPE share. `find(left, right)` gives the Merge
// of two symbols. Costs O(n log n) for n symbols, however long the text is.
template <class Find>
void MergeSymbols(std::vector<Symbol>& symbols, const Find& find) {
  struct Candidate {
    float priority;
    int32_t left;
    uint32_t middle, end;  // where the two halves ended when this was queued, to recognise stale entries
    Token token;
    bool operator<(const Candidate& other) const {
      return priority != other.priority ? priority < other.priority : left > other.left;
    }
  };
  std::priority_queue<Candidate> queue;
  const auto push = [&](int32_t left) {
    if (left < 0 || symbols[left].next < 0) return;
    const Symbol& right = symbols[symbols[left].next];
    const Merge merge = find(symbols[left], right);
    if (merge.token >= 0) queue.push({merge.priority, left, symbols[left].end, right.end, merge.token});
  };
  for (size_t i = 0; i + 1 < symbols.size(); ++i) push(static_cast<int32_t>(i));
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Symbol& left = symbols[best.left];
    if (left.begin == left.end || left.end != best.middle || left.next < 0) continue;
    Symbol& right = symbols[left.next];
    if (right.end != best.end) continue;
    left.end = right.end;
    left.token = best.token;
    left.next = right.next;
    if (right.next >= 0) symbols[right.next].previous = best.left;
    right.begin = right.end;
    push(left.previous);
    push(best.left);
  }
}

}  // namespace kvist
