// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "storage/memory_budget.h"

#include <doctest/doctest.h>

#include <cstdint>
#include <thread>
#include <vector>

namespace kvist::memory_budget_test {
namespace {

TEST_CASE("memory budget: charges up to the limit and not a byte over it") {
  MemoryBudget budget(100);
  CHECK(budget.Charge(60));
  CHECK_FALSE(budget.Charge(41));
  CHECK(budget.used_bytes() == 60);
  CHECK(budget.Charge(40));
  CHECK_FALSE(budget.Charge(1));
  CHECK(budget.Charge(0));
  budget.Refund(70);
  CHECK(budget.used_bytes() == 30);
  CHECK(budget.peak_bytes() == 100);
  CHECK_FALSE(budget.Charge(SIZE_MAX));
  CHECK_FALSE(budget.Charge(SIZE_MAX - 29));
  CHECK(budget.used_bytes() == 30);
  CHECK(budget.limit_bytes() == 100);
}

TEST_CASE("memory budget: threads together never get more than there is, and all of it comes back") {
  constexpr size_t kLimit = 1000;
  MemoryBudget budget(kLimit);
  std::atomic<size_t> held{0}, worst{0}, num_refused{0};
  auto work = [&](size_t bytes) {
    for (int i = 0; i < 20000; ++i) {
      if (!budget.Charge(bytes)) {
        ++num_refused;
        continue;
      }
      const size_t now = held.fetch_add(bytes) + bytes;
      size_t seen = worst;
      while (now > seen && !worst.compare_exchange_weak(seen, now)) {
      }
      held.fetch_sub(bytes);
      budget.Refund(bytes);
    }
  };
  std::vector<std::thread> threads;
  for (const size_t bytes : {501u, 333u, 250u, 700u}) threads.emplace_back(work, bytes);
  for (std::thread& thread : threads) thread.join();
  CHECK(budget.used_bytes() == 0);
  CHECK(worst <= kLimit);
  CHECK(budget.peak_bytes() <= kLimit);
  CHECK(worst >= 250);
  CHECK(budget.peak_bytes() >= worst);
}

TEST_CASE("memory budget: charges ahead wait after a charge did not fit, until a quarter is free") {
  MemoryBudget budget(100);
  CHECK(budget.ChargeAhead(80));
  CHECK_FALSE(budget.Charge(50));
  CHECK_FALSE(budget.ChargeAhead(1));
  budget.Refund(80);
  CHECK_FALSE(budget.ChargeAhead(1));  // what was freed is for the charge that did not fit
  CHECK(budget.Charge(76));
  CHECK_FALSE(budget.ChargeAhead(1));
  budget.Refund(10);
  CHECK(budget.Charge(5));
  CHECK(budget.ChargeAhead(17));       // 88
  CHECK_FALSE(budget.ChargeAhead(1));  // an eighth is left to what is needed now
  CHECK(budget.Charge(12));
  CHECK_FALSE(budget.Charge(1));
}

}  // namespace
}  // namespace kvist::memory_budget_test
