// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "cache/rope.h"

#include <doctest/doctest.h>

#include <cmath>
#include <random>
#include <vector>

#include "tests/property/naive_cache.h"

namespace kvist::rope_test {
namespace {

std::vector<RopeSpec> Ropes() {
  std::vector<RopeSpec> ropes;
  for (const RopePairing pairing : {RopePairing::kAdjacent, RopePairing::kHalves}) {
    for (const int dims : {64, 32, 2}) {
      for (const float position_scale : {1.0f, 0.125f}) {
        RopeSpec rope;
        rope.dims = dims;
        rope.base = dims == 64 ? 1e6f : 1e4f;
        rope.position_scale = position_scale;
        rope.pairing = pairing;
        if (dims == 32)
          for (int i = 0; i < dims / 2; ++i) rope.frequency_factors.push_back(1.0f + 0.5f * float(i));
        ropes.push_back(rope);
      }
    }
  }
  return ropes;
}

TEST_CASE("rope: turning is what the definition says, and leaves the other channels alone") {
  std::mt19937 random(1);
  const int dim = 64, num_rows = 3;
  for (const RopeSpec& rope : Ropes()) {
    for (const int64_t positions : {1, -1, 17, -500, 100000}) {
      const auto before = testing::RandomFloats(random, size_t(num_rows * dim));
      auto after = before;
      Rotate(rope, positions, after.data(), num_rows, dim);
      double worst = 0;
      for (int row = 0; row < num_rows; ++row) {
        const auto wanted = testing::Turned(rope, positions, before.data() + row * dim, dim);
        for (int c = 0; c < dim; ++c) {
          const float got = after[size_t(row * dim + c)];
          worst = std::max(worst, std::fabs(double(got) - wanted[size_t(c)]));
          if (c >= rope.dims) CHECK(got == before[size_t(row * dim + c)]);
        }
      }
      CHECK(worst < 1e-6);
    }
  }
}

TEST_CASE("rope: turning back undoes it, and no turn or no rope changes nothing") {
  std::mt19937 random(2);
  for (const RopeSpec& rope : Ropes()) {
    const auto before = testing::RandomFloats(random, 64);
    auto x = before;
    Rotate(rope, 0, x.data(), 1, 64);
    CHECK(x == before);
    Rotate(rope, 12345, x.data(), 1, 64);
    CHECK(x != before);
    Rotate(rope, -12345, x.data(), 1, 64);
    for (size_t c = 0; c < 64; ++c) CHECK(std::fabs(x[c] - before[c]) < 1e-6f);
    Rotate(RopeSpec{}, 5, x.data(), 1, 64);
  }
}

}  // namespace
}  // namespace kvist::rope_test
