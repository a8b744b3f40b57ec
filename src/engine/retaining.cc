// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "engine/retaining.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "base/seconds_since.h"
#include "base/spec.h"
#include "engine/repetition.h"
#include "policy/retention.h"

namespace kvist {
namespace {

constexpr const char* kRetainWhat = "retention";

}  // namespace

BudgetShape OwnShape(RetentionPolicy policy) {
  return policy == RetentionPolicy::kKvzip ? BudgetShape::kGlobal : BudgetShape::kUniform;
}

Result<RetainSettings> ParseRetain(std::string_view text) {
  KVIST_TRY(const Spec spec, ParseSpec(kRetainWhat, text, {"keep", "tokens", "shape", "margin", "recent", "sinks"}));
  RetainSettings settings;
  KVIST_TRY(settings.options.policy, ParseRetentionPolicy(spec.name));
  settings.options.shape = OwnShape(settings.options.policy);
  if (settings.options.policy == RetentionPolicy::kFull && !spec.values.empty()) {
    return Fail(ErrorCode::kInvalidArgument,
                "retention: full keeps every token; leave '" + std::string(spec.values.front().first) + "' out");
  }
  for (const auto& value : spec.values) {
    const auto& [key, written] = value;
    if (key == "keep") {
      KVIST_TRY(settings.share, Number(kRetainWhat, value, 0.01, 1));
    } else if (key == "shape") {
      KVIST_TRY(settings.options.shape, ParseBudgetShape(written));
    } else if (key == "tokens") {
      KVIST_TRY(settings.num_tokens, WholeNumber(kRetainWhat, value, 1, kMostSpecTokens));
    } else if (key == "margin") {
      KVIST_TRY(settings.margin_tokens, WholeNumber(kRetainWhat, value, 1, kMostSpecTokens));
    } else if (key == "recent") {
      KVIST_TRY(settings.options.recent_tokens, WholeNumber(kRetainWhat, value, 0, kMostSpecTokens));
    } else {
      KVIST_TRY(settings.options.sink_tokens, WholeNumber(kRetainWhat, value, 0, kMostSpecTokens));
    }
  }
  KVIST_TRY_VOID(settings.options.Validate());
  const auto is_given = [&](const char* key) {
    return std::ranges::any_of(spec.values, [&](const auto& value) { return value.first == key; });
  };
  if (is_given("keep") && is_given("tokens")) {
    return Fail(ErrorCode::kInvalidArgument,
                "retention: keep is a share and tokens a number of them; give one of the two");
  }
  return settings;
}

std::string RetainSpec(const RetainSettings& settings) {
  const std::string policy = RetentionPolicyName(settings.options.policy);
  if (!settings.is_on()) return policy;
  return policy +
         (settings.num_tokens > 0 ? ":tokens=" + std::to_string(settings.num_tokens)
                                  : ":keep=" + NumberText(settings.share)) +
         ",shape=" + BudgetShapeName(settings.options.shape) +
         (settings.margin_tokens > 0 ? ",margin=" + std::to_string(settings.margin_tokens) : "") +
         ",recent=" + std::to_string(settings.options.recent_tokens) +
         ",sinks=" + std::to_string(settings.options.sink_tokens);
}

int64_t Retainer::NumToHold(int64_t num_prompt_tokens) const {
  const double of_prompt = settings_.share * static_cast<double>(num_prompt_tokens);
  return settings_.num_tokens > 0 ? settings_.num_tokens : std::max<int64_t>(1, std::llround(of_prompt));
}

Status Retainer::CheckPrompt(int64_t num_prompt_tokens) const {
  if (!NeedsRepetition(settings_.options.policy) || num_prompt_tokens <= NumToHold(num_prompt_tokens)) return {};
  return CheckRoomToRepeat(*model_, MakeRepeatPrompts(*tokenizer_), num_prompt_tokens + 1);
}

int64_t Retainer::MaxReusedTokens(int64_t num_prompt_tokens) const {
  const RetentionPolicy policy = settings_.options.policy;
  if (!NeedsObserving(policy)) return num_prompt_tokens;
  // What all queries together have shown can't be known of those that were computed before.
  if (policy == RetentionPolicy::kH2o) return 0;
  // As many as snapkv looks at; tova and expected want fewer.
  return std::max<int64_t>(0, num_prompt_tokens - NumObservedQueries(RetentionPolicy::kSnapKv));
}

Status Retainer::Begin(Sequence& sequence) {
  const RetentionPolicy policy = settings_.options.policy;
  return NeedsObserving(policy) ? sequence.Observe(policy) : Status();
}

Status Retainer::EndPrompt(Sequence& sequence, int64_t num_prompt_tokens, const GoesOn& goes_on) {
  if (!settings_.is_on()) return {};
  num_to_hold_ = NumToHold(num_prompt_tokens);
  num_left_ = 0;
  has_repeated_ = false;
  if (sequence.num_held_tokens() <= static_cast<double>(num_to_hold_)) return {};
  return Retain(sequence, goes_on);
}

Status Retainer::EndStep(Sequence& sequence, const GoesOn& goes_on) {
  if (!settings_.is_on() || num_to_hold_ == 0) return {};
  // Whole blocks of first and last tokens may have left more than was wanted: trying again at once would not help.
  const double least = std::max(static_cast<double>(num_to_hold_), num_left_);
  const int64_t margin = settings_.margin_tokens > 0 ? settings_.margin_tokens : MarginTokens(num_to_hold_);
  if (sequence.num_held_tokens() < least + static_cast<double>(margin)) return {};
  return Retain(sequence, goes_on);
}

Status Retainer::Retain(Sequence& sequence, const GoesOn& goes_on) {
  if (sequence.num_spilled_tokens() > 0) return {};
  const auto began = std::chrono::steady_clock::now();
  const Status retained = RepeatAndRetain(sequence, goes_on);
  num_left_ = sequence.num_held_tokens();
  stats_.seconds += SecondsSince(began);
  if (retained) return {};
  const ErrorCode code = retained.error().code;
  const bool can_go_on =
      code == ErrorCode::kOutOfMemory || code == ErrorCode::kOutOfRange || code == ErrorCode::kCancelled;
  return can_go_on ? Status() : retained;
}

Status Retainer::RepeatAndRetain(Sequence& sequence, const GoesOn& goes_on) {
  if (NeedsRepetition(settings_.options.policy) && !has_repeated_) {
    KVIST_TRY_VOID(ObserveRepetition(*model_, MakeRepeatPrompts(*tokenizer_), sequence,
                                     [&](int64_t) { return !goes_on || goes_on(); }));
    has_repeated_ = true;
  }
  KVIST_TRY([[maybe_unused]] const RetentionReport report, sequence.Retain(settings_.options, num_to_hold_));
  ++stats_.num_times;
  stats_.held_tokens = sequence.num_held_tokens();
  stats_.held_bytes = sequence.num_held_bytes();
  return {};
}

}  // namespace kvist
