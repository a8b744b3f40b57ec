// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <atomic>
#include <cstddef>

namespace kvist {

// The bytes that may be used, shared by all who use them. Charging checks before memory is taken. Thread-safe.
class MemoryBudget {
 public:
  explicit MemoryBudget(size_t limit_bytes) : limit_bytes_(limit_bytes) {}

  // True when the bytes fit and are now counted as used.
  bool Charge(size_t bytes) {
    const bool fits = Add(bytes, limit_bytes_);
    if (!fits) is_short_.store(true, std::memory_order_relaxed);
    if (fits && used_bytes() <= limit_bytes_ - limit_bytes_ / 4) is_short_.store(false, std::memory_order_relaxed);
    return fits;
  }
  // The same for memory that is only expected to be needed. It leaves an eighth of the limit to what is needed now, and
  // after a charge did not fit it waits until one has left a quarter free, so as not to take what was just freed for
  // it.
  bool ChargeAhead(size_t bytes) {
    return !is_short_.load(std::memory_order_relaxed) && Add(bytes, limit_bytes_ - limit_bytes_ / 8);
  }
  void Refund(size_t bytes) { used_bytes_.fetch_sub(bytes, std::memory_order_relaxed); }

  size_t limit_bytes() const { return limit_bytes_; }
  size_t used_bytes() const { return used_bytes_.load(std::memory_order_relaxed); }
  size_t peak_bytes() const { return peak_bytes_.load(std::memory_order_relaxed); }

 private:
  bool Add(size_t bytes, size_t limit_bytes) {
    size_t used = used_bytes_.load(std::memory_order_relaxed);
    do {
      if (used > limit_bytes || bytes > limit_bytes - used) return false;
    } while (!used_bytes_.compare_exchange_weak(used, used + bytes, std::memory_order_relaxed));
    size_t peak = peak_bytes_.load(std::memory_order_relaxed);
    while (used + bytes > peak && !peak_bytes_.compare_exchange_weak(peak, used + bytes, std::memory_order_relaxed)) {
    }
    return true;
  }

  const size_t limit_bytes_;
  std::atomic<bool> is_short_{false};
  std::atomic<size_t> used_bytes_{0};
  std::atomic<size_t> peak_bytes_{0};
};

}  // namespace kvist
