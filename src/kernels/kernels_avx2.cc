// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstring>

#include "base/half.h"
#include "codec/tile.h"
#include "kernels/kernels.h"

// After every include: the pragma must not reach inline functions that other files share.
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")

namespace kvist::avx2 {
namespace {

constexpr int kRowsAtOnce = 4;

#include "kernels/codes_avx2-inl.h"

struct Vec {
  static constexpr int kLanes = 8;
  __m256 r;
  static Vec Zero() { return {_mm256_setzero_ps()}; }
  static Vec Broadcast(float x) { return {_mm256_set1_ps(x)}; }
  static Vec Load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static Vec LoadF16(const uint16_t* p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
  }
  static Vec LoadBf16(const uint16_t* p) {
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(wide, 16))};
  }
  static Vec LoadInt8(const int8_t* p) {
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))))};
  }
};
inline void Store(float* p, Vec a) {
  _mm256_storeu_ps(p, a.r);
}
inline void StoreF16(uint16_t* p, Vec a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(a.r, _MM_FROUND_TO_NEAREST_INT));
}
inline Vec Fma(Vec a, Vec b, Vec c) {
  return {_mm256_fmadd_ps(a.r, b.r, c.r)};
}
inline Vec Mul(Vec a, Vec b) {
  return {_mm256_mul_ps(a.r, b.r)};
}
inline Vec Add(Vec a, Vec b) {
  return {_mm256_add_ps(a.r, b.r)};
}
inline Vec Sub(Vec a, Vec b) {
  return {_mm256_sub_ps(a.r, b.r)};
}
inline Vec Max(Vec a, Vec b) {
  return {_mm256_max_ps(a.r, b.r)};
}
inline Vec Round(Vec a) {
  return {_mm256_round_ps(a.r, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline Vec PowerOfTwo(Vec n) {
  const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n.r), _mm256_set1_epi32(127));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23))};
}
// Not-less-than keeps NaN: a damaged number must show in the result.
inline Vec ZeroWhereBelow(Vec x, float limit, Vec a) {
  return {_mm256_and_ps(_mm256_cmp_ps(x.r, _mm256_set1_ps(limit), _CMP_NLT_UQ), a.r)};
}
inline bool AnyAbove(Vec a, float limit) {
  return _mm256_movemask_ps(_mm256_cmp_ps(a.r, _mm256_set1_ps(limit), _CMP_GT_OQ)) != 0;
}
inline float ReduceMax(Vec a) {
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(a.r), _mm256_extractf128_ps(a.r, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}
inline float ReduceAdd(Vec a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a.r), _mm256_extractf128_ps(a.r, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

// As many int32 as Vec has floats, each the sum of products of 4 bytes or 2 words beside one another.
struct Ints {
  __m256i r;
  static Ints Zero() { return {_mm256_setzero_si256()}; }
  static Ints Broadcast(int32_t x) { return {_mm256_set1_epi32(x)}; }
};
struct Bytes {
  __m256i r;
  static Bytes Load(const void* p) { return {_mm256_loadu_si256(static_cast<const __m256i*>(p))}; }
  static Bytes Broadcast4(const void* p) { return {_mm256_set1_epi32(LoadInt32(p))}; }
};
struct Words {
  __m256i r;
  static Words LoadBytes(const void* p) {
    return {_mm256_cvtepu8_epi16(_mm_loadu_si128(static_cast<const __m128i*>(p)))};
  }
  static Words Broadcast2(const void* p) { return {_mm256_set1_epi32(LoadInt32(p))}; }
};
// Two products of an unsigned byte up to 127 or a signed one up to 63 fit into 16 bits.
inline Ints Dot(Ints sum, Bytes of_unsigned, Bytes of_signed) {
  const __m256i pairs = _mm256_maddubs_epi16(of_unsigned.r, of_signed.r);
  return {_mm256_add_epi32(sum.r, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))};
}
inline Ints Dot(Ints sum, Words a, Words b) {
  return {_mm256_add_epi32(sum.r, _mm256_madd_epi16(a.r, b.r))};
}
inline Ints Add(Ints a, Ints b) {
  return {_mm256_add_epi32(a.r, b.r)};
}
inline Vec ToFloat(Ints a) {
  return {_mm256_cvtepi32_ps(a.r)};
}
inline Ints ToNearest(Vec a) {
  return {_mm256_cvtps_epi32(a.r)};
}
inline void StoreNumbers(uint8_t* p, Ints a) {
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(a.r), _mm256_extracti128_si256(a.r, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(words, words));
}
inline void StoreNumbers(int16_t* p, Ints a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm_packs_epi32(_mm256_castsi256_si128(a.r), _mm256_extracti128_si256(a.r, 1)));
}
inline int32_t ReduceAdd(Ints a) {
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(a.r), _mm256_extracti128_si256(a.r, 1));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

#include "kernels/attend_tile-inl.h"

}  // namespace

extern const Kernels kKernels;
const Kernels kKernels{"avx2", AttendTile, EncodeVectors, DecodeVectors, Probabilities, ScoreBf16};

}  // namespace kvist::avx2

#pragma GCC pop_options
#endif
