// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "engine/active_request.h"

#include <algorithm>
#include <utility>

namespace kvist {

std::span<const Token> ActiveRequest::reusable_tokens() const {
  auto num_tokens = text.num_tokens() - 1;
  if (retainer_) num_tokens = std::min(num_tokens, retainer_->MaxReusedTokens(text.num_tokens()));
  return text.tokens().first(size_t(num_tokens));
}

void ActiveRequest::BeginSequence(Cache& cache) {
  moved_ = {};
  has_ended_prompt_ = false;
  sequence_.emplace(cache.Begin(salt_));
  // Neither can fail: the settings were checked when the request came.
  KVIST_CHECK(settings_.Apply(*sequence_).has_value());
  if (retainer_) KVIST_CHECK(retainer_->Begin(*sequence_).has_value());
}

Status ActiveRequest::GiveUpTokens() {
  const bool is_in_prompt = text.num_output_tokens() == 0 || num_stored() + 1 < text.num_tokens();
  if (!retainer_ || is_in_prompt) return {};
  const auto goes_on = [this] { return !is_cancelled; };
  if (std::exchange(has_ended_prompt_, true)) return retainer_->EndStep(*sequence_, goes_on);
  return retainer_->EndPrompt(*sequence_, text.num_prompt_tokens(), goes_on);
}

int64_t ActiveRequest::Admit(Cache& cache) {
  is_frugal_ = false;
  BeginSequence(cache);
  ReuseReport report = sequence_->Reuse(text.tokens(), std::ssize(reusable_tokens()));
  if (!admitted_at_) {
    admitted_at_ = Clock::now();
    first_reuse_ = std::move(report);
  }
  CountReused(num_stored());
  return num_stored();
}

void ActiveRequest::StartOver(Cache& cache) {
  is_frugal_ = true;
  BeginSequence(cache);
}

int64_t ActiveRequest::ReuseMore() {
  const int64_t num_before = num_stored();
  sequence_->Reuse(text.tokens(), std::ssize(reusable_tokens()));
  CountReused(num_stored() - num_before);
  return num_stored() - num_before;
}

int64_t ActiveRequest::TakeMoved() {
  const int64_t num_tokens = moved_.Take(*sequence_, reusable_tokens());
  moved_.CountInto(first_reuse_, *sequence_);
  CountReused(num_tokens);
  return num_tokens;
}

void ActiveRequest::CountReused(int64_t num_tokens) {
  if (text.num_output_tokens() == 0) text.stats().reused_tokens += num_tokens;
}

void ActiveRequest::NoteComputed(int64_t begin, int64_t end) {
  const auto now = Clock::now();
  GenerationStats& stats = text.stats();
  if (text.num_output_tokens() == 0) {
    first_token_at_ = now;
    stats.prefill_s = std::chrono::duration<double>(now - *admitted_at_).count();
  } else {
    stats.decode_s = std::chrono::duration<double>(now - first_token_at_).count();
  }
  if (text.num_output_tokens() > 0 && begin + 1 == text.num_tokens()) {
    ++stats.decode_steps;
    if (settings_.pages.num_tokens > 0) stats.pages.Count(*sequence_);
  } else {
    stats.computed_tokens += end - begin;
  }
}

void Insert(std::shared_ptr<ActiveRequest> request, Line& line) {
  const auto stands_before = [](const auto& a, const auto& b) { return a->StandsBefore(*b); };
  const auto place = std::ranges::upper_bound(line, request, stands_before);
  line.insert(place, std::move(request));
}

int64_t NumCommonTokens(std::span<const Token> a, std::span<const Token> b) {
  return std::ranges::mismatch(a, b).in1 - a.begin();
}

}  // namespace kvist
