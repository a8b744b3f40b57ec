// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstring>

#include "base/half.h"
#include "codec/tile.h"
#include "kernels/kernels.h"

// gcc 12's own AVX-512 header trips this warning.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

// After every include: the pragma must not reach inline functions that other files share.
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")

namespace kvist::avx512vnni {
namespace {

// In this order.
// clang-format off
#define KVIST_KERNELS_VNNI
#include "kernels/vectors_avx512-inl.h"
#include "kernels/attend_tile-inl.h"
// clang-format on

}  // namespace

extern const Kernels kKernels;
const Kernels kKernels{"avx512vnni", AttendTile, EncodeVectors, DecodeVectors, Probabilities, ScoreBf16};

}  // namespace kvist::avx512vnni

#pragma GCC pop_options
#endif
