// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#if defined(__aarch64__)
#include <arm_neon.h>

#include <cstring>

#include "base/half.h"
#include "codec/tile.h"
#include "kernels/kernels.h"

// After every include: the pragma must not reach inline functions that other files share.
#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+dotprod")

namespace kvist::neon_dotprod {
namespace {

// In this order.
// clang-format off
#define KVIST_KERNELS_DOTPROD
#include "kernels/vectors_neon-inl.h"
#include "kernels/attend_tile-inl.h"
// clang-format on

}  // namespace

extern const Kernels kKernels;
const Kernels kKernels{"neon-dotprod", AttendTile, EncodeVectors, DecodeVectors, Probabilities, ScoreBf16};

}  // namespace kvist::neon_dotprod

#pragma GCC pop_options
#endif
