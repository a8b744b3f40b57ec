// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "kvist/cache.h"
#include "kvist/error.h"
#include "model/model.h"

namespace kvist {

// Steps of a model for a measurement: they are counted, and before each progress(done, all) says whether to go on
// (kCancelled). Borrows all it is given.
class MeasuredSteps {
 public:
  static constexpr int64_t kScoredTokens = 128;  // of a step whose logits are all wanted

  MeasuredSteps(Model& model, int64_t num_all_tokens, const std::function<bool(int64_t, int64_t)>& progress)
      : model_(model), num_all_(num_all_tokens), progress_(progress) {}

  // Whether to go on with so many more tokens, for steps that somebody else takes.
  bool Count(int64_t num_tokens) {
    const int64_t num_before = std::min(num_done_, num_all_);
    num_done_ += num_tokens;
    return !progress_ || progress_(num_before, num_all_);
  }
  // Without logits.
  Status Feed(Sequence& sequence, std::span<const Token> tokens) {
    return InSteps(sequence, tokens, kPrefillTokens, LogitsWanted::kNone, [](size_t, std::span<const float>) {});
  }
  // visit(i, logits): what is predicted after tokens[i].
  template <class Visit>
  Status Score(Sequence& sequence, std::span<const Token> tokens, Visit visit, int64_t step_tokens = kScoredTokens) {
    return InSteps(sequence, tokens, step_tokens, LogitsWanted::kAll, visit);
  }

 private:
  static constexpr int64_t kPrefillTokens = 512;

  template <class Visit>
  Status InSteps(Sequence& sequence, std::span<const Token> tokens, int64_t step_tokens, LogitsWanted wanted,
                 Visit visit) {
    const auto vocabulary = static_cast<size_t>(model_.num_vocabulary());
    for (size_t begin = 0; begin < tokens.size(); begin += static_cast<size_t>(step_tokens)) {
      const auto step = tokens.subspan(begin, std::min(static_cast<size_t>(step_tokens), tokens.size() - begin));
      if (!Count(std::ssize(step))) return Fail(ErrorCode::kCancelled, "interrupted");
      const BatchItem item{.sequence = &sequence, .tokens = step, .logits = wanted};
      KVIST_TRY(const auto logits, model_.Forward(std::span(&item, 1)));
      for (size_t row = 0; row * vocabulary < logits.size(); ++row) {
        visit(begin + row, logits.subspan(row * vocabulary, vocabulary));
      }
    }
    return {};
  }

  Model& model_;
  const int64_t num_all_;
  const std::function<bool(int64_t, int64_t)>& progress_;
  int64_t num_done_ = 0;
};

// kInvalidArgument when the model's context can't hold a window, or the text has not so many of them.
Status CheckWindows(const Model& model, std::span<const Token> text, int num_windows, int64_t window_tokens);

}  // namespace kvist
