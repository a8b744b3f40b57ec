// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

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
  static Vec LoadInt8(const int8_t* p) {
    return Each([=](int i) { return float(p[i]); });
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
inline bool AnyAbove(const Vec& a, float limit) {
  bool any = false;
  for (float x : a.lane) any |= x > limit;
  return any;
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

// As many int32 as Vec has floats, each the sum of products of 4 bytes or 2 words beside one another.
struct Ints {
  int32_t lane[Vec::kLanes];
  static Ints Zero() { return Broadcast(0); }
  static Ints Broadcast(int32_t x) {
    Ints result;
    for (int32_t& lane : result.lane) lane = x;
    return result;
  }
};
struct Bytes {
  uint8_t byte[4 * Vec::kLanes];
  static Bytes Load(const void* p) {
    Bytes result;
    std::memcpy(result.byte, p, sizeof(result.byte));
    return result;
  }
  static Bytes Broadcast4(const void* p) {
    Bytes result;
    for (int i = 0; i < Vec::kLanes; ++i) std::memcpy(result.byte + 4 * i, p, 4);
    return result;
  }
};
struct Words {
  int16_t word[2 * Vec::kLanes];
  static Words LoadBytes(const void* p) {
    Words result;
    for (int i = 0; i < 2 * Vec::kLanes; ++i) result.word[i] = int16_t(static_cast<const uint8_t*>(p)[i]);
    return result;
  }
  static Words Broadcast2(const void* p) {
    Words result;
    for (int i = 0; i < Vec::kLanes; ++i) std::memcpy(result.word + 2 * i, p, 4);
    return result;
  }
};
inline Ints Dot(Ints sum, const Bytes& of_unsigned, const Bytes& of_signed) {
  for (int i = 0; i < 4 * Vec::kLanes; ++i) sum.lane[i / 4] += of_unsigned.byte[i] * int8_t(of_signed.byte[i]);
  return sum;
}
inline Ints Dot(Ints sum, const Words& a, const Words& b) {
  for (int i = 0; i < 2 * Vec::kLanes; ++i) sum.lane[i / 2] += a.word[i] * b.word[i];
  return sum;
}
inline Ints Add(Ints a, const Ints& b) {
  for (int i = 0; i < Vec::kLanes; ++i) a.lane[i] += b.lane[i];
  return a;
}
inline Vec ToFloat(const Ints& a) {
  return Vec::Each([&](int i) { return float(a.lane[i]); });
}
inline Ints ToNearest(const Vec& a) {
  Ints result;
  for (int i = 0; i < Vec::kLanes; ++i) result.lane[i] = int32_t(std::nearbyint(a.lane[i]));
  return result;
}
inline void StoreNumbers(uint8_t* p, const Ints& a) {
  for (int i = 0; i < Vec::kLanes; ++i) p[i] = uint8_t(a.lane[i]);
}
inline void StoreNumbers(int16_t* p, const Ints& a) {
  for (int i = 0; i < Vec::kLanes; ++i) p[i] = int16_t(a.lane[i]);
}
inline int32_t ReduceAdd(const Ints& a) {
  int32_t sum = 0;
  for (int32_t x : a.lane) sum += x;
  return sum;
}

// 32 bytes, to take codes apart.
struct Codes {
  uint8_t byte[32];
  template <class F>
  static Codes Each(F f) {
    Codes result;
    for (int i = 0; i < 32; ++i) result.byte[i] = uint8_t(f(i));
    return result;
  }
  static Codes Load(const std::byte* p) {
    return Each([=](int i) { return uint8_t(p[i]); });
  }
  static Codes Broadcast(uint8_t x) {
    return Each([=](int) { return x; });
  }
  static Codes BroadcastTable(const uint8_t* table) {  // [16]
    return Each([=](int i) { return table[i % 16]; });
  }
};
inline void Store(uint8_t* p, const Codes& a) {
  std::memcpy(p, a.byte, sizeof(a.byte));
}
// ((byte >> kRight) << kLeft) & mask, of which one shift is 0.
template <int kRight, int kLeft>
inline Codes ShiftAnd(const Codes& a, uint8_t mask) {
  return Codes::Each([&](int i) { return ((a.byte[i] >> kRight) << kLeft) & mask; });
}
inline Codes Or(const Codes& a, const Codes& b) {
  return Codes::Each([&](int i) { return a.byte[i] | b.byte[i]; });
}
inline Codes Add(const Codes& a, const Codes& b) {
  return Codes::Each([&](int i) { return a.byte[i] + b.byte[i]; });
}
inline Codes LookUp(const Codes& table, const Codes& index) {
  return Codes::Each([&](int i) { return table.byte[index.byte[i]]; });
}

#include "kernels/attend_tile-inl.h"

}  // namespace

extern const Kernels kKernels;
const Kernels kKernels{"scalar", AttendTile, EncodeVectors, DecodeVectors, Probabilities, ScoreBf16};

}  // namespace kvist::scalar
