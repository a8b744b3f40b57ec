// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
//
// Vectors of AArch64's Advanced SIMD for attend_tile-inl.h, two registers each, with the byte dot products of ARMv8.2
// where KVIST_KERNELS_DOTPROD is defined. To be included as that is: inside an anonymous namespace, after the target
// pragma if there is one, without includes of its own.

constexpr int kRowsAtOnce = 4;

struct Vec {
  static constexpr int kLanes = 8;
  float32x4_t low, high;
  static Vec Zero() { return Broadcast(0.0f); }
  static Vec Broadcast(float x) { return {vdupq_n_f32(x), vdupq_n_f32(x)}; }
  static Vec Load(const float* p) { return {vld1q_f32(p), vld1q_f32(p + 4)}; }
  static Vec LoadF16(const uint16_t* p) {
    const float16x8_t halves = vreinterpretq_f16_u16(vld1q_u16(p));
    return {vcvt_f32_f16(vget_low_f16(halves)), vcvt_high_f32_f16(halves)};
  }
  static Vec LoadBf16(const uint16_t* p) {
    const uint16x8_t halves = vld1q_u16(p);
    return {vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(halves), 16)),
            vreinterpretq_f32_u32(vshll_high_n_u16(halves, 16))};
  }
  static Vec LoadInt8(const int8_t* p) {
    const int16x8_t words = vmovl_s8(vld1_s8(p));
    return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(words))), vcvtq_f32_s32(vmovl_high_s16(words))};
  }
};
inline void Store(float* p, Vec a) {
  vst1q_f32(p, a.low);
  vst1q_f32(p + 4, a.high);
}
inline void StoreF16(uint16_t* p, Vec a) {
  vst1q_u16(p, vreinterpretq_u16_f16(vcvt_high_f16_f32(vcvt_f16_f32(a.low), a.high)));
}
inline Vec Fma(Vec a, Vec b, Vec c) {
  return {vfmaq_f32(c.low, a.low, b.low), vfmaq_f32(c.high, a.high, b.high)};
}
inline Vec Mul(Vec a, Vec b) {
  return {vmulq_f32(a.low, b.low), vmulq_f32(a.high, b.high)};
}
inline Vec Add(Vec a, Vec b) {
  return {vaddq_f32(a.low, b.low), vaddq_f32(a.high, b.high)};
}
inline Vec Sub(Vec a, Vec b) {
  return {vsubq_f32(a.low, b.low), vsubq_f32(a.high, b.high)};
}
// As on the other instruction sets b where one of both is NaN; the instruction for it would choose NaN.
inline float32x4_t Larger(float32x4_t a, float32x4_t b) {
  return vbslq_f32(vcgtq_f32(a, b), a, b);
}
inline Vec Max(Vec a, Vec b) {
  return {Larger(a.low, b.low), Larger(a.high, b.high)};
}
inline Vec Round(Vec a) {
  return {vrndnq_f32(a.low), vrndnq_f32(a.high)};
}
inline float32x4_t PowerOfTwo(float32x4_t n) {
  const uint32x4_t exponent = vaddq_u32(vreinterpretq_u32_s32(vcvtnq_s32_f32(n)), vdupq_n_u32(127));
  return vreinterpretq_f32_u32(vshlq_n_u32(exponent, 23));
}
inline Vec PowerOfTwo(Vec n) {
  return {PowerOfTwo(n.low), PowerOfTwo(n.high)};
}
// What is not below the limit stays, and NaN is not: a damaged number must show in the result.
inline float32x4_t ZeroWhereBelow(float32x4_t x, float limit, float32x4_t a) {
  return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(a), vcltq_f32(x, vdupq_n_f32(limit))));
}
inline Vec ZeroWhereBelow(Vec x, float limit, Vec a) {
  return {ZeroWhereBelow(x.low, limit, a.low), ZeroWhereBelow(x.high, limit, a.high)};
}
inline bool AnyAbove(Vec a, float limit) {
  const float32x4_t of_limit = vdupq_n_f32(limit);
  return vmaxvq_u32(vorrq_u32(vcgtq_f32(a.low, of_limit), vcgtq_f32(a.high, of_limit))) != 0;
}
inline float ReduceMax(Vec a) {
  float32x4_t m = Larger(a.low, a.high);
  m = Larger(m, vextq_f32(m, m, 2));
  return vgetq_lane_f32(Larger(m, vrev64q_f32(m)), 0);
}
inline float ReduceAdd(Vec a) {
  return vaddvq_f32(vaddq_f32(a.low, a.high));
}

// As many int32 as Vec has floats, each the sum of products of 4 bytes or 2 words beside one another.
struct Ints {
  int32x4_t low, high;
  static Ints Zero() { return Broadcast(0); }
  static Ints Broadcast(int32_t x) { return {vdupq_n_s32(x), vdupq_n_s32(x)}; }
};
// The instructions multiply signed bytes. Keys are that as they are (up to 127); weights, broadcast as uint8_t, are
// kept less 128, and Dot adds what is missing.
struct Bytes {
  int8x16_t low, high;
  bool is_less_128;
  static Bytes Load(const std::byte* p) {
    const auto* bytes = reinterpret_cast<const int8_t*>(p);
    return {vld1q_s8(bytes), vld1q_s8(bytes + 16), false};
  }
  static Bytes Broadcast4(const int8_t* p) { return Twice(Repeat4(p), false); }
  static Bytes Broadcast4(const uint8_t* p) { return Twice(veorq_s8(Repeat4(p), vdupq_n_s8(-128)), true); }

