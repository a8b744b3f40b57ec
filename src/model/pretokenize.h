// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "kvist/error.h"

namespace kvist {

// Cuts text into the words that byte-level BPE works on, as each family was trained (tokenizer.ggml.pre). The regular
// expressions are compiled once, with the regex library's own Unicode tables. Immutable, hence safe from any thread.
class Pretokenizer {
 public:
  // kUnsupported for a name that is not known; the message lists the known ones.
  static Result<Pretokenizer> Open(std::string_view name);

  // The words in order; together they are all of `text`. A byte that is no part of a UTF-8 character is its own word.
  std::vector<std::string_view> Split(std::string_view text) const;

  bool whole_words_first() const { return whole_words_first_; }  // a word that is a piece isn't merged from parts
  // Whether the family starts every text with BOS when the file doesn't say; false for an unknown name.
  static bool AddsBos(std::string_view name);

 private:
  struct Regex;
  std::vector<std::shared_ptr<const Regex>> regexes_;  // applied one after the other, each to the words so far
  bool whole_words_first_ = false;
};

}  // namespace kvist
