// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "kvist/cache.h"
#include "kvist/error.h"
#include "model/model.h"
#include "model/tokenizer.h"

namespace kvist {

// One prompt and what a reference implementation made of it.
struct GoldenPrompt {
  std::string name;
  std::string text;
  std::vector<Token> ids;     // the text as tokens
  std::vector<Token> greedy;  // the likeliest continuation, end-of-generation tokens never chosen
  std::string greedy_text;    // as text; may be empty
  // For each greedy token the likeliest tokens at its place with their natural log-probability, given the prompt and
  // the greedy tokens before it.
  std::vector<std::vector<std::pair<Token, double>>> top;
};

// Right values to check a model, a tokenizer and a cache against (format: docs/formats.md).
struct Golden {
  std::string model;
  std::string reference;
  std::vector<GoldenPrompt> prompts;
};

// kNotFound / kIo, or kCorrupt with what is wrong where.
Result<Golden> ReadGolden(const std::string& path);

// How close a model comes. KL: over the recorded likeliest tokens, sum of p (log p - log q), p recorded, q ours. It is
// not bounded by 0, as it leaves out the other tokens.
struct GoldenReport {
  int prompts = 0;
  int ids_equal = 0;  // prompts whose text gives the recorded tokens
  double kl_mean = 0.0;
  double kl_max = 0.0;
  int greedy_tokens = 0;
  int greedy_equal = 0;                    // tokens that are our likeliest, too, given the recorded ones before
  std::vector<std::string> ids_different;  // names of prompts
};

// Feeds each prompt's recorded tokens and greedy continuation to a fresh sequence of `cache` and compares. `progress`
// (may be empty) is called with the prompts done and their number. Errors as Model::Forward.
// Two habits of the recorder (llama.cpp's server) are followed, or they would be what is measured:
// - it adds up probabilities in f32, the recorded ones first, so that most of the unlikely (1e-4 together) are lost;
// - it records nothing for a token that ends inside a UTF-8 character. greedy_text shows the bytes of such a token, and
//   the model's own choice is taken for it if it has these bytes. If not, the rest of the prompt counts as unequal.
Result<GoldenReport> CompareGolden(const Golden& golden, Model& model, Cache& cache, const Tokenizer& tokenizer,
                                   const std::function<void(int, int)>& progress = {});

}  // namespace kvist
