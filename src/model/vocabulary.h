// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kvist/error.h"
#include "model/gguf.h"
#include "model/tokenizer.h"

namespace kvist {

// The numbers of tokenizer.ggml.token_type.
enum class TokenType : uint8_t { kUndefined, kNormal, kUnknown, kControl, kUserDefined, kUnused, kByte };

// A tokenizer as plain data: what a file says about its tokens, with the defaults of its kind filled in.
struct Vocabulary {
  std::string model;                     // "gpt2": byte-level BPE; "llama": SentencePiece style
  std::string pretokenizer = "default";  // how byte-level BPE cuts text into words
  std::vector<std::string_view> pieces;  // [num_tokens]
  std::vector<TokenType> types;          // [num_tokens]
  std::vector<float> scores;             // [num_tokens] for "llama", else empty
  std::vector<std::string_view> merges;  // "left right", best first, for "gpt2"
  std::optional<Token> bos, eos, unknown;
  std::vector<Token> more_ends;  // EOT and EOM where the file names them
  bool add_bos = false;
  bool add_eos = false;
  bool add_space_prefix = false;      // "llama": a space goes before text that starts or follows a special token
  bool strip_after_control = false;   // Phi-3: white space after a control token belongs to the token
  std::shared_ptr<const void> owner;  // keeps the text alive that the views point to
};

// kCorrupt when a key is missing or of the wrong kind, or the arrays and ids don't agree with each other.
Result<Vocabulary> ReadVocabulary(const std::shared_ptr<const GgufFile>& file);

// The checks that don't depend on the kind: array sizes, ids in range, a number of tokens that fits.
Status CheckVocabulary(const Vocabulary& vocabulary);

}  // namespace kvist
