// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kvist/error.h"
#include "kvist/geometry.h"

namespace kvist {

// Softmax under way for a set of query rows: per row the largest score so far, the sum of exp(score - largest), and
// the sum of exp(score - largest) * value. Empty: largest = -infinity, sums 0.
struct SoftmaxRows {
  float* largest;  // [row]
  float* sum;      // [row]
  float* output;   // [row][value_dim]
};

// One KV tile met by query rows.
struct TileStep {
  const std::byte* k;
  const std::byte* v;
  Codec k_codec;
  Codec v_codec;
  int block_tokens;
  int key_dim;
  int value_dim;
  const std::byte* prefetch;  // what will be read next, prefetch_bytes of it; may be null
  size_t prefetch_bytes;

  int num_rows;
  const float* queries;       // [row][key_dim], already scaled
  const int32_t* first_slot;  // [row] a row sees slots [first_slot, end_slot) of the tile; an empty range is fine
  const int32_t* end_slot;    // [row]
  SoftmaxRows rows;
};

// The arithmetic of one instruction set. All sets compute the same thing up to rounding; within one set a row's result
// depends only on the row and the order of its tiles, never on which rows are computed beside it or whether a tile was
// decoded to f32 first. Kernels are pure functions, safe from any thread.
struct Kernels {
  const char* name;
  void (*attend_tile)(const TileStep& step);
  void (*encode)(Codec codec, const float* values, size_t n, std::byte* out);  // bit for bit codec/tile.h's Encode
  void (*decode)(Codec codec, const std::byte* stored, size_t n, float* out);
};

// Those this CPU can run, best last. "scalar" is always there.
std::span<const Kernels* const> SupportedKernels();

// The best supported one, or what the environment variable KVIST_ISA names.
// kUnsupported when it names one this CPU lacks or nobody knows; the message lists those that are there.
Result<const Kernels*> ChooseKernels();

// Adds `part` to `total`, both softmaxes over different tokens of the same rows. Parts must come in ascending order of
// position to keep the result the same for every division of the work.
void MergeSoftmax(int num_rows, int value_dim, const SoftmaxRows& part, const SoftmaxRows& total);

}  // namespace kvist
