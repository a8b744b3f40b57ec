// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kvist/error.h"
#include "model/gguf.h"

namespace kvist {

using Token = int32_t;

struct Vocabulary;

// Text to token ids and back, as the model file's own vocabulary says: byte-level BPE (GPT-2 style, pre-tokenizers of
// the llama, qwen2, qwen3, smollm and phi3 families) and SentencePiece-style BPE with byte fall-back (Gemma, Llama 2).
// Immutable after Open, hence safe to use from any thread. Ids equal llama.cpp's (tests/golden).
class Tokenizer {
 public:
  // kUnsupported for a vocabulary kind or pre-tokenizer that is not known (the message names it and the known ones);
  // kCorrupt when the vocabulary contradicts itself (a merge of unknown pieces, ids out of range, ...).
  static Result<std::shared_ptr<const Tokenizer>> Open(const std::shared_ptr<const GgufFile>& file);
  // The same from plain data (model/vocabulary.h).
  static Result<std::shared_ptr<const Tokenizer>> Open(Vocabulary vocabulary);

  struct EncodeOptions {
    bool add_special = true;    // BOS/EOS as the model asks
    bool parse_special = true;  // "<|im_start|>" in the text becomes its one token; false keeps it as plain characters
  };
  // Invalid UTF-8 is tokenized byte by byte (replacement never happens); only a byte for which the vocabulary has
  // neither a piece nor a fall-back is left out. Where special tokens overlap, the leftmost and then the longest
  // counts.
  std::vector<Token> Encode(std::string_view text, EncodeOptions options) const;
  std::vector<Token> Encode(std::string_view text) const { return Encode(text, EncodeOptions()); }

  // The bytes one token stands for; control tokens give their name only when `render_special`. Models with a space
  // prefix (Llama 2, Phi-3) were trained with a space before the first word, which Encode adds and Decode gives back:
  // whoever shows a whole text, not a continuation, drops that one space.
  std::string Decode(Token token, bool render_special = false) const;
  std::string Decode(std::span<const Token> tokens, bool render_special = false) const;

  bool IsEndOfGeneration(Token token) const;  // EOS, EOT and the families' other end markers
  int num_tokens() const;
  std::optional<Token> bos() const;

 private:
  struct State;
  explicit Tokenizer(std::shared_ptr<const State> state);
  std::shared_ptr<const State> state_;
};

// Turns tokens into text as they come, holding back bytes until a UTF-8 character is complete; bytes that can never
// become one come out as U+FFFD.
class StreamDecoder {
 public:
  explicit StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer);
  std::string Push(Token token);  // the complete characters that are new
  std::string Finish();           // what is left, as U+FFFD
 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::string pending_;
};

}  // namespace kvist
