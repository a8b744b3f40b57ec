// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model/merge.h"
#include "model/piece_map.h"
#include "model/pretokenize.h"
#include "model/vocabulary.h"

namespace kvist {

// Byte-level BPE (GPT-2 style): every byte is a printable character of the vocabulary's pieces, words are merged pair
// by pair in the order of the merge list. Borrows the vocabulary and its map.
class ByteLevelBpe {
 public:
  // kCorrupt for a merge that isn't two pieces or whose result isn't one; kUnsupported for an unknown pre-tokenizer.
  static Result<ByteLevelBpe> Open(const Vocabulary& vocabulary, const PieceMap& map);

  // Appends the tokens of plain text. A byte the vocabulary has no piece for is left out (SmolLM2 lacks 21: bytes that
  // UTF-8 never has, two lead bytes of planes nobody uses, six control characters).
  void Encode(std::string_view text, std::vector<Token>& tokens) const;

  const Pretokenizer& pretokenizer() const { return pretokenizer_; }

 private:
  // The merges, found by the two ids: an open hash table.
  struct PairSlot {
    uint64_t key = ~uint64_t{0};
    Token merged = PieceMap::kNone;
    uint32_t rank = 0;
  };
  ByteLevelBpe(const Vocabulary& vocabulary, const PieceMap& map, Pretokenizer pretokenizer);
  Status AddMerges();
  PairSlot& SlotOf(Token left, Token right);
  const PairSlot& SlotOf(Token left, Token right) const;
  void EncodeWord(std::string_view word, std::string& spelled, std::vector<Symbol>& symbols,
                  std::vector<Token>& tokens) const;

  const Vocabulary* vocabulary_;
  const PieceMap* map_;
  Pretokenizer pretokenizer_;
  Token byte_to_token_[256];
  std::vector<PairSlot> pairs_;
};

// Puts the bytes that a piece of a byte-level vocabulary stands for behind `out`; characters that stand for no byte
// come out as they are.
void AppendBytesOfPiece(std::string_view piece, std::string& out);

}  // namespace kvist
