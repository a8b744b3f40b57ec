// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "engine/measured_steps.h"
#include "engine/repetition.h"
#include "kvist/cache.h"
#include "kvist/error.h"
#include "kvist/geometry.h"
#include "kvist/retention.h"
#include "model/model.h"

namespace kvist {

// What giving up tokens, or reading less of them, does to a model's predictions, is measured case by case.
struct RetentionCase {
  Form form;
  RetentionPolicy policy = RetentionPolicy::kFull;
  BudgetShape shape = BudgetShape::kUniform;
  double keep = 1;          // share of the prefix's tokens
  int64_t page_tokens = 0;  // that each later token reads, one at a time (Sequence::SelectPages); 0: all
  int64_t recent_tokens = RetentionOptions().recent_tokens, sink_tokens = RetentionOptions().sink_tokens;

  RetentionOptions retention() const {
    return {.policy = policy, .shape = shape, .recent_tokens = recent_tokens, .sink_tokens = sink_tokens};
  }
};

// kInvalidArgument: no cases, or one that can't be.
Status CheckCases(std::span<const RetentionCase> cases);
std::vector<Form> FormsOf(std::span<const RetentionCase> cases);  // each once

// Has the sequence note what the policies of all cases want to know.
Status ObserveAll(Sequence& sequence, std::span<const RetentionCase> cases);
// Whether a case of the form wants the second pass that kvzip asks for; its seconds.
bool WantsRepetition(std::span<const RetentionCase> cases, Form form);
Result<double> Repeat(Model& model, const RepeatPrompts& prompts, Sequence& sequence, MeasuredSteps& steps);

// Gives up what the case does of a prefix of so many tokens.
Status Apply(const RetentionCase& what, int64_t num_prefix_tokens, Sequence& sequence);
// Of the steps after it. Steps of several tokens give the same bits as single ones, but read all pages.
int64_t StepTokens(const RetentionCase& what);

// A cache a form, for a measurement. Borrows all it is given.
class CachesByForm {
 public:
  CachesByForm(const Model& model, const CacheOptions& options) : model_(model), options_(options) {}
  Result<Cache*> Of(Form form);

 private:
  const Model& model_;
  const CacheOptions& options_;
  std::vector<std::pair<Form, std::unique_ptr<Cache>>> caches_;
};

}  // namespace kvist
