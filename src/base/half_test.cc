// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "base/half.h"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace kvist::half_test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

bool IsHalfNan(uint16_t half) {
  return (half & 0x7fff) > 0x7c00;
}

// What the bits mean, by definition.
double HalfByDefinition(uint16_t half) {
  const int exponent = (half >> 10) & 31, mantissa = half & 1023;
  const double sign = (half & 0x8000) != 0 ? -1 : 1;
  if (exponent == 31) return sign * double(kInfinity);
  return sign * (exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25));
}

TEST_CASE("half: every binary16 means what the standard says and survives the way there and back") {
  int num_wrong = 0;
  for (uint32_t i = 0; i < 65536; ++i) {
    const auto half = uint16_t(i);
    const float value = F16ToF32(half);
    if (IsHalfNan(half)) {
      num_wrong += !std::isnan(value) || !IsHalfNan(F32ToF16(value)) || std::signbit(value) != (half >> 15 != 0);
    } else {
      num_wrong += double(value) != HalfByDefinition(half) || F32ToF16(value) != half;
    }
  }
  CHECK(num_wrong == 0);
}

TEST_CASE("half: between two neighbouring binary16 the nearer one is taken, and the even one half way") {
  int num_wrong = 0;
  for (uint32_t i = 0; i < 0x7bff; ++i) {
    const auto low = uint16_t(i), high = uint16_t(i + 1), even = (i & 1) != 0 ? high : low;
    const float middle = (F16ToF32(low) + F16ToF32(high)) / 2;  // exact: binary16 has 13 bits less
    num_wrong += F32ToF16(middle) != even;
    num_wrong += F32ToF16(std::nextafter(middle, 0.0f)) != low;
    num_wrong += F32ToF16(std::nextafter(middle, kInfinity)) != high;
    num_wrong += F32ToF16(-middle) != (even | 0x8000);
    num_wrong += F32ToF16(std::nextafter(-middle, 0.0f)) != (low | 0x8000);
    num_wrong += F32ToF16(std::nextafter(-middle, -kInfinity)) != (high | 0x8000);
  }
  CHECK(num_wrong == 0);
}

TEST_CASE("half: the ends of binary16's range") {
  CHECK(F32ToF16(0.0f) == 0);
  CHECK(F32ToF16(-0.0f) == 0x8000);
  CHECK(std::signbit(F16ToF32(0x8000)));
  CHECK(F32ToF16(65504.0f) == 0x7bff);
  CHECK(F32ToF16(std::nextafter(65520.0f, 0.0f)) == 0x7bff);
  CHECK(F32ToF16(65520.0f) == 0x7c00);
  CHECK(F32ToF16(std::numeric_limits<float>::max()) == 0x7c00);
  CHECK(F32ToF16(kInfinity) == 0x7c00);
  CHECK(F32ToF16(-kInfinity) == 0xfc00);
  CHECK(F32ToF16(0x1p-24f) == 1);
  CHECK(F32ToF16(0x1p-25f) == 0);
  CHECK(F32ToF16(std::nextafter(0x1p-25f, 1.0f)) == 1);
  CHECK(F32ToF16(std::numeric_limits<float>::denorm_min()) == 0);
  CHECK(F32ToF16(-std::numeric_limits<float>::denorm_min()) == 0x8000);
  CHECK(IsHalfNan(F32ToF16(std::numeric_limits<float>::quiet_NaN())));
  CHECK(IsHalfNan(F32ToF16(std::bit_cast<float>(0x7f800001u))));  // its payload lies below what binary16 keeps
}

TEST_CASE("half: every bfloat16 survives, and what lies between goes to the nearer one, ties to even") {
  int num_wrong = 0;
  for (uint32_t i = 0; i < 65536; ++i) {
    const auto half = uint16_t(i);
    const float value = Bf16ToF32(half);
    if (std::isnan(value)) {
      num_wrong += !std::isnan(Bf16ToF32(F32ToBf16(value)));
      continue;
    }
    num_wrong += F32ToBf16(value) != half;
    if (std::isinf(value)) continue;
    auto rounded = [&](uint32_t lower_bits) { return F32ToBf16(std::bit_cast<float>((i << 16) | lower_bits)); };
    num_wrong += rounded(0x7fff) != half || rounded(0x8001) != half + 1 || rounded(0xffff) != half + 1;
    num_wrong += rounded(0x8000) != half + (half & 1);
  }
  CHECK(num_wrong == 0);
  CHECK(F32ToBf16(std::numeric_limits<float>::max()) == 0x7f80);
  CHECK(std::isnan(Bf16ToF32(F32ToBf16(std::bit_cast<float>(0x7f800001u)))));
  CHECK(std::isnan(Bf16ToF32(F32ToBf16(std::bit_cast<float>(0xffffffffu)))));
}

}  // namespace
}  // namespace kvist::half_test
