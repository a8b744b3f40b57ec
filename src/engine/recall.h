// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "kvist/error.h"
#include "kvist/reuse.h"
#include "model/tokenizer.h"

namespace kvist {

// Something that was in a text and is asked for later: a pass key (the test of Landmark Attention, arXiv 2305.16300),
// or a passage that is to be copied.
struct Recall {
  std::vector<Token> context;
  std::vector<Token> cue;     // what asks for it: a question, or the passage's beginning
  std::vector<Token> answer;  // 1 or more
  double depth = 0;           // where it lies in the context, 0: first, 1: last
};

// Of a passage: how many tokens it has, and its first ones, which are the cue.
inline constexpr int kPassageTokens = 192;
inline constexpr int kPassageCueTokens = 32;

struct RecallSizes {
  int64_t context_tokens = 1024;
  int count = 10;  // of contexts; what they hide lies at depths spread evenly
};

// Contexts cut out of the filler at random, the same ones each time, that begin with `bos` where there is one.
// kInvalidArgument when the filler has too few tokens; kUnsupported when the tokenizer does not keep a number's digits
// apart from what is before them.
Result<std::vector<Recall>> MakePasskeys(const Tokenizer& tokenizer, std::span<const Token> filler,
                                         const RecallSizes& sizes, std::optional<Token> bos);
// Passages that nobody can know: shreds of the filler, one after the other. Errors as MakePasskeys.
Result<std::vector<Recall>> MakePassages(std::span<const Token> filler, const RecallSizes& sizes,
                                         std::optional<Token> bos);

}  // namespace kvist
