// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors

#include "model/bpe.h"

#include <array>
#include <bit>
#include <utility>

#include "model/utf8.h"

namespace kvist {
namespace {

// GPT-2's alphabet: printable Latin-1 bytes stand for themselves, the other 68 take the characters from U+0100 on.
constexpr std::array<uint16_t, 256> MakeByteToCharacter() {
  std::array<uint16_t, 256> table{};
  uint16_t next = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    table[byte] = printable ? static_cast<uint16_t>(byte) : next++;
  }
  return table;
}
constexpr auto kByteToCharacter = MakeByteToCharacter();

constexpr std::array<int16_t, 324> MakeCharacterToByte() {
  std::array<int16_t, 324> table{};
  for (auto& byte : table) byte = -1;
  for (int byte = 0; byte < 256; ++byte) table[kByteToCharacter[byte]] = static_cast<int16_t>(byte);
  return table;
}
constexpr auto kCharacterToByte = MakeCharacterToByte();

// All characters of the alphabet are below U+0800: one or two bytes of UTF-8.
void AppendSpelling(uint8_t byte, std::string& out) {
  const uint16_t character = kByteToCharacter[byte];
  if (character < 0x80) {
    out.push_back(static_cast<char>(character));
  } else {
    out.push_back(static_cast<char>(0xC0 | (character >> 6)));
    out.push_back(static_cast<char>(0x80 | (character & 0x3F)));
  }
}

uint64_t PairKey(Token left, Token right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | uint32_t(right);
}

}  // namespace

void AppendBytesOfPiece(std::string_view piece, std::string& out) {
  while (!piece.empty()) {
    const Utf8Step step = NextUtf8(piece);
    const auto first = static_cast<uint8_t>(piece[0]);
    size_t character = first;
    if (step.num_bytes == 2) character = (first & 0x1Fu) << 6 | (static_cast<uint8_t>(piece[1]) & 0x3Fu);
    const bool is_byte = step.kind == Utf8Step::Kind::kCharacter && step.num_bytes <= 2 &&
                         character < kCharacterToByte.size() && kCharacterToByte[character] >= 0;
    if (is_byte) {
      out.push_back(static_cast<char>(kCharacterToByte[character]));
    } else {
      out.append(piece.substr(0, step.num_bytes));
    }
    piece.remove_prefix(step.num_bytes);
  }
}

ByteLevelBpe::ByteLevelBpe(const Vocabulary& vocabulary, const PieceMap& map, Pretokenizer pretokenizer)
    : vocabulary_(&vocabulary),
      map_(&map),
      pretokenizer_(std::move(pretokenizer)),
      pairs_(std::bit_ceil(vocabulary.merges.size() * 2 + 1)) {
  for (int byte = 0; byte < 256; ++byte) {
    std::string spelling;
    AppendSpelling(static_cast<uint8_t>(byte), spelling);
    byte_to_token_[byte] = map.Find(spelling);
  }
}

Result<ByteLevelBpe> ByteLevelBpe::Open(const Vocabulary& vocabulary, const PieceMap& map) {
  KVIST_TRY(Pretokenizer pretokenizer, Pretokenizer::Open(vocabulary.pretokenizer));
  ByteLevelBpe bpe(vocabulary, map, std::move(pretokenizer));
  KVIST_TRY_VOID(bpe.AddMerges());
  return bpe;
}

Status ByteLevelBpe::AddMerges() {
  std::string joined;
  const auto& merges = vocabulary_->merges;
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    // From the second byte on: the first half of a merge is never empty.
    const size_t space = merges[rank].find(' ', 1);
    if (space == std::string_view::npos || merges[rank].find(' ', space + 1) != std::string_view::npos) {
      return Fail(ErrorCode::kCorrupt, "tokenizer.ggml.merges[" + std::to_string(rank) +
                                           "] is not two pieces with a space between; get the model file again.");
    }
    joined.assign(merges[rank], 0, space).append(merges[rank].substr(space + 1));
    const Token left = map_->Find(merges[rank].substr(0, space));
    const Token right = map_->Find(merges[rank].substr(space + 1));
    const Token merged = map_->Find(joined);
    if (left < 0 || right < 0 || merged < 0) {
      return Fail(ErrorCode::kCorrupt, "tokenizer.ggml.merges[" + std::to_string(rank) +
                                           "] joins pieces that tokenizer.ggml.tokens doesn't have; get the model "
                                           "file again.");
    }
    PairSlot& slot = SlotOf(left, right);
    if (slot.merged < 0) slot = {PairKey(left, right), merged, static_cast<uint32_t>(rank)};
  }
  return {};
}

ByteLevelBpe::PairSlot& ByteLevelBpe::SlotOf(Token left, Token right) {
  return const_cast<PairSlot&>(std::as_const(*this).SlotOf(left, right));
}

const ByteLevelBpe::PairSlot& ByteLevelBpe::SlotOf(Token left, Token right) const {
  const uint64_t key = PairKey(left, right);
  const uint64_t mask = pairs_.size() - 1;
  uint64_t slot = (key * 0x9E3779B97F4A7C15u >> 32) & mask;
  while (pairs_[slot].merged >= 0 && pairs_[slot].key != key) slot = (slot + 1) & mask;
  return pairs_[slot];
}

void ByteLevelBpe::Encode(std::string_view text, std::vector<Token>& tokens) const {
  std::string spelled;
  std::vector<Symbol> symbols;
  for (const std::string_view word : pretokenizer_.Split(text)) EncodeWord(word, spelled, symbols, tokens);
}

void ByteLevelBpe::EncodeWord(std::string_view word, std::string& spelled, std::vector<Symbol>& symbols,
                              std::vector<Token>& tokens) const {
  if (pretokenizer_.whole_words_first()) {
    spelled.clear();
    for (const char c : word) AppendSpelling(static_cast<uint8_t>(c), spelled);
    const Token whole = map_->Find(spelled);
    if (whole >= 0 && vocabulary_->types[whole] != TokenType::kControl) {
      tokens.push_back(whole);
      return;
    }
  }
  symbols.clear();
  const auto num_symbols = static_cast<int32_t>(word.size());
  for (int32_t i = 0; i < num_symbols; ++i) {
    symbols.push_back({static_cast<uint32_t>(i), static_cast<uint32_t>(i + 1),
                       byte_to_token_[static_cast<uint8_t>(word[i])], i - 1, i + 1 < num_symbols ? i + 1 : -1});
  }
  MergeSymbols(symbols, [this](const Symbol& left, const Symbol& right) {
    if (left.token < 0 || right.token < 0) return Merge{PieceMap::kNone, 0};
    const PairSlot& slot = SlotOf(left.token, right.token);
    return Merge{slot.merged, -static_cast<float>(slot.rank)};
  });
  for (const Symbol& symbol : symbols) {
    if (symbol.begin != symbol.end && symbol.token >= 0) tokens.push_back(symbol.token);
  }
}

}  // namespace kvist
