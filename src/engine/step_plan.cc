// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "engine/step_plan.h"

#include <algorithm>
#include <ranges>

#include "engine/generator.h"

namespace kvist {
namespace {

class Planner {
 public:
  Planner(const Line& running, int64_t max_batch_tokens, int64_t block_tokens)
      : running_(running), max_batch_tokens_(max_batch_tokens), block_tokens_(block_tokens) {}

  StepPlan Plan() {
    for (const auto& request : running_) {
      if (request->is_decoding()) Add(*request, request->num_stored() + 1);
    }
    for (size_t i = 0; i < running_.size() && room() > 0; ++i) {
      if (!running_[i]->is_decoding()) PlanPrompt(*running_[i], i);
    }
    return plan_;
  }

 private:
  int64_t room() const { return max_batch_tokens_ - plan_.num_tokens; }
  int64_t WholeBlocks(int64_t num_tokens) const { return num_tokens / block_tokens_ * block_tokens_; }

  void Add(ActiveRequest& request, int64_t end) {
    const int64_t begin = request.num_stored();
    plan_.pieces.push_back({&request, begin, end});
    plan_.num_tokens += end - begin;
  }

  void PlanPrompt(ActiveRequest& request, size_t place) {
    if (!request.is_frugal()) {
      if (IsAnyAhead(request)) plan_.num_reused_tokens += request.ReuseMore();
      if (IsComputedBefore(request, place)) {
        ++plan_.num_shared_waits;
        return;
      }
      plan_.num_reused_tokens += request.TakeMoved();
    }
    const int64_t begin = request.num_stored();
    int64_t end = request.StepEnd(Generator::PrefillStepEnd(begin, request.text.num_tokens()));
    if (request.is_frugal()) end = std::min(end, WholeBlocks(begin) + block_tokens_);
    Add(request, std::min(end, begin + room()));
  }

  // Whether another has stored whole blocks of the request's text that it does not have yet.
  bool IsAnyAhead(const ActiveRequest& request) const {
    return std::ranges::any_of(running_, [&](const auto& other) {
      if (other.get() == &request || other->salt() != request.salt()) return false;
      const int64_t num_whole = WholeBlocks(std::min(other->num_stored(), other->end_of_prefix()));
      if (num_whole <= request.num_stored()) return false;
      return std::min(num_whole, NumCommonTokens(request.reusable_tokens(), other->text.tokens())) >
             request.num_stored();
    });
  }

  // Whether one in front, still at its prompt, is going to store the block that the request needs next.
  bool IsComputedBefore(const ActiveRequest& request, size_t place) const {
    const int64_t block_end = WholeBlocks(request.num_stored()) + block_tokens_;
    if (std::ssize(request.reusable_tokens()) < block_end) return false;
    return std::ranges::any_of(running_ | std::views::take(place), [&](const auto& other) {
      if (other->is_decoding() || other->salt() != request.salt()) return false;
      if (other->num_stored() >= block_end || other->text.num_tokens() < block_end) return false;
      if (other->end_of_prefix() < block_end) return false;
      return NumCommonTokens(request.text.tokens(), other->text.tokens()) >= block_end;
    });
  }

  const Line& running_;
  const int64_t max_batch_tokens_;
  const int64_t block_tokens_;
  StepPlan plan_;
};

}  // namespace

StepPlan PlanStep(const Line& running, int64_t max_batch_tokens, int64_t block_tokens) {
  return Planner(running, max_batch_tokens, block_tokens).Plan();
}

}  // namespace kvist
