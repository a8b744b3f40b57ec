// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "bench/micro/roofline_loops.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include <utility>

// gcc 12's own AVX-512 header trips these.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

namespace kvist {

namespace roofline_scalar {
namespace {

// Vectors of 16 bytes, which every 64-bit instruction set has; the compiler knows which instructions.
typedef float Floats __attribute__((vector_size(16), may_alias));
typedef int32_t Ints __attribute__((vector_size(16), may_alias));
typedef int16_t Shorts __attribute__((vector_size(16)));
typedef uint16_t UnsignedShorts __attribute__((vector_size(16)));

Floats MultiplyAdd(Floats a, Floats b, Floats sum) {
  return a * b + sum;
}
// Neighbours are added in 16 bits first, as wider sets do: there is room, since the first factor has seven bits.
Ints DotAdd(Ints first, Ints second, Ints sum) {
  const auto a = reinterpret_cast<UnsignedShorts>(first);
  const auto b = reinterpret_cast<Shorts>(second);
  const Shorts even = reinterpret_cast<Shorts>(a & 0xff) * (reinterpret_cast<Shorts>(b << 8) >> 8);
  const Shorts odd = reinterpret_cast<Shorts>(a >> 8) * (b >> 8);
  const auto pairs = reinterpret_cast<Ints>(even + odd);
  return sum + (reinterpret_cast<Ints>(pairs << 16) >> 16) + (pairs >> 16);
}

#include "bench/micro/roofline_loops-inl.h"

constexpr RooflineLoops kLoops = LoopsOf("scalar");

}  // namespace
}  // namespace roofline_scalar

#if defined(__x86_64__)

#pragma GCC push_options
#pragma GCC target("avx2,fma")
namespace roofline_avx2 {
namespace {

typedef float Floats __attribute__((vector_size(32), may_alias));
typedef int32_t Ints __attribute__((vector_size(32), may_alias));

Floats MultiplyAdd(Floats a, Floats b, Floats sum) {
  return _mm256_fmadd_ps(a, b, sum);
}
Ints DotAdd(Ints a, Ints b, Ints sum) {
  const __m256i pairs = _mm256_maddubs_epi16(__m256i(a), __m256i(b));
  return sum + Ints(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

#include "bench/micro/roofline_loops-inl.h"

constexpr RooflineLoops kLoops = LoopsOf("avx2");

}  // namespace
}  // namespace roofline_avx2
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
namespace roofline_avx512 {
namespace {

typedef float Floats __attribute__((vector_size(64), may_alias));
typedef int32_t Ints __attribute__((vector_size(64), may_alias));

Floats MultiplyAdd(Floats a, Floats b, Floats sum) {
  return _mm512_fmadd_ps(a, b, sum);
}
Ints DotAdd(Ints a, Ints b, Ints sum) {
  const __m512i pairs = _mm512_maddubs_epi16(__m512i(a), __m512i(b));
  return sum + Ints(_mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
}

#include "bench/micro/roofline_loops-inl.h"

constexpr RooflineLoops kLoops = LoopsOf("avx512");

}  // namespace
}  // namespace roofline_avx512
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
namespace roofline_avx512vnni {
namespace {

typedef float Floats __attribute__((vector_size(64), may_alias));
typedef int32_t Ints __attribute__((vector_size(64), may_alias));

Floats MultiplyAdd(Floats a, Floats b, Floats sum) {
  return _mm512_fmadd_ps(a, b, sum);
}
Ints DotAdd(Ints a, Ints b, Ints sum) {
  return Ints(_mm512_dpbusd_epi32(__m512i(sum), __m512i(a), __m512i(b)));
}

#include "bench/micro/roofline_loops-inl.h"

constexpr RooflineLoops kLoops = LoopsOf("avx512vnni");

}  // namespace
}  // namespace roofline_avx512vnni
#pragma GCC pop_options

#elif defined(__aarch64__)

namespace roofline_neon {
namespace {

typedef float Floats __attribute__((vector_size(16), may_alias));
typedef int32_t Ints __attribute__((vector_size(16), may_alias));

Floats MultiplyAdd(Floats a, Floats b, Floats sum) {
  return vfmaq_f32(sum, a, b);
}
Ints DotAdd(Ints a, Ints b, Ints sum) {
  const auto bytes = int8x16_t(a), others = int8x16_t(b);
  const int16x8_t pairs = vmlal_high_s8(vmull_s8(vget_low_s8(bytes), vget_low_s8(others)), bytes, others);
  return vpadalq_s16(sum, pairs);
}

#include "bench/micro/roofline_loops-inl.h"

constexpr RooflineLoops kLoops = LoopsOf("neon");

}  // namespace
}  // namespace roofline_neon

#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+dotprod")
namespace roofline_neon_dotprod {
namespace {

typedef float Floats __attribute__((vector_size(16), may_alias));
typedef int32_t Ints __attribute__((vector_size(16), may_alias));

Floats MultiplyAdd(Floats a, Floats b, Floats sum) {
  return vfmaq_f32(sum, a, b);
}
Ints DotAdd(Ints a, Ints b, Ints sum) {
  return vdotq_s32(sum, int8x16_t(a), int8x16_t(b));
}

#include "bench/micro/roofline_loops-inl.h"

constexpr RooflineLoops kLoops = LoopsOf("neon-dotprod");

}  // namespace
}  // namespace roofline_neon_dotprod
#pragma GCC pop_options

#endif

const RooflineLoops* FindRooflineLoops(std::string_view isa) {
  static constexpr const RooflineLoops* kAll[] = {
    &roofline_scalar::kLoops,
#if defined(__x86_64__)
    &roofline_avx2::kLoops,
    &roofline_avx512::kLoops,
    &roofline_avx512vnni::kLoops,
#elif defined(__aarch64__)
    &roofline_neon::kLoops,
    &roofline_neon_dotprod::kLoops,
#endif
  };
  for (const RooflineLoops* loops : kAll) {
    if (isa == loops->isa) return loops;
  }
  return nullptr;
}

}  // namespace kvist
