// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "model/piece_map.h"
#include "model/vocabulary.h"

namespace kvist {

// SentencePiece-style BPE (Gemma, Llama 2): a space is U+2581, neighbours are joined while the result is a piece, the
// one with the highest score first; a character without a piece becomes its bytes (<0x0A>). Borrows the vocabulary and
// its map.
class SentencePiece {
 public:
  // kCorrupt when a byte token's name is not one.
  static Result<SentencePiece> Open(const Vocabulary& vocabulary, const PieceMap& map);

  // Appends the tokens of plain text; with `space_prefix` as if a space stood before it.
  void Encode(std::string_view text, bool space_prefix, std::vector<Token>& tokens) const;

  // Puts the bytes a token stands for behind `out`: the byte of a byte token, else the piece with spaces for U+2581.
  void AppendBytes(Token token, std::string& out) const;

 private:
  SentencePiece(const Vocabulary& vocabulary, const PieceMap& map);
  Token FindPiece(std::string_view piece) const;
  void AppendByFallback(std::string_view character, std::vector<Token>& tokens) const;

  const Vocabulary* vocabulary_;
  const PieceMap* map_;
  Token byte_to_token_[256];
};

}  // namespace kvist
