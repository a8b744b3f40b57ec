// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "codec/quantised_tile.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "base/half.h"
#include "base/round_up.h"
#include "codec/rotation.h"
#include "kvist/error.h"

namespace kvist {
namespace {

// Codes of a tile are kept in this order while it is encoded: one byte each, then padding.
using Codes = std::vector<uint8_t>;

template <int kBits>
struct EvenLevels {
  int16_t levels[1 << kBits];
  constexpr EvenLevels() : levels() {
    for (int code = 0; code < 1 << kBits; ++code) levels[code] = int16_t(2 * code - (1 << kBits) + 1);
  }
};
constexpr EvenLevels<8> kEven8;
constexpr EvenLevels<6> kEven6;
constexpr EvenLevels<5> kEven5;
constexpr int16_t kNormal4[] = {-63, -48, -37, -29, -22, -15, -9, -3, 3, 9, 15, 22, 29, 37, 48, 63};
constexpr int16_t kNormal3[] = {-63, -39, -22, -7, 7, 22, 39, 63};
constexpr int16_t kNormal2[] = {-63, -19, 19, 63};
// The largest Lloyd-Max level of 2, 3 and 4 bits in standard deviations.
constexpr float kLargestNormal[] = {0, 0, 1.510f, 2.152f, 2.733f};

constexpr BitPlane kPlanes8[] = {{8, 0}};
constexpr BitPlane kPlanes6[] = {{4, 0}, {2, 4}};
constexpr BitPlane kPlanes5[] = {{4, 0}, {1, 4}};
constexpr BitPlane kPlanes4[] = {{4, 0}};
constexpr BitPlane kPlanes3[] = {{2, 0}, {1, 2}};
constexpr BitPlane kPlanes2[] = {{2, 0}};

bool AllFinite(const float* numbers, size_t n) {
  float sum = 0;  // of n zeros, or NaN
  for (size_t i = 0; i < n; ++i) sum += numbers[i] * 0.0f;
  return sum == 0.0f;
}

double SquareSum(const float* row, int dim) {
  double sum = 0;  // in double a square of any float is neither too large nor too small
  for (int c = 0; c < dim; ++c) sum += double(row[c]) * double(row[c]);
  return sum;
}

// Codes of the nearest levels of numbers in units of a level's step.
void NearestEven(const float* numbers, int dim, float factor, int num_levels, uint8_t* codes) {
  const float middle = 0.5f * float(num_levels);
  for (int c = 0; c < dim; ++c)
    codes[c] = uint8_t(std::clamp(numbers[c] * (0.5f * factor) + middle, 0.0f, float(num_levels) - 0.5f));
}

// The nearest of uneven levels by table: borders between them are whole numbers when all is doubled.
struct NearestTable {
  uint8_t code_of_half[256] = {};  // [128 + floor(2 * number)]
  template <size_t kLevels>
  constexpr explicit NearestTable(const int16_t (&levels)[kLevels]) {
    for (int half = 0; half < 256; ++half)
      for (size_t i = 0; i + 1 < kLevels; ++i)
        if (half - 128 >= levels[i] + levels[i + 1]) ++code_of_half[half];
  }
};
constexpr NearestTable kNearest4(kNormal4), kNearest3(kNormal3), kNearest2(kNormal2);

void NearestNormal(const float* numbers, int dim, float factor, const NearestTable& table, uint8_t* codes) {
  for (int c = 0; c < dim; ++c)
    codes[c] = table.code_of_half[int(std::clamp(numbers[c] * (2.0f * factor) + 128.0f, 0.0f, 255.0f))];
}

void Nearest(Codec codec, const float* numbers, int dim, float factor, uint8_t* codes) {
  switch (codec) {
    case Codec::kQ4:
      return NearestNormal(numbers, dim, factor, kNearest4, codes);
    case Codec::kQ3:
      return NearestNormal(numbers, dim, factor, kNearest3, codes);
    case Codec::kQ2:
      return NearestNormal(numbers, dim, factor, kNearest2, codes);
    default:
      return NearestEven(numbers, dim, factor, int(Levels(codec).size()), codes);
  }
}

// What a row and the levels of its codes have in common.
struct Fit {
  float dot = 0;           // of both
  float level_square = 0;  // of the levels with themselves
  float quality() const { return dot * dot / level_square; }
};

Fit MeasureFit(std::span<const int16_t> levels, const float* numbers, int dim, const uint8_t* codes) {
  float dots[8] = {}, squares[8] = {};  // dim is a multiple of 8
  for (int c = 0; c < dim; c += 8) {
    for (int i = 0; i < 8; ++i) {
      const float level = levels[codes[c + i]];
      dots[i] += numbers[c + i] * level;
      squares[i] += level * level;
    }
  }
  Fit fit;
  for (int i = 0; i < 8; ++i) fit.dot += dots[i], fit.level_square += squares[i];
  return fit;
}

// A row that no levels fit, such as one spike, would come out far too long if its dot product were kept.
constexpr double kMostLengthening = 1.125;

// Codes one rotated row and returns its scale. Of several scales to round at, that whose levels point most nearly in
// the row's direction is taken. The scale stored is then another: for keys that which keeps the row's norm, for values
// that which keeps the row's dot product with itself. Both lose less than the scale of least squares, which makes rows
// shorter, so that scores and sums come out too small (docs/decisions/004-quantised-forms.md).
uint16_t EncodeRow(const QuantisedTile& tile, const float* row, uint8_t* codes) {
  const Codec codec = tile.codec;
  const std::span<const int16_t> levels = Levels(codec);
  const int dim = tile.dim, bits = CodeBits(codec);
  float largest = 0;
  for (int c = 0; c < dim; ++c) largest = std::max(largest, std::fabs(row[c]));
  const double norm = std::sqrt(SquareSum(row, dim));
  // In these units a row's numbers are as large as the levels.
  float unit = largest / float(levels.back());
  if (bits == 8) unit = Bf16ToF32(RoundUpToBf16(unit));
  if (bits <= 4) unit = float(norm / std::sqrt(double(dim)) * kLargestNormal[bits] / levels.back());
  std::memset(codes, 0, size_t(dim));
  if (unit < 0x1p-120f) return 0;
  float numbers[kMaxHeadDim];
  for (int c = 0; c < dim; ++c) numbers[c] = row[c] / unit;
  if (bits == 8) {
    Nearest(codec, numbers, dim, 1.0f, codes);
    return F32ToBf16(unit);
  }
  constexpr float kEvenFactors[] = {1.0f, 1.04f, 1.08f, 1.12f, 1.17f, 1.22f, 1.28f};
  constexpr float kNormalFactors[] = {0.85f, 0.9f, 0.95f, 1.0f, 1.06f, 1.12f, 1.19f};
  uint8_t candidate[kMaxHeadDim];
  Fit best;
  for (const float factor : bits > 4 ? kEvenFactors : kNormalFactors) {
    Nearest(codec, numbers, dim, factor, candidate);
    const Fit fit = MeasureFit(levels, numbers, dim, candidate);
    if (best.level_square > 0 && fit.quality() <= best.quality()) continue;
    best = fit;
    std::memcpy(codes, candidate, size_t(dim));
  }
  const double norm_kept = norm / std::sqrt(double(best.level_square));
  if (tile.is_key) return F32ToBf16(float(norm_kept));
  const double cosine = double(best.dot) * double(unit) / (norm * std::sqrt(double(best.level_square)));
  return F32ToBf16(float(norm_kept * std::min(1 / cosine, kMostLengthening)));
}

// Takes the means away from the rows and stores them.
void EncodeMeans(const QuantisedTile& tile, float* rows, int first_slot, int end_slot, std::byte* out) {
  std::vector<float> means(size_t(tile.dim), 0.0f);
  for (int slot = first_slot; slot < end_slot; ++slot)
    for (int c = 0; c < tile.dim; ++c) means[size_t(c)] += rows[size_t(slot) * size_t(tile.dim) + size_t(c)];
  float largest = 0;
  for (float& mean : means) {
    mean /= float(end_slot - first_slot);
    largest = std::max(largest, std::fabs(mean));
  }
  const float scale = largest / 127;
  auto* stored = reinterpret_cast<int8_t*>(out + tile.mean_offset);
  for (int c = 0; c < tile.dim; ++c) {
    stored[c] = int8_t(scale > 0 ? std::lround(means[size_t(c)] / scale) : 0);
    const float mean = scale * float(stored[c]);
    for (int slot = first_slot; slot < end_slot; ++slot) rows[size_t(slot) * size_t(tile.dim) + size_t(c)] -= mean;
  }
  std::memcpy(out + tile.mean_scale_offset, &scale, sizeof(scale));
}

void Pack(Codec codec, const Codes& codes, std::byte* out) {
  for (const BitPlane plane : BitPlanes(codec)) {
    const size_t codes_per_byte = 8 / size_t(plane.bits), chunk = 32 * codes_per_byte;
    for (size_t begin = 0; begin < codes.size(); begin += chunk) {
      for (size_t i = 0; i < 32; ++i) {
        unsigned byte = 0;
        for (size_t j = 0; j < codes_per_byte; ++j) {
          const unsigned bits = (unsigned(codes[begin + 32 * j + i]) >> plane.shift) & ((1u << plane.bits) - 1);
          byte |= bits << (j * size_t(plane.bits));
        }
        *out++ = std::byte(byte);
      }
    }
  }
}

Codes Unpack(Codec codec, size_t num_codes, const std::byte* stored) {
  Codes codes(PaddedCodes(codec, num_codes));
  for (const BitPlane plane : BitPlanes(codec)) {
    const size_t codes_per_byte = 8 / size_t(plane.bits), chunk = 32 * codes_per_byte;
    for (size_t begin = 0; begin < codes.size(); begin += chunk) {
      for (size_t i = 0; i < 32; ++i, ++stored) {
        for (size_t j = 0; j < codes_per_byte; ++j) {
          const unsigned bits = (unsigned(*stored) >> (j * size_t(plane.bits))) & ((1u << plane.bits) - 1);
          codes[begin + 32 * j + i] = uint8_t(codes[begin + 32 * j + i] | bits << plane.shift);
        }
      }
    }
  }
  return codes;
}

QuantisedTile LayOut(QuantisedTile tile) {
  size_t offset = size_t(tile.block_tokens) * sizeof(uint16_t);
  if (tile.is_key) {
    tile.mean_offset = offset;
    tile.mean_scale_offset = offset + size_t(tile.dim);
    offset = tile.mean_scale_offset + sizeof(float);
  }
  tile.codes_offset = offset;
  for (const BitPlane plane : BitPlanes(tile.codec)) {
    if (plane.shift > 0) tile.high_codes_offset = offset;
    offset += PlaneBytes(tile.codec, plane, tile.num_codes());
  }
  tile.num_bytes = RoundUp(offset, 16);
  tile.bias = tile.is_key ? QuantisedTile::kKeyBias : 0;
  const std::span<const int16_t> levels = Levels(tile.codec);
  for (size_t code = 0; code < levels.size() && code < 16; ++code)
    tile.level_bytes[code] = uint8_t(levels[code] + tile.bias);
  return tile;
}

}  // namespace

QuantisedTile QuantisedTile::OfKeys(Codec codec, int key_dim, int block_tokens) {
  return LayOut({.codec = codec, .is_key = true, .dim = key_dim, .block_tokens = block_tokens});
}
QuantisedTile QuantisedTile::OfValues(Codec codec, int value_dim, int block_tokens) {
  return LayOut({.codec = codec, .is_key = false, .dim = value_dim, .block_tokens = block_tokens});
}

int CodeBits(Codec codec) {
  KVIST_CHECK(IsQuantised(codec));
  return int(std::bit_width(Levels(codec).size())) - 1;
}

std::span<const int16_t> Levels(Codec codec) {
  switch (codec) {
    case Codec::kQ8:
      return kEven8.levels;
    case Codec::kQ6:
      return kEven6.levels;
    case Codec::kQ5:
      return kEven5.levels;
    case Codec::kQ4:
      return kNormal4;
    case Codec::kQ3:
      return kNormal3;
    case Codec::kQ2:
      return kNormal2;
    default:
      return {};
  }
}

std::span<const BitPlane> BitPlanes(Codec codec) {
  switch (codec) {
    case Codec::kQ8:
      return kPlanes8;
    case Codec::kQ6:
      return kPlanes6;
    case Codec::kQ5:
      return kPlanes5;
    case Codec::kQ4:
      return kPlanes4;
    case Codec::kQ3:
      return kPlanes3;
    case Codec::kQ2:
      return kPlanes2;
    default:
      return {};
  }
}

size_t PaddedCodes(Codec codec, size_t num_codes) {
  size_t chunk = 32;
  for (const BitPlane plane : BitPlanes(codec)) chunk = std::max(chunk, size_t(256 / plane.bits));
  return RoundUp(num_codes, chunk);
}

size_t PlaneBytes(Codec codec, BitPlane plane, size_t num_codes) {
  return PaddedCodes(codec, num_codes) * size_t(plane.bits) / 8;
}

void EncodeTile(const QuantisedTile& tile, float* rows, int first_slot, int end_slot, std::byte* out) {
  std::memset(out, 0, tile.num_bytes);
  auto* scales = reinterpret_cast<uint16_t*>(out + tile.scales_offset);
  const auto dim = size_t(tile.dim);
  if (!AllFinite(rows + size_t(first_slot) * dim, size_t(end_slot - first_slot) * dim)) {
    std::fill_n(scales, tile.block_tokens, F32ToBf16(std::numeric_limits<float>::quiet_NaN()));
    return;
  }
  if (tile.is_key) EncodeMeans(tile, rows, first_slot, end_slot, out);
  RotateRows(rows + size_t(first_slot) * dim, end_slot - first_slot, tile.dim);
  Codes codes(PaddedCodes(tile.codec, tile.num_codes()));
  std::vector<uint8_t> row_codes(dim);
  for (int slot = first_slot; slot < end_slot; ++slot) {
    scales[slot] = EncodeRow(tile, rows + size_t(slot) * dim, row_codes.data());
    for (int c = 0; c < tile.dim; ++c) codes[tile.CodeIndex(slot, c)] = row_codes[size_t(c)];
  }
  Pack(tile.codec, codes, out + tile.codes_offset);
}

void DecodeTile(const QuantisedTile& tile, const std::byte* stored, float* rows) {
  const Codes codes = Unpack(tile.codec, tile.num_codes(), stored + tile.codes_offset);
  const std::span<const int16_t> levels = Levels(tile.codec);
  const auto* scales = reinterpret_cast<const uint16_t*>(stored + tile.scales_offset);
  const auto dim = size_t(tile.dim);
  for (int slot = 0; slot < tile.block_tokens; ++slot) {
    const float scale = Bf16ToF32(scales[slot]);
    for (int c = 0; c < tile.dim; ++c)
      rows[size_t(slot) * dim + size_t(c)] = scale * float(levels[codes[tile.CodeIndex(slot, c)]]);
  }
  RotateRows(rows, tile.block_tokens, tile.dim);
  if (!tile.is_key) return;
  float mean_scale;
  std::memcpy(&mean_scale, stored + tile.mean_scale_offset, sizeof(mean_scale));
  const auto* means = reinterpret_cast<const int8_t*>(stored + tile.mean_offset);
  for (int slot = 0; slot < tile.block_tokens; ++slot)
    for (int c = 0; c < tile.dim; ++c) rows[size_t(slot) * dim + size_t(c)] += mean_scale * float(means[c]);
}

}  // namespace kvist
