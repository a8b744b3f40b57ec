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
    const bool fits = Add(bytes);
    if (!fits) is_short_.store(true, std::memory_order_relaxed);
    if (fits && used_bytes() <= limit_bytes_ / 4 * 3) is_short_.store(false, std::memory_order_relaxed);
    return fits;
  }
  // The same for memory that is only expected to be needed. After a charge did not fit, these wait until a quarter of
  // the limit is free again, so that they don't take what was just freed for that charge.
  bool ChargeAhead(size_t bytes) { return !is_short_.load(std::memory_order_relaxed) && Add(bytes); }
  void Refund(size_t bytes) { used_bytes_.fetch_sub(bytes, std::memory_order_relaxed); }

  size_t limit_bytes() const { return limit_bytes_; }
  size_t used_bytes() const { return used_bytes_.load(std::memory_order_relaxed); }
  size_t peak_bytes() const { return peak_bytes_.load(std::memory_order_relaxed); }

 private:
  bool Add(size_t bytes) {
    size_t used = used_bytes_.load(std::memory_order_relaxed);
    do {
      if (bytes > limit_bytes_ - used) return false;
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
