// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "policy/load_plan.h"

#include <doctest/doctest.h>

namespace kvist::load_plan_test {
namespace {

TEST_CASE("load plan: a line is learned from its points") {
  CostLine line;
  CHECK_FALSE(line.SecondsFor(1));
  line.Add(100, 3);
  CHECK(line.SecondsFor(100).value() == doctest::Approx(3));
  CHECK(line.SecondsFor(200).value() == doctest::Approx(6));  // of one point: proportional
  for (const double size : {100, 400, 900, 50}) line.Add(size, 2 + size / 100);
  CHECK(line.SecondsFor(0).value() == doctest::Approx(2));
  CHECK(line.SecondsFor(1000).value() == doctest::Approx(12));
}

TEST_CASE("load plan: it follows a machine that changes, and is never negative") {
  CostLine line;
  for (int i = 0; i < 100; ++i) line.Add(100 + i % 7 * 50, 1);
  for (int i = 0; i < 60; ++i) line.Add(100 + i % 7 * 50, 5);
  CHECK(line.SecondsFor(200).value() == doctest::Approx(5).epsilon(0.02));
  CostLine falling;
  falling.Add(10, 100);
  falling.Add(1000, 1);
  CHECK(falling.SecondsFor(1e6).value() >= 0);
}

TEST_CASE("load plan: loading stops being worth it at the break-even point") {
  CostLine load, compute;
  CHECK(IsWorthLoading(load.SecondsFor(1 << 30), compute, 0, 100));  // nothing is known
  load.Add(1e6, 0.1);                                                // 10 MB/s
  CHECK(IsWorthLoading(load.SecondsFor(1 << 30), compute, 0, 100));
  for (const double position : {0, 1000, 2000}) compute.Add(position, 0.001 + position * 1e-6);
  // 1,000 tokens from 1,500 to 2,500 on cost 3 s: worth 30 MB.
  CHECK(IsWorthLoading(load.SecondsFor(29'000'000), compute, 1500, 2500));
  CHECK_FALSE(IsWorthLoading(load.SecondsFor(31'000'000), compute, 1500, 2500));
  // Nearer to the beginning they cost less.
  CHECK_FALSE(IsWorthLoading(load.SecondsFor(29'000'000), compute, 0, 1000));
}

}  // namespace
}  // namespace kvist::load_plan_test
