// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include <bit>
#include <cmath>

#include "base/half.h"
#include "codec/tile.h"
#include "kernels/kernels.h"

namespace kvist::scalar {
namespace {

constexpr int kRowsAtOnce = 2;

// Eight floats and plain loops, which the compiler may turn into whatever the base instruction set offers.
struct Vec {
  static constexpr int kLanes = 8;
  float lane[kLanes];

  template <class F>
  static Vec Each(F f) {
    Vec result;
    for (int i = 0; i < kLanes; ++i) result.lane[i] = f(i);
    return result;
  }
  static Vec Zero() { return Broadcast(0.0f); }
  static Vec Broadcast(float x) {
    return Each([=](int) { return x; });
  }
  static Vec Load(const float* p) {
    return Each([=](int i) { return p[i]; });
  }
  static Vec LoadF16(const uint16_t* p) {
    return Each([=](int i) { return F16ToF32(p[i]); });
  }
  static Vec LoadBf16(const uint16_t* p) {
    return Each([=](int i) { return Bf16ToF32(p[i]); });
  }
};
inline void Store(float* p, const Vec& a) {
  for (int i = 0; i < Vec::kLanes; ++i) p[i] = a.lane[i];
}
inline void StoreF16(uint16_t* p, const Vec& a) {
  for (int i = 0; i < Vec::kLanes; ++i) p[i] = F32ToF16(a.lane[i]);
}
inline Vec Fma(const Vec& a, const Vec& b, const Vec& c) {
  return Vec::Each([&](int i) { return a.lane[i] * b.lane[i] + c.lane[i]; });
}
inline Vec Mul(const Vec& a, const Vec& b) {
  return Vec::Each([&](int i) { return a.lane[i] * b.lane[i]; });
}
inline Vec Add(const Vec& a, const Vec& b) {
  return Vec::Each([&](int i) { return a.lane[i] + b.lane[i]; });
}
inline Vec Sub(const Vec& a, const Vec& b) {
  return Vec::Each([&](int i) { return a.lane[i] - b.lane[i]; });
}
inline Vec Max(const Vec& a, const Vec& b) {
  return Vec::Each([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
}
inline Vec Round(const Vec& a) {
  // Scores of masked slots are -infinity; they must not reach the conversion to int in PowerOfTwo.
  return Vec::Each([&](int i) { return std::nearbyint(a.lane[i] < -127.0f ? -127.0f : a.lane[i]); });
}
inline Vec PowerOfTwo(const Vec& n) {
  return Vec::Each([&](int i) { return std::bit_cast<float>(uint32_t(int32_t(n.lane[i]) + 127) << 23); });
}
inline Vec ZeroWhereBelow(const Vec& x, float limit, const Vec& a) {
  return Vec::Each([&](int i) { return x.lane[i] < limit ? 0.0f : a.lane[i]; });
}
inline float ReduceMax(const Vec& a) {
  float largest = a.lane[0];
  for (float x : a.lane) largest = x > largest ? x : largest;
  return largest;
}
inline float ReduceAdd(const Vec& a) {
  float sum = 0;
  for (float x : a.lane) sum += x;
  return sum;
}

#include "kernels/attend_tile-inl.h"

}  // namespace

extern const Kernels kKernels;
const Kernels kKernels{"scalar", AttendTile, EncodeVectors, DecodeVectors};

}  // namespace kvist::scalar
