// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "tier/circuit_breaker.h"

#include <doctest/doctest.h>

namespace kvist::circuit_breaker_test {
namespace {

using namespace std::chrono_literals;
constexpr CircuitBreaker::Clock::time_point kStart{1h};

TEST_CASE("circuit breaker: rests after so many failures in a row, not after fewer") {
  CircuitBreaker breaker(3, 1s);
  breaker.Failed(kStart);
  breaker.Failed(kStart);
  breaker.Succeeded();
  breaker.Failed(kStart);
  breaker.Failed(kStart);
  CHECK(breaker.Allows(kStart));
  CHECK_FALSE(breaker.is_resting());
  breaker.Failed(kStart);
  CHECK_FALSE(breaker.Allows(kStart));
  CHECK_FALSE(breaker.Allows(kStart + 999ms));
  CHECK(breaker.is_resting());
}

TEST_CASE("circuit breaker: a call that was not made says nothing of the peer, and lets another one try") {
  CircuitBreaker breaker(2, 1s);
  for (int i = 0; i < 5; ++i) {
    REQUIRE(breaker.Allows(kStart));
    breaker.Withdrawn();
  }
  breaker.Failed(kStart);
  breaker.Failed(kStart);
  CHECK(breaker.Allows(kStart + 1s));
  CHECK_FALSE(breaker.Allows(kStart + 1s));
  breaker.Withdrawn();
  CHECK(breaker.is_resting());
  CHECK(breaker.Allows(kStart + 1s));
}

TEST_CASE("circuit breaker: after the rest one call tries, and the others go by what it finds") {
  CircuitBreaker breaker(1, 1s);
  breaker.Failed(kStart);
  CHECK(breaker.Allows(kStart + 1s));
  CHECK_FALSE(breaker.Allows(kStart + 1s));
  CHECK_FALSE(breaker.Allows(kStart + 10s));
  breaker.Failed(kStart + 10s);  // rests again
  CHECK_FALSE(breaker.Allows(kStart + 10s));
  CHECK_FALSE(breaker.Allows(kStart + 10s + 999ms));
  CHECK(breaker.Allows(kStart + 11s));
  breaker.Succeeded();
  CHECK(breaker.Allows(kStart + 11s));
  CHECK(breaker.Allows(kStart + 11s));
  CHECK_FALSE(breaker.is_resting());
}

TEST_CASE("circuit breaker: calls that began before the rest may end in it") {
  CircuitBreaker breaker(2, 1s);
  for (int i = 0; i < 5; ++i) CHECK(breaker.Allows(kStart));
  for (int i = 0; i < 4; ++i) breaker.Failed(kStart + i * 100ms);
  CHECK_FALSE(breaker.Allows(kStart + 1200ms));  // it counts from the last failure
  breaker.Succeeded();                           // so the peer works
  CHECK(breaker.Allows(kStart + 400ms));
}

}  // namespace
}  // namespace kvist::circuit_breaker_test
