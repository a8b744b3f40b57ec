// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#if defined(__aarch64__)
#include <arm_neon.h>

#include <cstring>

#include "base/half.h"
#include "codec/tile.h"
#include "kernels/kernels.h"

// Without a target pragma: every AArch64 has these vectors.
namespace kvist::neon {
namespace {

// In this order.
// clang-format off
#include "kernels/vectors_neon-inl.h"
#include "kernels/attend_tile-inl.h"
// clang-format on

}  // namespace

extern const Kernels kKernels;
const Kernels kKernels{"neon", AttendTile, EncodeVectors, DecodeVectors, Probabilities, ScoreBf16};

}  // namespace kvist::neon
#endif
