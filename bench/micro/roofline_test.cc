// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "bench/micro/roofline.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "base/machine_memory.h"
#include "bench/micro/free_memory.h"
#include "bench/micro/roofline_loops.h"
#include "kernels/kernels.h"

namespace kvist::roofline_test {
namespace {

struct alignas(64) Line {
  std::byte bytes[64];
};

std::vector<const RooflineLoops*> SupportedLoops() {
  std::vector<const RooflineLoops*> all;
  for (const Kernels* kernels : SupportedKernels()) {
    CAPTURE(std::string(kernels->name));
    all.push_back(FindRooflineLoops(kernels->name));
    REQUIRE(all.back() != nullptr);
  }
  return all;
}

TEST_CASE("roofline: every instruction set of the kernels has loops, and no other name has") {
  for (const RooflineLoops* loops : SupportedLoops()) CHECK(loops->isa != nullptr);
  CHECK(FindRooflineLoops("mmx") == nullptr);
}

TEST_CASE("roofline: reading skips no byte") {
  constexpr size_t kBytes = 3 * kReadUnitBytes;
  std::vector<Line> lines(kBytes / sizeof(Line));
  std::byte* data = lines[0].bytes;
  std::minstd_rand random(1);
  for (const RooflineLoops* loops : SupportedLoops()) {
    CAPTURE(std::string(loops->isa));
    for (const int num_streams : kReadStreams) {
      CAPTURE(num_streams);
      CHECK(loops->read(data, kBytes, num_streams) == 0);
      for (int i = 0; i < 500; ++i) {
        const size_t place = i == 0 ? 0 : i == 1 ? kBytes - 1 : random() % kBytes;
        data[place] = std::byte{1};
        CHECK(loops->read(data, kBytes, num_streams) == 1u << place % 4 * 8);
        data[place] = std::byte{0};
      }
    }
  }
}

TEST_CASE("roofline: a turn multiplies and adds as often as it says") {
  constexpr int kTurns = 7;
  alignas(64) float floats[kOperandBytes / sizeof(float)];
  std::ranges::fill(floats, 2.0f);
  alignas(64) std::byte bytes[kOperandBytes];
  std::ranges::fill(bytes, std::byte{3});
  for (const RooflineLoops* loops : SupportedLoops()) {
    CAPTURE(std::string(loops->isa));
    const auto* operands = reinterpret_cast<const std::byte*>(floats);
    CHECK(loops->multiply_floats(operands, kTurns) == 4.0f * kTurns * loops->float_ops_per_turn / 2);
    CHECK(loops->multiply_ints(bytes, kTurns) == 9 * kTurns * loops->int_ops_per_turn / 2);
  }
}

TEST_CASE("roofline: bytes have signs") {
  for (const RooflineLoops* loops : SupportedLoops()) {
    CAPTURE(std::string(loops->isa));
    const int vector_bytes = loops->int_ops_per_turn / 2 / kRooflineSums;
    alignas(64) std::byte bytes[kOperandBytes];
    std::ranges::fill(bytes, std::byte{100});
    std::ranges::fill_n(bytes, vector_bytes, static_cast<std::byte>(-5));
    CHECK(loops->multiply_ints(bytes, 1) == 100 * -5 * loops->int_ops_per_turn / 2);
  }
}

TEST_CASE("roofline: what is measured is what a machine can do") {
  const RooflineOptions small{.buffer_bytes = 16 << 20, .seconds_of_each = 0.005};
  for (const int num_threads : {1, 2}) {
    CAPTURE(num_threads);
    const auto roofline = MeasureRoofline(num_threads, small);
    REQUIRE(roofline.has_value());
    // No machine reads less than 10 MB or more than 10 TB a second, or computes less than a tenth of an operation a ns.
    CHECK(roofline->read_bytes_per_s > 1e7);
    CHECK(roofline->read_bytes_per_s < 1e13);
    CHECK(roofline->float_ops_per_s > 1e8);
    CHECK(roofline->int_ops_per_s > 1e8);
  }
}

TEST_CASE("roofline: the slower of reading and computing takes the time") {
  const Roofline roofline{.read_bytes_per_s = 100, .float_ops_per_s = 1000, .int_ops_per_s = 4000};
  const RooflineTime reading = LeastTime(roofline, {.read_bytes = 200, .float_ops = 1000, .int_ops = 2000});
  CHECK(reading.seconds == doctest::Approx(2));
  CHECK(reading.is_bound_by_memory);
  const RooflineTime computing = LeastTime(roofline, {.read_bytes = 200, .float_ops = 2000, .int_ops = 2000});
  CHECK(computing.seconds == doctest::Approx(2.5));
  CHECK_FALSE(computing.is_bound_by_memory);
}

TEST_CASE("free memory: there is some, and no more than the machine has") {
  CHECK(FreeMemoryBytes() > 0);
  CHECK(FreeMemoryBytes() <= PhysicalBytes());
}

}  // namespace
}  // namespace kvist::roofline_test
