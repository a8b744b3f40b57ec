// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
//
// Vectors of AVX-512 for attend_tile-inl.h, with VNNI's dot products where KVIST_KERNELS_VNNI is defined. To be
// included as that is: inside an anonymous namespace, after the target pragma, without includes of its own.

constexpr int kRowsAtOnce = 6;

#include "kernels/codes_avx2-inl.h"

struct Vec {
  static constexpr int kLanes = 16;
  __m512 r;
  static Vec Zero() { return {_mm512_setzero_ps()}; }
  static Vec Broadcast(float x) { return {_mm512_set1_ps(x)}; }
  static Vec Load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static Vec LoadF16(const uint16_t* p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
  }
  static Vec LoadBf16(const uint16_t* p) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
  }
  static Vec LoadInt8(const int8_t* p) {
    return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
  }
};
inline void Store(float* p, Vec a) {
  _mm512_storeu_ps(p, a.r);
}
inline void StoreF16(uint16_t* p, Vec a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(a.r, _MM_FROUND_TO_NEAREST_INT));
}
inline Vec Fma(Vec a, Vec b, Vec c) {
  return {_mm512_fmadd_ps(a.r, b.r, c.r)};
}
inline Vec Mul(Vec a, Vec b) {
  return {_mm512_mul_ps(a.r, b.r)};
}
inline Vec Add(Vec a, Vec b) {
  return {_mm512_add_ps(a.r, b.r)};
}
inline Vec Sub(Vec a, Vec b) {
  return {_mm512_sub_ps(a.r, b.r)};
}
inline Vec Max(Vec a, Vec b) {
  return {_mm512_max_ps(a.r, b.r)};
}
inline Vec Round(Vec a) {
  return {_mm512_roundscale_ps(a.r, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline Vec PowerOfTwo(Vec n) {
  const __m512i exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n.r), _mm512_set1_epi32(127));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23))};
}
// Not-less-than keeps NaN: a damaged number must show in the result.
inline Vec ZeroWhereBelow(Vec x, float limit, Vec a) {
  return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x.r, _mm512_set1_ps(limit), _CMP_NLT_UQ), a.r)};
}
inline bool AnyAbove(Vec a, float limit) {
  return _mm512_cmp_ps_mask(a.r, _mm512_set1_ps(limit), _CMP_GT_OQ) != 0;
}
inline float ReduceMax(Vec a) {
  return _mm512_reduce_max_ps(a.r);
}
inline float ReduceAdd(Vec a) {
  return _mm512_reduce_add_ps(a.r);
}

// As many int32 as Vec has floats, each the sum of products of 4 bytes or 2 words beside one another.
struct Ints {
  __m512i r;
  static Ints Zero() { return {_mm512_setzero_si512()}; }
  static Ints Broadcast(int32_t x) { return {_mm512_set1_epi32(x)}; }
};
struct Bytes {
  __m512i r;
  static Bytes Load(const void* p) { return {_mm512_loadu_si512(p)}; }
  static Bytes Broadcast4(const void* p) { return {_mm512_set1_epi32(LoadInt32(p))}; }
};
struct Words {
  __m512i r;
  static Words LoadBytes(const void* p) {
    return {_mm512_cvtepu8_epi16(_mm256_loadu_si256(static_cast<const __m256i*>(p)))};
  }
  static Words Broadcast2(const void* p) { return {_mm512_set1_epi32(LoadInt32(p))}; }
};
#ifdef KVIST_KERNELS_VNNI
inline Ints Dot(Ints sum, Bytes of_unsigned, Bytes of_signed) {
  return {_mm512_dpbusd_epi32(sum.r, of_unsigned.r, of_signed.r)};
}
inline Ints Dot(Ints sum, Words a, Words b) {
  return {_mm512_dpwssd_epi32(sum.r, a.r, b.r)};
}
#else
// Two products of an unsigned byte up to 127 or a signed one up to 63 fit into 16 bits.
inline Ints Dot(Ints sum, Bytes of_unsigned, Bytes of_signed) {
  const __m512i pairs = _mm512_maddubs_epi16(of_unsigned.r, of_signed.r);
  return {_mm512_add_epi32(sum.r, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))};
}
inline Ints Dot(Ints sum, Words a, Words b) {
  return {_mm512_add_epi32(sum.r, _mm512_madd_epi16(a.r, b.r))};
}
#endif
inline Ints Add(Ints a, Ints b) {
  return {_mm512_add_epi32(a.r, b.r)};
}
inline Vec ToFloat(Ints a) {
  return {_mm512_cvtepi32_ps(a.r)};
}
inline Ints ToNearest(Vec a) {
  return {_mm512_cvtps_epi32(a.r)};
}
inline void StoreNumbers(uint8_t* p, Ints a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a.r));
}
inline void StoreNumbers(int16_t* p, Ints a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(a.r));
}
inline int32_t ReduceAdd(Ints a) {
  return _mm512_reduce_add_epi32(a.r);
}
