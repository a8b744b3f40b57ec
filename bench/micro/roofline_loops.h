// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace kvist {

// Loops that keep one core as busy as one instruction set allows. Pure functions, safe from any thread; their results
// are there so that the compiler can't leave the work out, and to see that all of it is done.
struct RooflineLoops {
  const char* isa;  // as Kernels::name
  // Reads num_bytes (a multiple of kReadUnitBytes) from one of kReadStreams places at a time, which the memory of one
  // machine likes and another's does not. Returns all of it, taken as u32, or-ed together.
  uint32_t (*read)(const std::byte* data, size_t num_bytes, int num_streams);
  // In each turn the first vector of operands is multiplied with each of the next kRooflineSums, as f32 or as int8 (all
  // but the first vector's 0 to 127), and added to as many sums. They take kOperandBytes or less, which stay in the
  // first-level cache. Return the sum of all products.
  float (*multiply_floats)(const std::byte* operands, int num_turns);
  int32_t (*multiply_ints)(const std::byte* operands, int num_turns);
  int float_ops_per_turn;  // a multiplication and its addition are two
  int int_ops_per_turn;
};

inline constexpr size_t kReadUnitBytes = 4096;
inline constexpr size_t kOperandBytes = 1024;
inline constexpr int kRooflineSums = 12;  // independent, so that no addition waits for the one before
inline constexpr int kReadStreams[] = {1, 4, 8};

// Those of the kernels of that name, which this CPU has to be able to run; null when there are none.
const RooflineLoops* FindRooflineLoops(std::string_view isa);

}  // namespace kvist
