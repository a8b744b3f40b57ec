// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#if defined(__x86_64__)
#include <immintrin.h>

#include "base/half.h"
#include "codec/tile.h"
#include "kernels/kernels.h"

// gcc 12's own AVX-512 header trips this warning.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

// After every include: the pragma must not reach inline functions that other files share.
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")

namespace kvist::avx512 {
namespace {

constexpr int kRowsAtOnce = 6;

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
inline float ReduceMax(Vec a) {
  return _mm512_reduce_max_ps(a.r);
}
inline float ReduceAdd(Vec a) {
  return _mm512_reduce_add_ps(a.r);
}

#include "kernels/attend_tile-inl.h"

}  // namespace

extern const Kernels kKernels;
const Kernels kKernels{"avx512", AttendTile, EncodeVectors, DecodeVectors};

}  // namespace kvist::avx512

#pragma GCC pop_options
#endif
