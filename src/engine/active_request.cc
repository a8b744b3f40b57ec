// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "engine/active_request.h"

#include <algorithm>

namespace kvist {

int64_t ActiveRequest::Admit(Cache& cache) {
  is_frugal_ = false;
  moved_ = {};
  sequence_.emplace(cache.Begin(salt_));
  ReuseReport report = sequence_->Reuse(text.tokens(), text.num_tokens() - 1);
  if (!admitted_at_) {
    admitted_at_ = Clock::now();
    first_reuse_ = std::move(report);
  }
  CountReused(num_stored());
  return num_stored();
}

void ActiveRequest::StartOver(Cache& cache) {
  is_frugal_ = true;
  moved_ = {};
  sequence_.emplace(cache.Begin(salt_));
}

int64_t ActiveRequest::ReuseMore() {
  const int64_t num_before = num_stored();
  sequence_->Reuse(text.tokens(), text.num_tokens() - 1);
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
