// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kvist/geometry.h"

namespace kvist {

// A tile of a quantised codec of b bits: the K or V part of a sealed block for one lane. T tokens, D channels.
//   numbers:  the row of token t is rotated (codec/rotation.h) and stored as  scale[t] * level[code[t][c]].
//             Of K, the mean of each channel over the block is taken away before, rounded to  mean_scale * mean[c].
//   levels:   whole numbers. q8, q6, q5: evenly spaced, 2 * code - (2^b - 1). q4, q3, q2: the Lloyd-Max levels of a
//             normal distribution (Max 1960), largest 63: rotated channels are close to normal.
//   codes:    K in groups of 4 channels (q8: 2) [D/4][T][4], V in groups of 4 tokens (q8: 2) [T/4][D][4]: the order of
//             an integer dot product. Cut into bit planes: q8 bytes; q6 a plane of the low 4 bits and one of 2; q5 of 4
//             and 1; q4 of 4; q3 of 2 and 1; q2 of 2. In a plane of w bits, byte i of a chunk of 32 bytes holds codes
//             i, i + 32, i + 64, ... of the chunk's 256 / w, the first in the lowest bits. Codes end in zeros up to a
//             whole chunk of every plane.
//   layout:   scales bf16 [T]; of K: mean int8 [D], mean_scale binary32; then the planes, low bits first; zeros up to a
//             multiple of 16 bytes. Little-endian.
//   bits:     V: b + 16 / D a number; K: that and 8 / T + 32 / (T D); and what rounding up to 16 bytes costs.
//   error:    of a row in the Euclidean norm, as a share of the (mean-free) row's: for normal numbers, 64 channels,
//             0.6 % (q8), 2.4 % (q6), 4.7 % (q5), 8.5 % (q4), 17 % (q3), 34 % of keys and 35 % of values (q2). q8:
//             every rotated number is within one scale. No row, however odd, is off by more than sqrt(2) of its norm
//             (values 1.51).
//   range:    scales have the exponents of binary32. A tile with a NaN or infinity in it is NaN throughout.
struct QuantisedTile {
  Codec codec = Codec::kQ8;
  bool is_key = false;
  int dim = 0;
  int block_tokens = 0;
  size_t scales_offset = 0, mean_offset = 0, mean_scale_offset = 0, codes_offset = 0;
  size_t high_codes_offset = 0;  // of the second plane, where there are two
  size_t num_bytes = 0;
  // q6 and below as bytes: level + bias. Keys are the unsigned side of a byte dot product, values the signed one.
  uint8_t bias = 0;              // K: kKeyBias; V: 0
  uint8_t level_bytes[16] = {};  // of q4, q3, q2, by code
  static constexpr uint8_t kKeyBias = 64;

  static QuantisedTile OfKeys(Codec codec, int key_dim, int block_tokens);
  static QuantisedTile OfValues(Codec codec, int value_dim, int block_tokens);
  size_t num_codes() const { return size_t(dim) * size_t(block_tokens); }
  int group() const { return codec == Codec::kQ8 ? 2 : 4; }  // channels (K) or tokens (V) side by side
  // Where the code of a token's channel stands in the order above.
  size_t CodeIndex(int token, int channel) const {
    const auto of_group = size_t(group());
    return is_key ? (size_t(channel) / of_group * size_t(block_tokens) + size_t(token)) * of_group +
                        size_t(channel) % of_group
                  : (size_t(token) / of_group * size_t(dim) + size_t(channel)) * of_group + size_t(token) % of_group;
  }
};

// How many bits the codes of a quantised codec have, and their levels, ascending.
int CodeBits(Codec codec);
std::span<const int16_t> Levels(Codec codec);

// One bit plane of a codec: `bits` bits of each code, from bit `shift` on. Codes are padded to whole chunks.
struct BitPlane {
  int bits = 0;
  int shift = 0;
};
std::span<const BitPlane> BitPlanes(Codec codec);
size_t PaddedCodes(Codec codec, size_t num_codes);
size_t PlaneBytes(Codec codec, BitPlane plane, size_t num_codes);

// Encodes the rows [token][dim] of tokens [first_slot, end_slot); the other slots get scale 0. `rows` is used up as
// working space. Portable: every machine stores the same bytes.
void EncodeTile(const QuantisedTile& tile, float* rows, int first_slot, int end_slot, std::byte* out);
// The stored numbers as rows [token][dim].
void DecodeTile(const QuantisedTile& tile, const std::byte* stored, float* rows);

}  // namespace kvist
