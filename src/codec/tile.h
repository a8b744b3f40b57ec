// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstddef>

#include "kvist/geometry.h"

// Tiles of floating-point codecs: the K or V part of one block for one lane.
//   K tile: channel-major [key_dim][block_tokens], so that a vector of scores for many tokens accumulates channel by
//           channel without horizontal sums.
//   V tile: token-major [block_tokens][value_dim], so that a vector of output channels accumulates token by token.
// Codecs: f32 exact; f16 IEEE binary16, relative error 2^-11 in [6.1e-5, 65504]; bf16, relative error 2^-8 over f32's
// range. All round to nearest even. No scales, no header: a tile is its numbers.
namespace kvist {

// Of these codecs only (quantised ones: codec/quantised_tile.h).
size_t CodecBytes(Codec codec, size_t num_values);

// Bytes of a tile of any codec: a multiple of 16.
size_t KTileBytes(Codec codec, int key_dim, int block_tokens);
size_t VTileBytes(Codec codec, int value_dim, int block_tokens);

// Converts n floats to the codec and back. `Encode` rounds; `Decode` is exact.
void Encode(Codec codec, const float* values, size_t n, std::byte* out);
void Decode(Codec codec, const std::byte* stored, size_t n, float* out);

// Places an encoded row of dim numbers as the slot's column of a K tile, and takes one out.
void ScatterKeyRow(Codec codec, const std::byte* row, int dim, int block_tokens, int slot, std::byte* tile);
void GatherKeyRow(Codec codec, const std::byte* tile, int dim, int block_tokens, int slot, std::byte* row);

}  // namespace kvist
