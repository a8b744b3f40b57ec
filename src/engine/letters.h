// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "model/vocabulary.h"

namespace kvist {

// What a tiny model reads and writes (tests only): one letter or digit a token. No token ends a text, unless it is said
// which: random models would end too soon.
inline Vocabulary LettersVocabulary(int num_tokens, std::optional<Token> end) {
  static const std::string letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
  Vocabulary vocabulary;
  vocabulary.model = "llama";
  vocabulary.pieces.reserve(static_cast<size_t>(num_tokens));
  for (int i = 0; i < num_tokens; ++i) {
    vocabulary.pieces.push_back(std::string_view(letters).substr(static_cast<size_t>(i), 1));
  }
  vocabulary.types.resize(static_cast<size_t>(num_tokens), TokenType::kNormal);
  vocabulary.scores.resize(static_cast<size_t>(num_tokens), 0);
  vocabulary.eos = end;
  return vocabulary;
}

inline std::vector<Token> SomeTokens(int count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<Token> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back(static_cast<Token>(1 + random() % 49));
  return tokens;
}

inline std::vector<Token> Join(std::vector<Token> tokens, const std::vector<Token>& more) {
  tokens.insert(tokens.end(), more.begin(), more.end());
  return tokens;
}

}  // namespace kvist
