// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <chrono>
#include <mutex>

namespace kvist {

// Decides whether a peer that fails is worth another call: after some failures in a row it is left alone for a while,
// then one call tries; the others wait for what that one finds.
// Thread-safe.
class CircuitBreaker {
 public:
  using Clock = std::chrono::steady_clock;
  CircuitBreaker(int failures_to_rest, Clock::duration rest) : failures_to_rest_(failures_to_rest), rest_(rest) {}

  // Whether to call the peer now. Whoever is told true tells the outcome with Succeeded, Failed or
  // Withdrawn.
  bool Allows(Clock::time_point now) {
    const std::lock_guard lock(mutex_);
    if (num_failures_ < failures_to_rest_) return true;
    if (now < rests_until_ || is_trying_) return false;
    is_trying_ = true;
    return true;
  }
  bool is_resting() const {
    const std::lock_guard lock(mutex_);
    return num_failures_ >= failures_to_rest_;
  }
  void Succeeded() {
    const std::lock_guard lock(mutex_);
    num_failures_ = 0;
    is_trying_ = false;
  }
  void Withdrawn() {  // the call was not made
    const std::lock_guard lock(mutex_);
    is_trying_ = false;
  }
  void Failed(Clock::time_point now) {
    const std::lock_guard lock(mutex_);
    is_trying_ = false;
    if (num_failures_ < failures_to_rest_) ++num_failures_;
    if (num_failures_ == failures_to_rest_) rests_until_ = now + rest_;
  }

 private:
  const int failures_to_rest_;
  const Clock::duration rest_;
  mutable std::mutex mutex_;
  int num_failures_ = 0;  // in a row, at most failures_to_rest_
  Clock::time_point rests_until_;
  bool is_trying_ = false;
};

}  // namespace kvist
