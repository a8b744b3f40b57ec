// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/continuation.h"
#include "engine/moved_reuse.h"
#include "engine/retaining.h"
#include "kvist/cache.h"

namespace kvist {

// A request of the scheduler from its arrival to its end. It runs while it has a sequence; without one it has not begun
// or is parked.
class ActiveRequest {
 public:
  // settings: valid. retainer: of a request that gives up tokens.
  ActiveRequest(uint64_t id, int priority, std::string salt, Continuation text_in, SequenceSettings settings,
                std::optional<Retainer> retainer)
      : text(std::move(text_in)),
        id_(id),
        priority_(priority),
        salt_(std::move(salt)),
        settings_(std::move(settings)),
        retainer_(std::move(retainer)) {}

  uint64_t id() const { return id_; }
  const std::string& salt() const { return salt_; }
  bool StandsBefore(const ActiveRequest& other) const {
    return priority_ != other.priority_ ? priority_ > other.priority_ : id_ < other.id_;
  }

  // Begins a sequence with whatever the cache has of the tokens; returns how many. The first report is kept.
  int64_t Admit(Cache& cache);
  void Park() { sequence_.reset(); }
  // Begins anew in the least memory that its tokens can be computed in: nothing is taken from others, because a block
  // shared in part needs a second one when it is written to, and steps are short.
  void StartOver(Cache& cache);
  // Takes what other sequences have stored meanwhile; returns how many tokens that was.
  int64_t ReuseMore();
  // Goes on with stored chunks of the text that were computed at another position; returns how many tokens.
  int64_t TakeMoved();
  // Where a step that would end there has to end, because the next of these begins.
  int64_t StepEnd(int64_t end) const { return moved_.StepEnd(end); }
  // Tokens before it are going to be found by others whose text begins alike.
  int64_t end_of_prefix() const { return moved_.end_of_prefix(); }

  Sequence& sequence() { return *sequence_; }
  // Tokens in the sequence, 0 without one.
  int64_t num_stored() const { return sequence_ ? sequence_->num_tokens() : 0; }
  // All but the last token, whose logits are needed, and those that have to be seen to be chosen from.
  std::span<const Token> reusable_tokens() const;
  // Whether its next step is one token, the last of its output.
  bool is_decoding() const { return text.num_output_tokens() > 0 && num_stored() + 1 == text.num_tokens(); }
  bool is_frugal() const { return is_frugal_; }
  const ReuseReport& first_reuse() const { return first_reuse_; }

  // After a step of the model, if it is one after which the request does. kvzip's second pass takes many steps more,
  // for which all other requests wait. Errors as Retainer's.
  Status GiveUpTokens();
  RetainStats retained() const { return retainer_ ? retainer_->stats() : RetainStats(); }

  // Counts what a step of the model has computed, up to where it ended.
  void NoteComputed(int64_t begin, int64_t end);

  Continuation text;
  int num_losses = 0;                     // times that its spilled tokens could not be read back
  std::atomic<bool> is_cancelled{false};  // the one member that other threads touch

 private:
  using Clock = std::chrono::steady_clock;
  void CountReused(int64_t num_tokens);
  void BeginSequence(Cache& cache);

  const uint64_t id_;
  const int priority_;
  const std::string salt_;
  std::optional<Sequence> sequence_;
  const SequenceSettings settings_;
  std::optional<Retainer> retainer_;
  bool has_ended_prompt_ = false;  // in this sequence
  bool is_frugal_ = false;
  std::optional<Clock::time_point> admitted_at_;  // first
  Clock::time_point first_token_at_{};
  ReuseReport first_reuse_;
  MovedReuse moved_;
};

// Requests in the order in which they stand.
using Line = std::vector<std::shared_ptr<ActiveRequest>>;
void Insert(std::shared_ptr<ActiveRequest> request, Line& line);

// How many tokens two texts begin with in common.
int64_t NumCommonTokens(std::span<const Token> a, std::span<const Token> b);

}  // namespace kvist
