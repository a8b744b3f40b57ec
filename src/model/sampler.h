// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kvist/error.h"
#include "model/tokenizer.h"

namespace kvist {

// How the next token is chosen. Defaults are greedy.
struct SamplerOptions {
  float temperature = 0.0f;         // 0: greedy; otherwise > 0
  int top_k = 0;                    // 0: off
  float top_p = 1.0f;               // (0, 1]; 1: off
  float min_p = 0.0f;               // [0, 1); 0: off
  float repetition_penalty = 1.0f;  // > 0; 1: off.  Divides positive logits of recent tokens, multiplies negative ones
  int repetition_window = 64;       // tokens looked back
  uint64_t seed = 0;
};

// Chooses tokens from logits; one per running generation. Order: penalty, temperature, top-k, top-p, min-p, draw.
// The same seed, logits and history give the same tokens, whatever the standard library. NaN and -inf are never chosen,
// nor are tokens less than 1e-17 times as likely as the best one. Greedy costs one pass
// over the vocabulary, top_k two; without top_k every token's weight is computed, and top_p makes a heap of them.
class Sampler {
 public:
  static Result<Sampler> Open(const SamplerOptions& options);  // kInvalidArgument names the option and its range
  // logits: [num_vocabulary]; `history`: the tokens so far, newest last. Among equal ones the lowest id goes first.
  // -1 when no token can be chosen, because every logit is NaN or -inf.
  Token Sample(std::span<const float> logits, std::span<const Token> history);

 private:
  explicit Sampler(const SamplerOptions& options);
  std::span<const float> Penalise(std::span<const float> logits, std::span<const Token> history);
  void CollectCandidates(std::span<const float> logits, float least);
  void KeepTopK();
  void KeepTopP();
  void KeepMinP();
  Token Draw();

  SamplerOptions options_;
  std::mt19937_64 random_;
  std::vector<std::pair<float, Token>> candidates_;  // logit, then weight relative to the best, and token
  std::vector<float> penalised_;
};

// Finds stop strings in streamed text, holding back what could be the beginning of one. The stop string that is
// complete first counts (of those the longest), so the result doesn't depend on how the text was cut. Empty ones are
// ignored.
class StopMatcher {
 public:
  explicit StopMatcher(std::vector<std::string> stops);
  std::string Push(std::string_view text);  // what may be shown now; "" after a stop
  std::string Finish();                     // what was held back, when no stop came
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace kvist
