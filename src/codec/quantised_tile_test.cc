// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "codec/quantised_tile.h"

#include <doctest/doctest.h>
#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "base/half.h"

namespace kvist::quantised_tile_test {
namespace {

constexpr Codec kQuantised[] = {Codec::kQ8, Codec::kQ6, Codec::kQ5, Codec::kQ4, Codec::kQ3, Codec::kQ2};
constexpr Codec kFitted[] = {Codec::kQ6, Codec::kQ5, Codec::kQ4, Codec::kQ3, Codec::kQ2};  // codes by direction
constexpr int kDims[] = {8, 24, 64, 72, 80, 96, 256, 512}, kBlockTokens[] = {16, 32, 64, 128};
constexpr float kInfinity = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();

struct Range {
  int first_slot, end_slot;
};

std::string NameOf(const QuantisedTile& tile) {
  return std::string(tile.is_key ? "K " : "V ") + CodecName(tile.codec) + " of " + std::to_string(tile.block_tokens) +
         " tokens, " + std::to_string(tile.dim) + " channels";
}

QuantisedTile TileOf(bool is_key, Codec codec, int dim, int block_tokens) {
  return is_key ? QuantisedTile::OfKeys(codec, dim, block_tokens) : QuantisedTile::OfValues(codec, dim, block_tokens);
}

template <class Visit>
void ForEachTile(Visit visit) {
  for (const Codec codec : kQuantised)
    for (const bool is_key : {true, false})
      for (const int dim : kDims)
        for (const int block_tokens : kBlockTokens) visit(TileOf(is_key, codec, dim, block_tokens));
}

// The same of few channels, for what needs no width.
template <class Visit>
void ForEachSmallTile(Visit visit) {
  for (const Codec codec : kQuantised)
    for (const bool is_key : {true, false}) visit(TileOf(is_key, codec, 24, 16));
}

std::vector<float> RandomRows(std::mt19937& random, const QuantisedTile& tile, float magnitude = 1.0f) {
  std::normal_distribution<float> normal(0, magnitude);
  std::vector<float> rows(tile.num_codes());
  for (float& x : rows) x = normal(random);
  return rows;
}

std::vector<std::byte> Encoded(const QuantisedTile& tile, std::vector<float> rows, Range range) {
  std::vector<std::byte> stored(tile.num_bytes + 16, std::byte{0x5a});
  EncodeTile(tile, rows.data(), range.first_slot, range.end_slot, stored.data());
  CHECK(std::all_of(stored.end() - 16, stored.end(), [](std::byte x) { return x == std::byte{0x5a}; }));
  stored.resize(tile.num_bytes);
  return stored;
}
std::vector<std::byte> Encoded(const QuantisedTile& tile, std::vector<float> rows) {
  return Encoded(tile, std::move(rows), {0, tile.block_tokens});
}

std::vector<float> Decoded(const QuantisedTile& tile, const std::vector<std::byte>& stored) {
  std::vector<float> rows(tile.num_codes() + 1, -7.0f);
  DecodeTile(tile, stored.data(), rows.data());
  CHECK(rows.back() == -7.0f);
  rows.pop_back();
  return rows;
}

bool SameBits(const float* a, const float* b, size_t n) {
  return std::memcmp(a, b, n * sizeof(float)) == 0;
}
// Whether a slot's row has the same bits in both.
bool SameRow(const QuantisedTile& tile, int slot, const std::vector<float>& a, const std::vector<float>& b) {
  const auto dim = size_t(tile.dim), at = size_t(slot) * dim;
  return SameBits(a.data() + at, b.data() + at, dim);
}

// --- a decoder written from the header alone, in double ---

template <class Number>
Number ReadAt(const std::vector<std::byte>& stored, size_t offset) {
  Number number;
  std::memcpy(&number, &stored.at(offset), sizeof(number));
  return number;
}

std::vector<int> PlaneBits(Codec codec) {
  switch (codec) {
    case Codec::kQ8:
      return {8};
    case Codec::kQ6:
      return {4, 2};
    case Codec::kQ5:
      return {4, 1};
    case Codec::kQ4:
      return {4};
    case Codec::kQ3:
      return {2, 1};
    default:
      return {2};
  }
}

// Lloyd's iteration for a normal distribution: borders halfway between levels, levels at the mean between borders.
std::vector<double> LloydMax(int num_levels) {
  std::vector<double> levels(size_t(num_levels), 0.0);
  for (int i = 0; i < num_levels; ++i) levels[size_t(i)] = -2.0 + 4.0 * i / (num_levels - 1);
  auto density = [](double x) { return std::exp(-x * x / 2) / std::sqrt(2 * std::acos(-1.0)); };
  auto below = [](double x) { return std::erfc(-x / std::sqrt(2.0)) / 2; };
  for (int turn = 0; turn < 3000; ++turn) {
    double from = -100;
    for (size_t i = 0; i < levels.size(); ++i) {
      const double to = i + 1 < levels.size() ? (levels[i] + levels[i + 1]) / 2 : 100;
      levels[i] = (density(from) - density(to)) / (below(to) - below(from));
      from = to;
    }
  }
  return levels;
}

std::vector<int> MakeLevels(Codec codec) {
  int bits = 0;
  for (const int of_plane : PlaneBits(codec)) bits += of_plane;
  std::vector<int> levels;
  if (bits >= 5) {
    for (int code = 0; code < 1 << bits; ++code) levels.push_back(2 * code - ((1 << bits) - 1));
  } else {
    const std::vector<double> normal = LloydMax(1 << bits);
    for (const double level : normal) levels.push_back(int(std::lround(63 * level / normal.back())));
  }
  return levels;
}

const std::vector<int>& LevelsByHand(Codec codec) {
  static const std::vector<std::vector<int>> of_codec = [] {
    std::vector<std::vector<int>> result;
    for (const Codec each : kQuantised) result.push_back(MakeLevels(each));
    return result;
  }();
  return of_codec[size_t(codec) - size_t(Codec::kQ8)];
}

size_t PaddedByHand(Codec codec, size_t num_codes) {
  while (std::ranges::any_of(PlaneBits(codec), [&](int bits) { return num_codes % size_t(256 / bits) != 0; })) {
    ++num_codes;
  }
  return num_codes;
}

unsigned CodeByHand(const QuantisedTile& tile, const std::vector<std::byte>& stored, size_t planes, size_t index) {
  unsigned code = 0;
  int shift = 0;
  for (const int bits : PlaneBits(tile.codec)) {
    const auto chunk = size_t(256 / bits), in_chunk = index % chunk;
    const auto byte = ReadAt<uint8_t>(stored, planes + index / chunk * 32 + in_chunk % 32);
    code |= ((unsigned(byte) >> (in_chunk / 32 * size_t(bits))) & ((1u << bits) - 1)) << shift;
    shift += bits;
    planes += PaddedByHand(tile.codec, tile.num_codes()) * size_t(bits) / 8;
  }
  return code;
}

// Of Sylvester's matrix [[H, H], [H, -H]], orthonormal.
void RotateByHand(double* numbers, int n) {
  if (n == 1) return;
  RotateByHand(numbers, n / 2);
  RotateByHand(numbers + n / 2, n / 2);
  for (int i = 0; i < n / 2; ++i) {
    const double a = numbers[i], b = numbers[i + n / 2];
    numbers[i] = (a + b) / std::sqrt(2.0);
    numbers[i + n / 2] = (a - b) / std::sqrt(2.0);
  }
}
void RotateRowByHand(double* row, int dim) {
  int block = 1;
  while (dim % (2 * block) == 0) block *= 2;
  for (int begin = 0; begin < dim; begin += block) RotateByHand(row + begin, block);
}

std::vector<double> MeansByHand(const QuantisedTile& tile, const std::vector<std::byte>& stored) {
  std::vector<double> means(size_t(tile.dim), 0.0);
  if (!tile.is_key) return means;
  const auto at = size_t(2 * tile.block_tokens);
  const auto scale = ReadAt<float>(stored, at + size_t(tile.dim));
  for (size_t c = 0; c < means.size(); ++c) means[c] = double(scale) * double(ReadAt<int8_t>(stored, at + c));
  return means;
}

double ScaleByHand(const std::vector<std::byte>& stored, int slot) {
  return double(Bf16ToF32(ReadAt<uint16_t>(stored, size_t(2 * slot))));
}

std::vector<double> DecodedByHand(const QuantisedTile& tile, const std::vector<std::byte>& stored) {
  const std::vector<double> means = MeansByHand(tile, stored);
  const std::vector<int>& levels = LevelsByHand(tile.codec);
  const int tokens = tile.block_tokens, dim = tile.dim, group = tile.codec == Codec::kQ8 ? 2 : 4;
  const auto planes = size_t(2 * tokens + (tile.is_key ? dim + 4 : 0));
  std::vector<double> rows;
  for (int t = 0; t < tokens; ++t) {
    std::vector<double> row;
    for (int c = 0; c < dim; ++c) {
      const int index = tile.is_key ? (c / group * tokens + t) * group + c % group  // [D/4][T][4]
                                    : (t / group * dim + c) * group + t % group;    // [T/4][D][4]
      row.push_back(ScaleByHand(stored, t) * levels[CodeByHand(tile, stored, planes, size_t(index))]);
    }
    RotateRowByHand(row.data(), dim);
    for (size_t c = 0; c < row.size(); ++c) rows.push_back(row[c] + means[c]);
  }
  return rows;
}

// --- what is lost of a row ---

struct RowError {
  double error = 0;    // Euclidean norm of decoded - original
  double norm = 0;     // of the row, of K without the stored mean
  double largest = 0;  // of its numbers when rotated
  double size = 0;     // the Euclidean norm with the mean
  double scale = 0;    // as stored
  double ratio = 0;    // of the decoded row's norm to the row's, of K without the stored mean
  double cosine = 0;   // of the angle between both, likewise
  double share() const { return error / norm; }
};

RowError ErrorOf(const QuantisedTile& tile, const std::vector<std::byte>& stored, const std::vector<float>& original,
                 const std::vector<float>& decoded, int slot) {
  const std::vector<double> means = MeansByHand(tile, stored);
  std::vector<double> row;
  RowError result{.scale = ScaleByHand(stored, slot)};
  double decoded_norm = 0, dot = 0;
  for (size_t c = 0, at = size_t(slot) * size_t(tile.dim); c < size_t(tile.dim); ++c, ++at) {
    const double number = double(original[at]) - means[c], decoded_number = double(decoded[at]) - means[c];
    result.error = std::hypot(result.error, decoded_number - number);
    result.size = std::hypot(result.size, double(original[at]));
    result.norm = std::hypot(result.norm, number);
    decoded_norm = std::hypot(decoded_norm, decoded_number);
    dot += number * decoded_number;
    row.push_back(number);
  }
  result.ratio = decoded_norm / result.norm;
  result.cosine = dot / (result.norm * decoded_norm);
  RotateRowByHand(row.data(), tile.dim);
  for (const double x : row) result.largest = std::max(result.largest, std::fabs(x));
  return result;
}

// Of the rows of a range, but for what is next to nothing: a lone key is its own mean.
std::vector<RowError> ErrorsOf(const QuantisedTile& tile, const std::vector<float>& rows, Range range) {
  const std::vector<std::byte> stored = Encoded(tile, rows, range);
  const std::vector<float> decoded = Decoded(tile, stored);
  std::vector<RowError> errors;
  for (int slot = range.first_slot; slot < range.end_slot; ++slot) {
    errors.push_back(ErrorOf(tile, stored, rows, decoded, slot));
    if (errors.back().largest < 1e-5) errors.pop_back();
  }
  return errors;
}

struct RootMeanSquare {
  double square_sum = 0, count = 0;
  void Add(double x) { square_sum += x * x, count += 1; }
  double value() const { return std::sqrt(square_sum / count); }
};

// The typical share of its norm that a row loses.
double ErrorShare(const QuantisedTile& tile, const std::vector<float>& rows, Range range) {
  RootMeanSquare shares;
  for (const RowError& row : ErrorsOf(tile, rows, range)) shares.Add(row.share());
  return shares.value();
}

Range RandomRange(std::mt19937& random, int block_tokens) {
  const int first = int(random() % unsigned(block_tokens));
  return {first, first + 1 + int(random() % unsigned(block_tokens - first))};
}

// What a row of 64 normal numbers loses of its norm, in the root mean square.
double NormalShare(const QuantisedTile& tile) {
  constexpr double kOfKeys[] = {0.0060, 0.0238, 0.0470, 0.0853, 0.1735, 0.3392};
  constexpr double kOfValues[] = {0.0060, 0.0238, 0.0471, 0.0853, 0.1744, 0.3543};
  return (tile.is_key ? kOfKeys : kOfValues)[size_t(tile.codec) - size_t(Codec::kQ8)];
}

TEST_CASE("quantised tile: levels are evenly spaced, or those of Lloyd and Max for a normal distribution") {
  for (const Codec codec : kQuantised) {
    CAPTURE(std::string(CodecName(codec)));
    const auto levels = Levels(codec);
    CHECK(std::vector<int>(levels.begin(), levels.end()) == LevelsByHand(codec));
    CHECK(levels.size() == size_t(1) << CodeBits(codec));
    CHECK(std::string(CodecName(codec)) == "q" + std::to_string(CodeBits(codec)));
  }
}

TEST_CASE("quantised tile: its size is exact and what the bits a number say") {
  struct Size {
    Codec codec;
    int dim, block_tokens;
    size_t k_bytes, v_bytes;
  };
  // Worked out by hand: scales, mean and its scale, planes; up to a multiple of 16.
  constexpr Size kSizes[] = {
      {Codec::kQ8, 64, 32, 64 + 64 + 4 + 2048 + 12, 64 + 2048},
      {Codec::kQ6, 64, 32, 64 + 64 + 4 + 1024 + 512 + 12, 64 + 1024 + 512},
      {Codec::kQ5, 64, 32, 64 + 64 + 4 + 1024 + 256 + 12, 64 + 1024 + 256},
      {Codec::kQ4, 64, 32, 64 + 64 + 4 + 1024 + 12, 64 + 1024},
      {Codec::kQ3, 64, 32, 64 + 64 + 4 + 512 + 256 + 12, 64 + 512 + 256},
      {Codec::kQ2, 64, 32, 64 + 64 + 4 + 512 + 12, 64 + 512},
      {Codec::kQ8, 8, 16, 32 + 8 + 4 + 128 + 4, 32 + 128},
      {Codec::kQ5, 8, 16, 32 + 8 + 4 + 128 + 32 + 4, 32 + 128 + 32},  // 128 codes, and 128 of padding
      {Codec::kQ3, 8, 16, 32 + 8 + 4 + 64 + 32 + 4, 32 + 64 + 32},    // likewise
      {Codec::kQ2, 8, 16, 32 + 8 + 4 + 32 + 4, 32 + 32},
      {Codec::kQ3, 72, 16, 32 + 72 + 4 + 320 + 160 + 4, 32 + 320 + 160},
  };
  for (const Size& size : kSizes) {
    CAPTURE(std::string(CodecName(size.codec)));
    CHECK(QuantisedTile::OfKeys(size.codec, size.dim, size.block_tokens).num_bytes == size.k_bytes);
    CHECK(QuantisedTile::OfValues(size.codec, size.dim, size.block_tokens).num_bytes == size.v_bytes);
  }
  ForEachTile([](const QuantisedTile& tile) {
    CAPTURE(NameOf(tile));
    const double dim = tile.dim, tokens = tile.block_tokens, num_codes = dim * tokens;
    double bits = CodeBits(tile.codec) + 16 / dim;
    if (tile.is_key) bits += 8 / tokens + 32 / (tokens * dim);
    const double padding = double(PaddedByHand(tile.codec, tile.num_codes())) - num_codes;
    const double wasted = double(tile.num_bytes * 8) - bits * num_codes - padding * CodeBits(tile.codec);
    CHECK(wasted > -1e-6);
    CHECK(wasted < (tile.is_key ? 128 : 1e-6));  // without a mean all parts are multiples of 16 bytes
    CHECK(padding == (PlaneBits(tile.codec).back() == 1 ? tile.num_codes() % 256 : 0));
    CHECK(tile.num_bytes % 16 == 0);
    CHECK(PaddedCodes(tile.codec, tile.num_codes()) == PaddedByHand(tile.codec, tile.num_codes()));
  });
}

TEST_CASE("quantised tile: a decoder written from the header reads the same numbers") {
  std::mt19937 random(21);
  ForEachTile([&](const QuantisedTile& tile) {
    CAPTURE(NameOf(tile));
    std::vector<float> rows = RandomRows(random, tile);
    for (size_t i = 0; i < rows.size(); ++i) rows[i] += float(i % size_t(tile.dim) % 7);  // K has a mean
    const std::vector<std::byte> stored = Encoded(tile, rows, RandomRange(random, tile.block_tokens));
    const std::vector<float> decoded = Decoded(tile, stored);
    const std::vector<double> wanted = DecodedByHand(tile, stored);
    double worst = 0;
    for (size_t i = 0; i < wanted.size(); ++i) worst = std::max(worst, std::fabs(double(decoded[i]) - wanted[i]));
    CHECK(worst < 1e-5);  // of numbers up to about 10
  });
}

TEST_CASE("quantised tile: a normal row loses the share of its norm that its bits must") {
  std::mt19937 random(35);
  for (const Codec codec : kQuantised) {
    for (const bool is_key : {true, false}) {
      const QuantisedTile tile = TileOf(is_key, codec, 64, 128);
      CAPTURE(NameOf(tile));
      RootMeanSquare shares;
      for (int i = 0; i < 20; ++i) shares.Add(ErrorShare(tile, RandomRows(random, tile, 3.0f), {0, 128}));
      CHECK(shares.value() == doctest::Approx(NormalShare(tile)).epsilon(0.01));
    }
  }
}

// Each rotated number is within one scale of its level's, and the scale is the smallest bfloat16 that reaches the
// largest.
TEST_CASE("quantised tile: a row of q8 is off by at most sqrt(dim) scales, typically by 0.58 of that") {
  std::mt19937 random(22);
  double square_sum = 0, num_rows = 0, largest_scale = 0, smallest_scale = 9;
  ForEachTile([&](const QuantisedTile& tile) {
    if (tile.codec != Codec::kQ8) return;
    CAPTURE(NameOf(tile));
    for (const Range range : {Range{0, tile.block_tokens}, RandomRange(random, tile.block_tokens)}) {
      const std::vector<float> rows = RandomRows(random, tile, 3.0f);
      const std::vector<std::byte> stored = Encoded(tile, rows, range);
      const std::vector<float> decoded = Decoded(tile, stored);
      for (int slot = range.first_slot; slot < range.end_slot; ++slot) {
        const RowError row = ErrorOf(tile, stored, rows, decoded, slot);
        if (row.largest < 1e-5) continue;  // a lone key is its own mean
        const double scale = ScaleByHand(stored, slot), bound = std::sqrt(double(tile.dim)) * scale;
        CHECK(row.error <= bound + 1e-6 * row.size);
        const double share = row.error / bound, of_scale = scale * 255 / row.largest;
        if (tile.dim >= 64) square_sum += share * share, num_rows += 1;
        largest_scale = std::max(largest_scale, of_scale), smallest_scale = std::min(smallest_scale, of_scale);
      }
    }
  });
  CHECK(std::sqrt(square_sum / num_rows) < 0.585);  // 1 / sqrt(3) = 0.577
  CHECK(std::sqrt(square_sum / num_rows) > 0.565);
  CHECK(smallest_scale > 1 - 1e-5);
  CHECK(largest_scale < 1 + 0x1p-7 + 1e-5);
  CHECK(largest_scale > 1 + 0x1p-8);
}

// Rows that are one spike when rotated: no level is 0, so the other channels are off by a whole scale.
TEST_CASE("quantised tile: the worst row of q8, q6 and q5 is off by sqrt(dim) times its largest number's last step") {
  for (const Codec codec : {Codec::kQ8, Codec::kQ6, Codec::kQ5}) {
    for (const bool is_key : {true, false}) {
      const QuantisedTile tile = TileOf(is_key, codec, 64, 32);
      CAPTURE(NameOf(tile));
      std::vector<float> rows(tile.num_codes());
      for (size_t i = 0; i < rows.size(); ++i) rows[i] = i / 64 % 2 == 0 ? 1.3f : -1.3f;  // K: of mean 0
      const std::vector<std::byte> stored = Encoded(tile, rows);
      const std::vector<float> decoded = Decoded(tile, stored);
      for (int slot = 0; slot < 32; ++slot) {
        const RowError row = ErrorOf(tile, stored, rows, decoded, slot);
        CHECK(row.largest == doctest::Approx(row.norm));
        CHECK(row.error <= 8 * row.largest / Levels(codec).back() * 1.01);
        CHECK(row.error >= 8 * row.largest / Levels(codec).back() * 0.95);
      }
    }
  }
}

// A row without the mean, as it was and as it came back.
struct RowFit {
  double norm, stored_norm, dot;
};
RowFit FitOf(const std::vector<double>& means, const std::vector<float>& original, const std::vector<float>& decoded,
             int slot) {
  RowFit fit{};
  for (size_t c = 0, at = size_t(slot) * means.size(); c < means.size(); ++c, ++at) {
    const double before = double(original[at]) - means[c], after = double(decoded[at]) - means[c];
    fit.norm += before * before, fit.stored_norm += after * after, fit.dot += before * after;
  }
  return {std::sqrt(fit.norm), std::sqrt(fit.stored_norm), fit.dot};
}

// Else scores and sums would come out too small or too large on the whole.
TEST_CASE("quantised tile: below q8 keys keep their norm, and values their dot product with themselves") {
  std::mt19937 random(23);
  for (const bool is_key : {true, false}) {
    double worst = 0, worst_capped = 0, num_capped = 0;
    ForEachTile([&](const QuantisedTile& tile) {
      if (tile.codec == Codec::kQ8 || tile.is_key != is_key) return;
      for (const Range range : {Range{0, tile.block_tokens}, RandomRange(random, tile.block_tokens)}) {
        const std::vector<float> rows = RandomRows(random, tile, 3.0f);
        const std::vector<std::byte> stored = Encoded(tile, rows, range);
        const std::vector<float> decoded = Decoded(tile, stored);
        const std::vector<double> means = MeansByHand(tile, stored);
        for (int slot = range.first_slot; slot < range.end_slot; ++slot) {
          const RowFit fit = FitOf(means, rows, decoded, slot);
          if (fit.norm < 1e-4) continue;  // a lone key is its own mean
          const double lengthening = fit.stored_norm / fit.norm, cosine = fit.dot / (fit.norm * fit.stored_norm);
          if (is_key) {
            worst = std::max(worst, std::fabs(lengthening - 1));
          } else if (1 / cosine < 1.125) {
            worst = std::max(worst, std::fabs(lengthening * cosine - 1));
          } else {  // a row that no levels fit is lengthened no further
            worst_capped = std::max(worst_capped, std::fabs(lengthening / 1.125 - 1));
            num_capped += 1;
          }
        }
      }
    });
    CHECK(worst < 0x1p-8 + 1e-5);  // what rounding the scale to bfloat16 changes
    CHECK(worst > 0x1p-9);
    CHECK(worst_capped < 0x1p-8 + 1e-5);
    CHECK((num_capped > 0) == !is_key);
  }
}

TEST_CASE("quantised tile: normal rows of every length lose about the same share") {
  std::mt19937 random(36);
  for (const Codec codec : {Codec::kQ4, Codec::kQ3, Codec::kQ2}) {
    for (const bool is_key : {true, false}) {
      for (const int dim : kDims) {
        const QuantisedTile tile = TileOf(is_key, codec, dim, 128);
        CAPTURE(NameOf(tile));
        const double share = ErrorShare(tile, RandomRows(random, tile, 3.0f), {0, 128}) / NormalShare(tile);
        CHECK(share < (dim >= 64 ? 1.14 : 1.0));
        CHECK(share > (dim >= 64 ? 0.95 : 0.7));  // a short row is fitted better by its own scale
      }
    }
  }
}

// Every level has the sign of its number and the norm is kept, or exceeded by an eighth: no row is lost altogether.
TEST_CASE("quantised tile: no row is off by more than sqrt(2) of its norm, of values by more than 1.51") {
  for (const bool is_key : {true, false}) {
    double worst = 0;
    for (const Codec codec : kQuantised) {
      for (const int dim : {8, 64, 512}) {
        const QuantisedTile tile = TileOf(is_key, codec, dim, 16);
        CAPTURE(NameOf(tile));
        std::vector<float> rows(tile.num_codes());  // one spike when rotated
        for (size_t i = 0; i < rows.size(); ++i) rows[i] = i / size_t(dim) % 2 == 0 ? 0.7f : -0.7f;
        worst = std::max(worst, ErrorShare(tile, rows, {0, 16}));
      }
    }
    CHECK(worst < (is_key ? 1.42 : 1.51));
    CHECK(worst > 1.2);
  }
}

TEST_CASE("quantised tile: zeros and what the means of keys take away are exact") {
  ForEachTile([](const QuantisedTile& tile) {
    CAPTURE(NameOf(tile));
    const std::vector<float> zeros(tile.num_codes(), 0.0f);
    CHECK(Decoded(tile, Encoded(tile, zeros)) == zeros);
    if (!tile.is_key) return;
    // Channels that never change, the largest 127 * 0.25: means and their scale are exact.
    std::vector<float> constant(tile.num_codes());
    for (size_t i = 0; i < constant.size(); ++i) {
      const int c = int(i % size_t(tile.dim));
      constant[i] = 0.25f * float(c == 3 ? -127 : c * 37 % 120 - 60);
    }
    CHECK(Decoded(tile, Encoded(tile, constant)) == constant);
    CHECK(Decoded(tile, Encoded(tile, constant, {5, 6})) == constant);  // and it is what empty slots get
  });
}

TEST_CASE("quantised tile: a zero row beside others stays zero") {
  std::mt19937 random(24);
  for (const Codec codec : kQuantised) {
    const QuantisedTile tile = TileOf(false, codec, 72, 16);
    CAPTURE(NameOf(tile));
    std::vector<float> rows = RandomRows(random, tile);
    std::fill_n(rows.begin() + 4 * 72, 72, 0.0f);
    const std::vector<float> decoded = Decoded(tile, Encoded(tile, rows));
    CHECK(std::all_of(decoded.begin() + 4 * 72, decoded.begin() + 5 * 72, [](float x) { return x == 0.0f; }));
    CHECK(std::any_of(decoded.begin() + 5 * 72, decoded.begin() + 6 * 72, [](float x) { return x != 0.0f; }));
  }
}

TEST_CASE("quantised tile: stored means are within half a step of the channels' means over the block") {
  std::mt19937 random(25);
  for (const Codec codec : kQuantised) {
    const QuantisedTile tile = TileOf(true, codec, 80, 32);
    for (const Range range : {Range{0, 32}, Range{3, 20}}) {
      std::vector<float> rows = RandomRows(random, tile);
      for (size_t i = 0; i < rows.size(); ++i) rows[i] += float(i % 80) - 30.0f;
      const std::vector<double> stored_means = MeansByHand(tile, Encoded(tile, rows, range));
      double largest = 0, worst = 0;
      for (size_t c = 0; c < 80; ++c) {
        double mean = 0;
        for (int slot = range.first_slot; slot < range.end_slot; ++slot) mean += double(rows[size_t(slot) * 80 + c]);
        mean /= range.end_slot - range.first_slot;
        largest = std::max(largest, std::fabs(mean));
        worst = std::max(worst, std::fabs(stored_means[c] - mean));
      }
      CHECK(worst <= 0.5 * largest / 127 * 1.0001);
      CHECK(worst >= 0.4 * largest / 127);
    }
  }
}

TEST_CASE("quantised tile: a channel of keys that is always a thousand larger costs next to nothing") {
  std::mt19937 random(26);
  for (const Codec codec : kQuantised) {
    for (const int dim : {24, 64, 256}) {
      const QuantisedTile tile = TileOf(true, codec, dim, 64);
      CAPTURE(NameOf(tile));
      std::vector<float> rows = RandomRows(random, tile);
      const double without = ErrorShare(tile, rows, {0, 64});
      for (size_t i = 5; i < rows.size(); i += size_t(dim)) rows[i] += 1000.0f;
      CHECK(ErrorShare(tile, rows, {0, 64}) < 1.05 * without);
    }
  }
}

// Unrotated, the others would be lost in a scale of 1000 / 255; spread, the outlier is one sqrt(64)-th of itself.
TEST_CASE("quantised tile: a channel of values that is a thousand times larger costs as much as its part of the norm") {
  std::mt19937 random(27);
  for (const Codec codec : kQuantised) {
    const QuantisedTile tile = TileOf(false, codec, 64, 64);
    CAPTURE(NameOf(tile));
    std::vector<float> rows = RandomRows(random, tile);
    for (size_t i = 5; i < rows.size(); i += 64) rows[i] = rows[i] < 0 ? -1000.0f : 1000.0f;
    const double share = ErrorShare(tile, rows, {0, 64});
    if (CodeBits(codec) >= 5) {
      CHECK(share < 1.05 / Levels(codec).back());  // 1000 / 8 is the largest number, 8 = sqrt(64) such errors
      CHECK(share > 0.1 / Levels(codec).back());
    } else {
      CHECK(share < NormalShare(tile));
    }
  }
}

// All scales have binary32's exponents: a tile multiplied by a power of two has the same codes.
TEST_CASE("quantised tile: magnitudes from 1e-20 to 1e20 are all alike") {
  std::mt19937 random(28);
  for (const bool is_key : {true, false}) {
    for (const Codec codec : kQuantised) {
      const QuantisedTile tile = TileOf(is_key, codec, 80, 16);
      const std::vector<float> rows = RandomRows(random, tile);
      const std::vector<float> decoded = Decoded(tile, Encoded(tile, rows));
      for (const int exponent : {-66, -40, 40, 66}) {
        CAPTURE(NameOf(tile));
        CAPTURE(exponent);
        std::vector<float> scaled = rows, wanted = decoded;
        for (float& x : scaled) x = std::ldexp(x, exponent);
        for (float& x : wanted) x = std::ldexp(x, exponent);
        CHECK(Decoded(tile, Encoded(tile, scaled)) == wanted);
      }
    }
  }
}

TEST_CASE("quantised tile: a NaN or infinity anywhere makes all of it NaN") {
  std::mt19937 random(29);
  ForEachSmallTile([&](const QuantisedTile& tile) {
    CAPTURE(NameOf(tile));
    const std::vector<float> rows = RandomRows(random, tile);
    for (const float damage : {kNan, -kNan, kInfinity, -kInfinity}) {
      for (const size_t at : {size_t(2 * 24), size_t(7 * 24 + 11), size_t(13 * 24 - 1)}) {
        std::vector<float> damaged = rows;
        damaged[at] = damage;
        const std::vector<float> decoded = Decoded(tile, Encoded(tile, damaged, {2, 13}));
        CHECK(std::ranges::all_of(decoded, [](float x) { return std::isnan(x); }));
      }
    }
  });
}

TEST_CASE("quantised tile: what stands in other slots changes no byte, and they come back as nothing or the mean") {
  std::mt19937 random(30);
  ForEachSmallTile([&](const QuantisedTile& tile) {
    CAPTURE(NameOf(tile));
    for (const Range range : {Range{0, 9}, Range{4, 16}, Range{5, 6}, Range{7, 7}}) {
      std::vector<float> rows = RandomRows(random, tile), other = rows;
      for (int slot = 0; slot < 16; ++slot) {
        if (slot >= range.first_slot && slot < range.end_slot) continue;
        for (size_t c = 0; c < 24; ++c) other[size_t(slot) * 24 + c] = c % 2 == 0 ? kNan : 1e30f;
      }
      const std::vector<std::byte> stored = Encoded(tile, rows, range);
      CHECK(stored == Encoded(tile, other, range));
      const std::vector<float> decoded = Decoded(tile, stored);
      const std::vector<double> means = MeansByHand(tile, stored);
      for (int slot = 0; slot < 16; ++slot) {
        if (slot >= range.first_slot && slot < range.end_slot) continue;
        bool all_mean = true;
        for (size_t c = 0; c < 24; ++c) all_mean &= double(decoded[size_t(slot) * 24 + c]) == double(float(means[c]));
        CHECK(all_mean);
      }
    }
  });
}

TEST_CASE("quantised tile: a row of values does not depend on the others") {
  std::mt19937 random(31);
  for (const Codec codec : kQuantised) {
    const QuantisedTile tile = TileOf(false, codec, 24, 16);
    CAPTURE(NameOf(tile));
    std::vector<float> rows = RandomRows(random, tile), other = RandomRows(random, tile, 1000.0f);
    std::copy_n(rows.begin() + 6 * 24, 24, other.begin() + 6 * 24);
    const std::vector<float> decoded = Decoded(tile, Encoded(tile, rows));
    CHECK(SameRow(tile, 6, decoded, Decoded(tile, Encoded(tile, other))));
    CHECK(SameRow(tile, 6, decoded, Decoded(tile, Encoded(tile, rows, {6, 7}))));
    CHECK_FALSE(SameRow(tile, 7, decoded, Decoded(tile, Encoded(tile, other))));
  }
}

std::vector<std::byte> WithFlippedBit(std::vector<std::byte> stored, size_t bit) {
  stored[bit / 8] ^= std::byte(1 << bit % 8);
  return stored;
}

TEST_CASE("quantised tile: a flipped bit of a scale changes its row and no other") {
  std::mt19937 random(32);
  ForEachSmallTile([&](const QuantisedTile& tile) {
    CAPTURE(NameOf(tile));
    const std::vector<std::byte> stored = Encoded(tile, RandomRows(random, tile));
    const std::vector<float> decoded = Decoded(tile, stored);
    for (int slot = 0; slot < 16; ++slot) {
      for (int bit = 0; bit < 16; ++bit) {
        const auto broken = Decoded(tile, WithFlippedBit(stored, tile.scales_offset * 8 + size_t(slot * 16 + bit)));
        for (int other = 0; other < 16; ++other) CHECK(SameRow(tile, other, decoded, broken) == (other != slot));
      }
    }
  });
}

TEST_CASE("quantised tile: a flipped bit of a mean changes its channel in every row, one of their scale all channels") {
  std::mt19937 random(33);
  for (const Codec codec : kQuantised) {
    const QuantisedTile tile = TileOf(true, codec, 24, 16);
    CAPTURE(NameOf(tile));
    std::vector<float> rows = RandomRows(random, tile);
    for (size_t i = 0; i < rows.size(); ++i) rows[i] += 10.0f + float(i % 24);
    const std::vector<std::byte> stored = Encoded(tile, rows);
    const std::vector<float> decoded = Decoded(tile, stored);
    for (size_t bit = 0; bit < 24 * 8; ++bit) {
      const auto broken = Decoded(tile, WithFlippedBit(stored, tile.mean_offset * 8 + bit));
      bool only_its_channel = true;
      for (size_t i = 0; i < rows.size(); ++i) only_its_channel &= (broken[i] == decoded[i]) == (i % 24 != bit / 8);
      CHECK(only_its_channel);
    }
    for (size_t bit = 8; bit < 32; ++bit) {  // the lowest may be rounded away
      const auto broken = Decoded(tile, WithFlippedBit(stored, tile.mean_scale_offset * 8 + bit));
      for (size_t i = 0; i < rows.size(); ++i) CHECK(broken[i] != decoded[i]);
    }
  }
}

TEST_CASE("quantised tile: each bit of the planes is a bit of one number, and the padding of none") {
  std::mt19937 random(34);
  for (const Codec codec : kQuantised) {
    for (const bool is_key : {true, false}) {
      const QuantisedTile tile = TileOf(is_key, codec, 8, 16);
      CAPTURE(NameOf(tile));
      const std::vector<std::byte> stored = Encoded(tile, RandomRows(random, tile));
      const std::vector<float> decoded = Decoded(tile, stored);
      size_t num_bits = 0;
      for (size_t bit = tile.codes_offset * 8; bit < tile.num_bytes * 8; ++bit) {
        const auto broken = Decoded(tile, WithFlippedBit(stored, bit));
        int num_changed = 0;
        for (int slot = 0; slot < 16; ++slot) num_changed += !SameRow(tile, slot, decoded, broken);
        CHECK(num_changed <= 1);
        num_bits += size_t(num_changed);
      }
      CHECK(num_bits == tile.num_codes() * size_t(CodeBits(codec)));
    }
  }
}

// Every machine stores these bytes. If the decoder's tests above still pass, a change here is only one of the encoder's
// choice of scales; else what was stored before can't be read any more.
TEST_CASE("quantised tile: the stored bytes are what they always were") {
  struct Golden {
    Codec codec;
    uint64_t k_hash, v_hash;
    uint32_t k_scales, v_scales;  // of slots 1 and 2
  };
  constexpr Golden kGolden[] = {
      {Codec::kQ8, 0x2213504d698883e9, 0x59363d66ea110976, 0x3d0a3d09, 0x3d0a3d0a},
      {Codec::kQ6, 0xf586c8ce1b6c1611, 0x08bf88a74e26a42d, 0x3e0a3e0a, 0x3e0d3e0d},
      {Codec::kQ5, 0x0e450436f6b58cd9, 0x80de3c6eb31b9915, 0x3e8a3e8c, 0x3e8b3e8b},
      {Codec::kQ4, 0x44ba16e7546f3722, 0xf47ead4a28e26863, 0x3e303e39, 0x3e433e45},
      {Codec::kQ3, 0xd16acd5174322495, 0x796e89168098766f, 0x3e0f3e08, 0x3e123e10},
      {Codec::kQ2, 0x908a6d1b4162ba0d, 0xd1eccaf5636f481c, 0x3dd43dc9, 0x3dc83dbe},
  };
  for (const Golden& golden : kGolden) {
    for (const bool is_key : {true, false}) {
      const QuantisedTile tile = TileOf(is_key, golden.codec, 24, 16);
      CAPTURE(NameOf(tile));
      std::vector<float> rows(tile.num_codes());
      for (size_t i = 0; i < rows.size(); ++i) rows[i] = (float(i * 7919 % 257) - 100.0f) / 16.0f;
      const std::vector<std::byte> stored = Encoded(tile, rows, {1, 15});
      CHECK(stored == Encoded(tile, rows, {1, 15}));
      CHECK(ReadAt<uint32_t>(stored, 2) == (is_key ? golden.k_scales : golden.v_scales));
      CHECK(XXH3_64bits(stored.data(), stored.size()) == (is_key ? golden.k_hash : golden.v_hash));
    }
  }
}

}  // namespace
}  // namespace kvist::quantised_tile_test
