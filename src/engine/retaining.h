// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "kvist/cache.h"
#include "model/model.h"
#include "model/tokenizer.h"

namespace kvist {

// When a text that is being generated gives up tokens, and how many stay: once its prompt has been computed, and
// whenever its answer has grown by the margin.
struct RetainSettings {
  RetentionOptions options;   // kFull: never
  int64_t num_tokens = 0;     // that a lane holds afterwards, on average; 0: the share
  double share = 0.5;         // of the prompt's tokens
  int64_t margin_tokens = 0;  // held beyond that before tokens are given up again; 0: as MarginTokens has it
  bool operator==(const RetainSettings&) const = default;

  bool is_on() const { return options.policy != RetentionPolicy::kFull; }
};

// The shape of the policy's paper: global for kvzip, for which it is a quarter of the loss (docs/compression.md), else
// uniform.
BudgetShape OwnShape(RetentionPolicy policy);

// "POLICY" or "POLICY:keep=0.5,shape=adaptive,margin=256,recent=64,sinks=4", or with tokens=1024 instead of keep.
// kInvalidArgument names what is wrong and what there is.
Result<RetainSettings> ParseRetain(std::string_view spec);
// The inverse, in full but for a margin that was left open.
std::string RetainSpec(const RetainSettings& settings);

// What giving up tokens has done to a text so far.
struct RetainStats {
  int num_times = 0;
  double seconds = 0;      // the second pass of kvzip included
  double held_tokens = 0;  // after the last time
  size_t held_bytes = 0;
};

// A quarter of what a lane is to hold, 128 to 1,024: giving up takes time for each token that is held, so this takes
// the same share of the time for few and for many.
constexpr int64_t MarginTokens(int64_t num_to_hold) {
  return std::clamp<int64_t>(num_to_hold / 4, 128, 1024);
}

// Carries the settings out for one sequence: one for each, from its first token on. Borrows the model. While the budget
// has no room for a copy of what is to stay, or the budget or the model's context none for kvzip's second pass, nothing
// is given up; it is tried again when the text has grown by the margin. Nor are tokens of a sequence that is spilled.
class Retainer {
 public:
  using GoesOn = std::function<bool()>;  // asked before each step of kvzip's second pass; false leaves all as it was

  Retainer(Model* model, std::shared_ptr<const Tokenizer> tokenizer, const RetainSettings& settings)
      : model_(model), tokenizer_(std::move(tokenizer)), settings_(settings) {}

  const RetainSettings& settings() const { return settings_; }
  // Before anything is computed. kOutOfRange when it is known that the prompt can't be given up as is wanted.
  Status CheckPrompt(int64_t num_prompt_tokens) const;
  // How many tokens of a prompt may be reused from others: those that a policy has to see are computed.
  int64_t MaxReusedTokens(int64_t num_prompt_tokens) const;
  // Before the sequence's next step, whether it is the first or not.
  Status Begin(Sequence& sequence);
  // After the step that computed the last of a prompt's tokens; there may be output behind it. The second pass takes
  // many steps of the model. Errors as ObserveRepetition and Sequence::Retain.
  Status EndPrompt(Sequence& sequence, int64_t num_prompt_tokens, const GoesOn& goes_on);
  // After every other step.
  Status EndStep(Sequence& sequence, const GoesOn& goes_on);

  const RetainStats& stats() const { return stats_; }

 private:
  int64_t NumToHold(int64_t num_prompt_tokens) const;
  Status Retain(Sequence& sequence, const GoesOn& goes_on);
  Status RepeatAndRetain(Sequence& sequence, const GoesOn& goes_on);

  Model* model_;
  std::shared_ptr<const Tokenizer> tokenizer_;  // of what asks for the repetition
  RetainSettings settings_;
  int64_t num_to_hold_ = 0;    // 0: no prompt has ended yet
  double num_left_ = 0;        // held after the last attempt
  bool has_repeated_ = false;  // since the last prompt ended
  RetainStats stats_;
};

}  // namespace kvist
