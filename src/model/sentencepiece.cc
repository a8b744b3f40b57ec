// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors

#include "model/sentencepiece.h"

#include <algorithm>
#include <charconv>

#include "model/merge.h"
#include "model/utf8.h"

namespace kvist {
namespace {

constexpr std::string_view kSpace = "\u2581";

// The byte that "<0x0A>" names; -1 when it isn't such a name.
int ByteOfName(std::string_view name) {
  if (name.size() != 6 || !name.starts_with("<0x") || name.back() != '>') return -1;
  int byte = -1;
  const char* end = name.data() + 5;
  const auto [stop, error] = std::from_chars(name.data() + 3, end, byte, 16);
  return error == std::errc() && stop == end ? byte : -1;
}

std::string WithSpacesMarked(std::string_view text, bool space_prefix) {
  std::string marked;
  marked.reserve(text.size() + text.size() / 2 + kSpace.size());
  if (space_prefix) marked += kSpace;
  for (const char c : text) {
    if (c == ' ') {
      marked += kSpace;
    } else {
      marked += c;
    }
  }
  return marked;
}

}  // namespace

SentencePiece::SentencePiece(const Vocabulary& vocabulary, const PieceMap& map) : vocabulary_(&vocabulary), map_(&map) {
  std::fill(std::begin(byte_to_token_), std::end(byte_to_token_), PieceMap::kNone);
}

Result<SentencePiece> SentencePiece::Open(const Vocabulary& vocabulary, const PieceMap& map) {
  SentencePiece result(vocabulary, map);
  for (size_t i = 0; i < vocabulary.pieces.size(); ++i) {
    if (vocabulary.types[i] != TokenType::kByte) continue;
    const int byte = ByteOfName(vocabulary.pieces[i]);
    if (byte < 0) {
      return Fail(ErrorCode::kCorrupt, "tokenizer.ggml.tokens[" + std::to_string(i) +
                                           "] is marked as a byte but is not named like <0x0A>; get the model file "
                                           "again.");
    }
    result.byte_to_token_[byte] = static_cast<Token>(i);
  }
  return result;
}

// Control, unknown and byte tokens are never spelled out by text: "<0x0A>" in a prompt is six characters.
Token SentencePiece::FindPiece(std::string_view piece) const {
  if (piece.size() > map_->longest_piece_bytes()) return PieceMap::kNone;
  const Token token = map_->Find(piece);
  if (token < 0) return PieceMap::kNone;
  const TokenType type = vocabulary_->types[token];
  const bool reserved = type == TokenType::kControl || type == TokenType::kUnknown || type == TokenType::kByte;
  return reserved ? PieceMap::kNone : token;
}

void SentencePiece::Encode(std::string_view text, bool space_prefix, std::vector<Token>& tokens) const {
  const std::string marked = WithSpacesMarked(text, space_prefix);
  const std::string_view all = marked;
  std::vector<Symbol> symbols;
  symbols.reserve(all.size());
  for (size_t begin = 0; begin < all.size();) {
    const Utf8Step step = NextUtf8(all.substr(begin));
    const size_t num_bytes = step.kind == Utf8Step::Kind::kCharacter ? step.num_bytes : 1;
    const auto index = static_cast<int32_t>(symbols.size());
    symbols.push_back({static_cast<uint32_t>(begin), static_cast<uint32_t>(begin + num_bytes),
                       FindPiece(all.substr(begin, num_bytes)), index - 1, index + 1});
    begin += num_bytes;
  }
  if (!symbols.empty()) symbols.back().next = -1;
  MergeSymbols(symbols, [&](const Symbol& left, const Symbol& right) {
    const Token token = FindPiece(all.substr(left.begin, right.end - left.begin));
    return Merge{token, token >= 0 ? vocabulary_->scores[token] : 0};
  });
  for (const Symbol& symbol : symbols) {
    if (symbol.begin == symbol.end) continue;
    if (symbol.token >= 0) {
      tokens.push_back(symbol.token);
    } else {
      AppendByFallback(all.substr(symbol.begin, symbol.end - symbol.begin), tokens);
    }
  }
}

void SentencePiece::AppendByFallback(std::string_view character, std::vector<Token>& tokens) const {
  for (const char c : character) {
    const Token token = byte_to_token_[static_cast<uint8_t>(c)];
    if (token >= 0) {
      tokens.push_back(token);
    } else if (vocabulary_->unknown) {
      tokens.push_back(*vocabulary_->unknown);
      return;  // one unknown a character
    }
  }
}

void SentencePiece::AppendBytes(Token token, std::string& out) const {
  std::string_view piece = vocabulary_->pieces[token];
  if (vocabulary_->types[token] == TokenType::kByte) {
    out.push_back(static_cast<char>(ByteOfName(piece)));
    return;
  }
  for (size_t space; (space = piece.find(kSpace)) != std::string_view::npos;) {
    out.append(piece.substr(0, space)).push_back(' ');
    piece.remove_prefix(space + kSpace.size());
  }
  out.append(piece);
}

}  // namespace kvist
