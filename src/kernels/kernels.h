// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "codec/quantised_tile.h"
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

// Query rows as whole numbers, to meet quantised keys: row = numbers * scale.
struct RoundedQueries {
  const int8_t* bytes = nullptr;   // [row][key_dim], for q6 and below
  const int16_t* words = nullptr;  // [row][key_dim], for q8
  const float* scales = nullptr;   // [row]
  const int32_t* sums = nullptr;   // [row] of the numbers
};

// Rounds rotated rows to the numbers that keys of this codec are met with: bytes up to 127, or words up to 8191.
void RoundQueries(const float* rows, int num_rows, int key_dim, int8_t* bytes, float* scales, int32_t* sums);
void RoundQueries(const float* rows, int num_rows, int key_dim, int16_t* words, float* scales, int32_t* sums);

// One KV tile met by query rows. K and V may each be of any codec.
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
  const QuantisedTile* k_layout;  // when K is quantised
  const QuantisedTile* v_layout;  // when V is; rows.output is in rotated channels then

  int num_rows;
  const float* queries;       // [row][key_dim], already scaled
  RoundedQueries rounded;     // the same, rotated, when K is quantised
  const int32_t* first_slot;  // [row] a row sees slots [first_slot, end_slot) of the tile; an empty range is fine
  const int32_t* end_slot;    // [row]
  SoftmaxRows rows;
};

// Softmax probabilities of query rows over the tokens of f32 K tiles.
struct ProbabilityStep {
  const float* keys;  // [tile][key_dim][block_tokens]
  int num_tiles;      // 1 or more
  int block_tokens;
  int key_dim;
  int num_rows;
  const float* queries;     // [row][key_dim], already scaled
  const int32_t* num_seen;  // [row] sees so many tokens, the first ones
  float* out;               // [row][tile][block_tokens]; 0 for tokens that a row does not see

  size_t row_stride() const { return size_t(num_tiles) * size_t(block_tokens); }
};

// The arithmetic of one instruction set. All sets compute the same thing up to rounding; within one set a row's result
// depends only on the row and the order of its tiles, never on which rows are computed beside it or whether a tile was
// decoded to f32 first. Kernels are pure functions, safe from any thread.
struct Kernels {
  const char* name;
  void (*attend_tile)(const TileStep& step);
  // Codecs that are not quantised. Bit for bit codec/tile.h's Encode.
  void (*encode)(Codec codec, const float* values, size_t n, std::byte* out);
  void (*decode)(Codec codec, const std::byte* stored, size_t n, float* out);
  void (*probabilities)(const ProbabilityStep& step);
  // Of a step's k, queries and shapes alone: their dot products with every slot, [row][block_tokens].
  // REQUIRES: k is bf16, block_tokens a multiple of 32.
  void (*score_bf16)(const TileStep& step, float* scores);
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
