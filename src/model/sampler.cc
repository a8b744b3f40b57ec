// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors

#include "model/sampler.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

namespace kvist {
namespace {

using Candidate = std::pair<float, Token>;

// exp(-40) is 4e-18: even 262,144 such tokens together would be drawn once in a trillion times.
constexpr float kNegligible = -40.0f;

// A total order, so that what the standard library does with equal ones can't show.
bool Better(const Candidate& a, const Candidate& b) {
  return a.first != b.first ? a.first > b.first : a.second < b.second;
}
bool Worse(const Candidate& a, const Candidate& b) {
  return Better(b, a);
}

std::unexpected<Error> OutOfRange(const char* option, const char* range, double value) {
  return Fail(ErrorCode::kInvalidArgument,
              std::string(option) + " must be " + range + ", not " + std::to_string(value) + ".");
}

}  // namespace

Sampler::Sampler(const SamplerOptions& options) : options_(options), random_(options.seed) {}

// The comparisons are written so that NaN fails them.
Result<Sampler> Sampler::Open(const SamplerOptions& options) {
  if (!(options.temperature >= 0 && std::isfinite(options.temperature))) {
    return OutOfRange("temperature", "0 (greedy) or more", options.temperature);
  }
  if (options.top_k < 0) return OutOfRange("top-k", "0 (off) or more", options.top_k);
  if (!(options.top_p > 0 && options.top_p <= 1)) return OutOfRange("top-p", "above 0 and at most 1", options.top_p);
  if (!(options.min_p >= 0 && options.min_p < 1)) return OutOfRange("min-p", "at least 0 and below 1", options.min_p);
  if (!(options.repetition_penalty > 0 && std::isfinite(options.repetition_penalty))) {
    return OutOfRange("repetition penalty", "above 0", options.repetition_penalty);
  }
  if (options.repetition_window < 0) return OutOfRange("repetition window", "0 or more", options.repetition_window);
  return Sampler(options);
}

Token Sampler::Sample(std::span<const float> all_logits, std::span<const Token> history) {
  const std::span<const float> logits = Penalise(all_logits, history);
  Candidate best(-std::numeric_limits<float>::infinity(), -1);
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] > best.first) best = {logits[i], static_cast<Token>(i)};  // NaN is never greater
  }
  if (best.second < 0 || options_.temperature == 0 || std::isinf(best.first)) return best.second;
  CollectCandidates(logits, best.first + kNegligible * options_.temperature);
  for (Candidate& candidate : candidates_) {
    candidate.first = std::exp((candidate.first - best.first) / options_.temperature);
  }
  KeepTopP();
  KeepMinP();
  return Draw();
}

std::span<const float> Sampler::Penalise(std::span<const float> logits, std::span<const Token> history) {
  if (options_.repetition_penalty == 1.0f || history.empty()) return logits;
  penalised_.assign(logits.begin(), logits.end());
  for (const Token token : history.last(std::min<size_t>(history.size(), options_.repetition_window))) {
    if (token < 0 || static_cast<size_t>(token) >= logits.size()) continue;
    // From the original: a token that occurs twice is penalised once.
    const float logit = logits[token];
    penalised_[token] = logit > 0 ? logit / options_.repetition_penalty : logit * options_.repetition_penalty;
  }
  return penalised_;
}

// All tokens with at least `least`, by id; or the top_k best of them, best first.
void Sampler::CollectCandidates(std::span<const float> logits, float least) {
  candidates_.clear();
  const auto k = static_cast<size_t>(options_.top_k);
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!(logits[i] >= least)) continue;
    candidates_.emplace_back(logits[i], static_cast<Token>(i));
    if (k == 0 || candidates_.size() < 2 * k + 1024) continue;
    KeepTopK();  // every now and then, so that few tokens are ever compared
    least = candidates_.back().first;
  }
  if (k != 0) KeepTopK();
}

void Sampler::KeepTopK() {
  const auto k = static_cast<ptrdiff_t>(options_.top_k);
  if (k < std::ssize(candidates_)) {
    std::nth_element(candidates_.begin(), candidates_.begin() + k, candidates_.end(), Better);
    candidates_.resize(static_cast<size_t>(k));
  }
  std::sort(candidates_.begin(), candidates_.end(), Better);  // nth_element's order differs between libraries
}

// The fewest of the best that together have at least top_p of the weight.
void Sampler::KeepTopP() {
  if (options_.top_p >= 1) return;
  double total = 0;
  for (const Candidate& candidate : candidates_) total += candidate.first;
  std::make_heap(candidates_.begin(), candidates_.end(), Worse);
  double kept = 0;
  auto heap_end = candidates_.end();
  while (heap_end != candidates_.begin() && kept < options_.top_p * total) {
    std::pop_heap(candidates_.begin(), heap_end, Worse);
    --heap_end;
    kept += heap_end->first;
  }
  candidates_.erase(candidates_.begin(), heap_end);
}

void Sampler::KeepMinP() {
  if (options_.min_p <= 0) return;  // weights are relative to the best one's, which is 1
  std::erase_if(candidates_, [this](const Candidate& candidate) { return candidate.first < options_.min_p; });
}

Token Sampler::Draw() {
  double total = 0;
  for (const Candidate& candidate : candidates_) total += candidate.first;
  // 53 bits of the generator as a number in [0, 1): the library's own distributions differ between libraries.
  const double target = static_cast<double>(random_() >> 11) * 0x1p-53 * total;
  double sum = 0;
  for (const Candidate& candidate : candidates_) {
    sum += candidate.first;
    if (target < sum) return candidate.second;
  }
  return candidates_.back().second;
}

StopMatcher::StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {
  std::erase_if(stops_, [](const std::string& stop) { return stop.empty(); });
}

std::string StopMatcher::Push(std::string_view text) {
  if (stopped_) return "";
  held_ += text;
  size_t first_end = std::string::npos, begin = 0;
  for (const std::string& stop : stops_) {
    const size_t at = held_.find(stop);
    if (at == std::string::npos) continue;
    const size_t end = at + stop.size();
    if (first_end == std::string::npos || end < first_end || (end == first_end && at < begin)) {
      first_end = end;
      begin = at;
    }
  }
  stopped_ = first_end != std::string::npos;
  size_t shown = stopped_ ? begin : held_.size();
  if (!stopped_) {
    for (const std::string& stop : stops_) {
      for (size_t part = std::min(stop.size() - 1, held_.size()); part > held_.size() - shown; --part) {
        if (std::string_view(held_).ends_with(std::string_view(stop).substr(0, part))) shown = held_.size() - part;
      }
    }
  }
  std::string out = held_.substr(0, shown);
  held_.erase(0, stopped_ ? held_.size() : shown);
  return out;
}

std::string StopMatcher::Finish() {
  return std::exchange(held_, std::string());
}

}  // namespace kvist
