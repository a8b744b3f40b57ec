// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "engine/retention_case.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <string>

#include "base/seconds_since.h"

namespace kvist {

Status CheckCases(std::span<const RetentionCase> cases) {
  if (cases.empty())
    return Fail(ErrorCode::kInvalidArgument, "there is nothing to measure: no policy, no number of tokens to read");
  for (const RetentionCase& each : cases) {
    KVIST_TRY_VOID(each.retention().Validate());
    KVIST_TRY_VOID((PageSelection{.num_tokens = each.page_tokens}.Validate()));
    if (each.keep > 0 && each.keep <= 1) continue;
    return Fail(ErrorCode::kInvalidArgument,
                "a share of " + std::to_string(each.keep) + " to keep; it must be above 0 and at most 1");
  }
  return {};
}

std::vector<Form> FormsOf(std::span<const RetentionCase> cases) {
  std::vector<Form> forms;
  for (const RetentionCase& each : cases)
    if (std::ranges::find(forms, each.form) == forms.end()) forms.push_back(each.form);
  return forms;
}

Status ObserveAll(Sequence& sequence, std::span<const RetentionCase> cases) {
  for (const RetentionCase& each : cases) {
    if (NeedsObserving(each.policy)) KVIST_TRY_VOID(sequence.Observe(each.policy));
  }
  return {};
}

bool WantsRepetition(std::span<const RetentionCase> cases, Form form) {
  return std::ranges::any_of(cases,
                             [=](const auto& each) { return each.form == form && NeedsRepetition(each.policy); });
}

Result<double> Repeat(Model& model, const RepeatPrompts& prompts, Sequence& sequence, MeasuredSteps& steps) {
  const auto began = std::chrono::steady_clock::now();
  KVIST_TRY_VOID(
      ObserveRepetition(model, prompts, sequence, [&](int64_t num_tokens) { return steps.Count(num_tokens); }));
  return SecondsSince(began);
}

Status Apply(const RetentionCase& what, int64_t num_prefix_tokens, Sequence& sequence) {
  KVIST_TRY_VOID(sequence.SelectPages({.num_tokens = what.page_tokens}));
  KVIST_TRY(
      [[maybe_unused]] const RetentionReport report,
      sequence.Retain(what.retention(), std::max<int64_t>(1, std::llround(what.keep * double(num_prefix_tokens)))));
  return {};
}

int64_t StepTokens(const RetentionCase& what) {
  return what.page_tokens > 0 ? 1 : MeasuredSteps::kScoredTokens;
}

Result<Cache*> CachesByForm::Of(Form form) {
  for (const auto& [known, cache] : caches_)
    if (known == form) return cache.get();
  CacheOptions options = options_;
  options.form = form;
  KVIST_TRY(auto cache, Cache::Open(model_.geometry(), options));
  return caches_.emplace_back(form, std::move(cache)).second.get();
}

}  // namespace kvist