 private:
  static Bytes Twice(int8x16_t bytes, bool is_less_128) { return {bytes, bytes, is_less_128}; }
  static int8x16_t Repeat4(const void* p) {
    int32_t bytes;
    std::memcpy(&bytes, p, sizeof(bytes));
    return vreinterpretq_s8_s32(vdupq_n_s32(bytes));
  }
};
struct Words {
  int16x8_t low, high;
  static Words LoadBytes(const std::byte* p) {
    const uint8x16_t bytes = vld1q_u8(reinterpret_cast<const uint8_t*>(p));
    return {vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(bytes))), vreinterpretq_s16_u16(vmovl_high_u8(bytes))};
  }
  static Words Broadcast2(const int16_t* p) {
    int32_t words;
    std::memcpy(&words, p, sizeof(words));
    const int16x8_t repeated = vreinterpretq_s16_s32(vdupq_n_s32(words));
    return {repeated, repeated};
  }
};
inline int32x4_t DotSigned(int32x4_t sum, int8x16_t a, int8x16_t b) {
#ifdef KVIST_KERNELS_DOTPROD
  return vdotq_s32(sum, a, b);
#else
  // Two products fit into 16 bits: of numbers up to 127, or of one down to -128 and a level up to 63.
  return vpadalq_s16(sum, vpaddq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)), vmull_high_s8(a, b)));
#endif
}
inline Ints Dot(Ints sum, Bytes of_unsigned, Bytes of_signed) {
  if (of_unsigned.is_less_128) {
    const int8x16_t minus_128 = vdupq_n_s8(-128);
    const int32x4_t zero = vdupq_n_s32(0);
    sum.low = vsubq_s32(sum.low, DotSigned(zero, minus_128, of_signed.low));
    sum.high = vsubq_s32(sum.high, DotSigned(zero, minus_128, of_signed.high));
  }
  return {DotSigned(sum.low, of_unsigned.low, of_signed.low), DotSigned(sum.high, of_unsigned.high, of_signed.high)};
}
inline int32x4_t Dot(int32x4_t sum, int16x8_t a, int16x8_t b) {
  return vaddq_s32(sum, vpaddq_s32(vmull_s16(vget_low_s16(a), vget_low_s16(b)), vmull_high_s16(a, b)));
}
inline Ints Dot(Ints sum, Words a, Words b) {
  return {Dot(sum.low, a.low, b.low), Dot(sum.high, a.high, b.high)};
}
inline Ints Add(Ints a, Ints b) {
  return {vaddq_s32(a.low, b.low), vaddq_s32(a.high, b.high)};
}
inline Vec ToFloat(Ints a) {
  return {vcvtq_f32_s32(a.low), vcvtq_f32_s32(a.high)};
}
inline Ints ToNearest(Vec a) {
  return {vcvtnq_s32_f32(a.low), vcvtnq_s32_f32(a.high)};
}
inline void StoreNumbers(uint8_t* p, Ints a) {
  vst1_u8(p, vqmovun_s16(vqmovn_high_s32(vqmovn_s32(a.low), a.high)));
}
inline void StoreNumbers(int16_t* p, Ints a) {
  vst1q_s16(p, vqmovn_high_s32(vqmovn_s32(a.low), a.high));
}
inline int32_t ReduceAdd(Ints a) {
  return vaddvq_s32(vaddq_s32(a.low, a.high));
}

// 32 bytes, to take codes apart.
struct Codes {
  uint8x16_t low, high;
  static Codes Load(const std::byte* p) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(p);
    return {vld1q_u8(bytes), vld1q_u8(bytes + 16)};
  }
  static Codes Broadcast(uint8_t x) { return {vdupq_n_u8(x), vdupq_n_u8(x)}; }
  static Codes BroadcastTable(const uint8_t* table) { return {vld1q_u8(table), vld1q_u8(table)}; }  // [16]
};
inline void Store(uint8_t* p, Codes a) {
  vst1q_u8(p, a.low);
  vst1q_u8(p + 16, a.high);
}
// ((byte >> kRight) << kLeft) & mask, of which one shift is 0. (No instruction shifts right by 0.)
template <int kRight, int kLeft>
inline uint8x16_t Shift(uint8x16_t a) {
  if constexpr (kRight > 0) {
    return vshrq_n_u8(a, kRight);
  } else {
    return vshlq_n_u8(a, kLeft);
  }
}
template <int kRight, int kLeft>
inline Codes ShiftAnd(Codes a, uint8_t mask) {
  const uint8x16_t of_mask = vdupq_n_u8(mask);
  return {vandq_u8(Shift<kRight, kLeft>(a.low), of_mask), vandq_u8(Shift<kRight, kLeft>(a.high), of_mask)};
}
inline Codes Or(Codes a, Codes b) {
  return {vorrq_u8(a.low, b.low), vorrq_u8(a.high, b.high)};
}
inline Codes Add(Codes a, Codes b) {
  return {vaddq_u8(a.low, b.low), vaddq_u8(a.high, b.high)};
}
inline Codes LookUp(Codes table, Codes index) {
  return {vqtbl1q_u8(table.low, index.low), vqtbl1q_u8(table.high, index.high)};
}
