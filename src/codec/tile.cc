// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "codec/tile.h"

#include <cstdint>
#include <cstring>

#include "base/half.h"
#include "base/round_up.h"
#include "codec/quantised_tile.h"
#include "kvist/error.h"

namespace kvist {
namespace {

template <class Number, class Convert>
void EncodeWith(Convert convert, const float* values, size_t n, std::byte* out) {
  auto* numbers = reinterpret_cast<Number*>(out);
  for (size_t i = 0; i < n; ++i) numbers[i] = convert(values[i]);
}

template <class Number, class Convert>
void DecodeWith(Convert convert, const std::byte* stored, size_t n, float* out) {
  auto* numbers = reinterpret_cast<const Number*>(stored);
  for (size_t i = 0; i < n; ++i) out[i] = convert(numbers[i]);
}

template <class Number>
void CopyStrided(const std::byte* from, size_t from_stride, std::byte* to, size_t to_stride, int n) {
  auto* source = reinterpret_cast<const Number*>(from);
  auto* target = reinterpret_cast<Number*>(to);
  for (int i = 0; i < n; ++i) target[size_t(i) * to_stride] = source[size_t(i) * from_stride];
}

void CopyStrided(Codec codec, const std::byte* from, size_t from_stride, std::byte* to, size_t to_stride, int n) {
  if (codec == Codec::kF32) {
    CopyStrided<uint32_t>(from, from_stride, to, to_stride, n);
  } else {
    CopyStrided<uint16_t>(from, from_stride, to, to_stride, n);
  }
}

}  // namespace

size_t CodecBytes(Codec codec, size_t num_values) {
  KVIST_CHECK(!IsQuantised(codec));
  return num_values * (codec == Codec::kF32 ? 4 : 2);
}

size_t KTileBytes(Codec codec, int key_dim, int block_tokens) {
  if (IsQuantised(codec)) return QuantisedTile::OfKeys(codec, key_dim, block_tokens).num_bytes;
  return RoundUp(CodecBytes(codec, size_t(key_dim) * size_t(block_tokens)), 16);
}

size_t VTileBytes(Codec codec, int value_dim, int block_tokens) {
  if (IsQuantised(codec)) return QuantisedTile::OfValues(codec, value_dim, block_tokens).num_bytes;
  return RoundUp(CodecBytes(codec, size_t(value_dim) * size_t(block_tokens)), 16);
}

void Encode(Codec codec, const float* values, size_t n, std::byte* out) {
  switch (codec) {
    case Codec::kF32:
      std::memcpy(out, values, n * sizeof(float));
      break;
    case Codec::kF16:
      EncodeWith<uint16_t>(F32ToF16, values, n, out);
      break;
    case Codec::kBf16:
      EncodeWith<uint16_t>(F32ToBf16, values, n, out);
      break;
    default:
      KVIST_CHECK(!IsQuantised(codec));
  }
}

void Decode(Codec codec, const std::byte* stored, size_t n, float* out) {
  switch (codec) {
    case Codec::kF32:
      std::memcpy(out, stored, n * sizeof(float));
      break;
    case Codec::kF16:
      DecodeWith<uint16_t>(F16ToF32, stored, n, out);
      break;
    case Codec::kBf16:
      DecodeWith<uint16_t>(Bf16ToF32, stored, n, out);
      break;
    default:
      KVIST_CHECK(!IsQuantised(codec));
  }
}

void ScatterKeyRow(Codec codec, const std::byte* row, int dim, int block_tokens, int slot, std::byte* tile) {
  CopyStrided(codec, row, 1, tile + CodecBytes(codec, size_t(slot)), size_t(block_tokens), dim);
}

void GatherKeyRow(Codec codec, const std::byte* tile, int dim, int block_tokens, int slot, std::byte* row) {
  CopyStrided(codec, tile + CodecBytes(codec, size_t(slot)), size_t(block_tokens), row, 1, dim);
}

}  // namespace kvist
