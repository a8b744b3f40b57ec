// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "kernels/kernels.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/half.h"
#include "codec/quantised_tile.h"
#include "codec/rotation.h"
#include "codec/tile.h"

namespace kvist::kernels_test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();
constexpr Codec kFloatCodecs[] = {Codec::kF32, Codec::kF16, Codec::kBf16};

std::vector<float> RandomNumbers(std::mt19937& random, size_t n, float magnitude = 1.0f) {
  std::normal_distribution<float> normal(0, magnitude);
  std::vector<float> numbers(n);
  for (float& x : numbers) x = normal(random);
  return numbers;
}

struct TileShape {
  int block_tokens = 32;
  int key_dim = 64;
  int value_dim = 64;
  Codec k_codec = Codec::kF16;
  Codec v_codec = Codec::kF16;
};

std::string NameOf(const TileShape& shape) {
  return FormName({shape.k_codec, shape.v_codec}) + ", " + std::to_string(shape.block_tokens) + " tokens, dims " +
         std::to_string(shape.key_dim) + " and " + std::to_string(shape.value_dim);
}

// [n][m] of [m][n].
std::vector<float> Transposed(const std::vector<float>& numbers, int m, int n) {
  std::vector<float> result;
  for (int j = 0; j < n; ++j)
    for (int i = 0; i < m; ++i) result.push_back(numbers[size_t(i * n + j)]);
  return result;
}

// A tile as it is stored, beside the numbers that its stored form stands for.
struct Tile {
  Tile(const TileShape& shape_in, std::vector<float> k_in, std::vector<float> v_in)
      : shape(shape_in), k(std::move(k_in)), v(std::move(v_in)), k_mean(size_t(shape.key_dim), 0.0f) {
    if (IsQuantised(shape.k_codec)) {
      StoreQuantisedKeys();
    } else {
      Store(shape.k_codec, k, k_stored);
    }
    if (IsQuantised(shape.v_codec)) {
      StoreQuantisedValues();
    } else {
      Store(shape.v_codec, v, v_stored);
    }
  }
  static void Store(Codec codec, std::vector<float>& numbers, std::vector<std::byte>& stored) {
    stored.resize(CodecBytes(codec, numbers.size()));
    Encode(codec, numbers.data(), numbers.size(), stored.data());
    Decode(codec, stored.data(), numbers.size(), numbers.data());
  }
  static void Store(const QuantisedTile& layout, std::vector<float>& rows, std::vector<std::byte>& stored) {
    stored.resize(layout.num_bytes);
    EncodeTile(layout, rows.data(), 0, layout.block_tokens, stored.data());
    DecodeTile(layout, stored.data(), rows.data());
  }
  void StoreQuantisedKeys() {
    k_layout = QuantisedTile::OfKeys(shape.k_codec, shape.key_dim, shape.block_tokens);
    std::vector<float> rows = Transposed(k, shape.key_dim, shape.block_tokens);
    Store(k_layout, rows, k_stored);
    k = Transposed(rows, shape.block_tokens, shape.key_dim);
    float scale = 0;
    std::memcpy(&scale, k_stored.data() + k_layout.mean_scale_offset, sizeof(scale));
    for (size_t c = 0; c < k_mean.size(); ++c) k_mean[c] = scale * float(int8_t(k_stored[k_layout.mean_offset + c]));
  }
  void StoreQuantisedValues() {
    v_layout = QuantisedTile::OfValues(shape.v_codec, shape.value_dim, shape.block_tokens);
    Store(v_layout, v, v_stored);
  }
  // With its floats decoded to f32.
  Tile InF32() const {
    Tile result = *this;
    if (!IsQuantised(shape.k_codec)) Store(result.shape.k_codec = Codec::kF32, result.k, result.k_stored);
    if (!IsQuantised(shape.v_codec)) Store(result.shape.v_codec = Codec::kF32, result.v, result.v_stored);
    return result;
  }

  TileShape shape;
  std::vector<float> k;       // [key_dim][block_tokens]
  std::vector<float> v;       // [block_tokens][value_dim]
  std::vector<float> k_mean;  // [key_dim] of quantised keys; else 0
  std::vector<std::byte> k_stored, v_stored;
  QuantisedTile k_layout = {}, v_layout = {};
};

float ScaleOf(const std::vector<std::byte>& stored, const QuantisedTile& layout, int slot) {
  uint16_t scale = 0;
  std::memcpy(&scale, stored.data() + layout.scales_offset + 2 * size_t(slot), sizeof(scale));
  return Bf16ToF32(scale);
}
void SetScale(std::vector<std::byte>& stored, const QuantisedTile& layout, int slot, float scale) {
  const uint16_t half = F32ToBf16(scale);
  std::memcpy(stored.data() + layout.scales_offset + 2 * size_t(slot), &half, sizeof(half));
}

// The levels [token][dim] of a tile, whatever its scales.
std::vector<int> LevelsOf(const QuantisedTile& layout, std::vector<std::byte> stored) {
  for (int slot = 0; slot < layout.block_tokens; ++slot) SetScale(stored, layout, slot, 1.0f);
  if (layout.is_key) std::memset(stored.data() + layout.mean_scale_offset, 0, sizeof(float));
  std::vector<float> rows(layout.num_codes());
  DecodeTile(layout, stored.data(), rows.data());
  RotateRows(rows.data(), layout.block_tokens, layout.dim);
  std::vector<int> levels;
  for (const float x : rows) levels.push_back(int(std::lround(x)));
  return levels;
}

Tile RandomTile(std::mt19937& random, const TileShape& shape) {
  std::vector<float> k = RandomNumbers(random, size_t(shape.key_dim * shape.block_tokens));
  const std::vector<float> mean = RandomNumbers(random, size_t(shape.key_dim));
  for (size_t i = 0; i < k.size(); ++i) k[i] += mean[i / size_t(shape.block_tokens)];
  return Tile(shape, std::move(k), RandomNumbers(random, size_t(shape.block_tokens * shape.value_dim)));
}

struct Rows {
  std::vector<float> queries;  // [row][key_dim]
  std::vector<int32_t> first_slot, end_slot;
  int count() const { return int(first_slot.size()); }
  Rows One(int row, int key_dim) const {
    const auto from = queries.begin() + row * key_dim;
    return {{from, from + key_dim}, {first_slot[size_t(row)]}, {end_slot[size_t(row)]}};
  }
};

// Full, partial and empty ranges, at random.
Rows RandomRows(std::mt19937& random, const TileShape& shape, int num_rows, float magnitude) {
  Rows rows;
  rows.queries = RandomNumbers(random, size_t(num_rows * shape.key_dim), magnitude);
  for (int row = 0; row < num_rows; ++row) {
    int first = 0, end = shape.block_tokens;
    if (random() % 3 != 0) {
      first = int(random() % unsigned(shape.block_tokens + 1)), end = int(random() % unsigned(shape.block_tokens + 1));
    }
    if (random() % 5 == 0) first = end;
    rows.first_slot.push_back(first);
    rows.end_slot.push_back(end);  // may lie before first: empty, too
  }
  return rows;
}

struct Softmax {
  Softmax(int num_rows, int value_dim_in)
      : value_dim(value_dim_in),
        largest(size_t(num_rows), -kInfinity),
        sum(size_t(num_rows)),
        output(size_t(num_rows * value_dim_in)) {}
  SoftmaxRows rows() { return {largest.data(), sum.data(), output.data()}; }
  bool SameRow(int row, const Softmax& other, int other_row) const {
    return std::memcmp(&largest[size_t(row)], &other.largest[size_t(other_row)], sizeof(float)) == 0 &&
           std::memcmp(&sum[size_t(row)], &other.sum[size_t(other_row)], sizeof(float)) == 0 &&
           std::memcmp(&output[size_t(row * value_dim)], &other.output[size_t(other_row * value_dim)],
                       sizeof(float) * size_t(value_dim)) == 0;
  }
  int value_dim;
  std::vector<float> largest, sum, output;
};

// Query rows as the keys of a codec are met with: rotated and rounded to whole numbers if they are quantised.
struct Rounded {
  Rounded(Codec codec, int dim, const float* queries, int num_rows)
      : scales(size_t(num_rows)), sums(size_t(num_rows)), met(queries, queries + num_rows * dim) {
    if (!IsQuantised(codec)) return;
    RotateRows(met.data(), num_rows, dim);
    if (codec == Codec::kQ8) {
      words.resize(met.size());
      RoundQueries(met.data(), num_rows, dim, words.data(), scales.data(), sums.data());
    } else {
      bytes.resize(met.size());
      RoundQueries(met.data(), num_rows, dim, bytes.data(), scales.data(), sums.data());
    }
    for (size_t i = 0; i < met.size(); ++i)
      met[i] = scales[i / size_t(dim)] * float(codec == Codec::kQ8 ? words[i] : bytes[i]);
    RotateRows(met.data(), num_rows, dim);
  }
  RoundedQueries queries() const { return {bytes.data(), words.data(), scales.data(), sums.data()}; }

  std::vector<int8_t> bytes;
  std::vector<int16_t> words;
  std::vector<float> scales;
  std::vector<int32_t> sums;
  std::vector<float> met;  // [row][key_dim] the numbers again as rows
};

TileStep StepOf(const Tile& tile) {
  TileStep step{};
  step.k = tile.k_stored.data();
  step.v = tile.v_stored.data();
  step.k_codec = tile.shape.k_codec;
  step.v_codec = tile.shape.v_codec;
  step.block_tokens = tile.shape.block_tokens;
  step.key_dim = tile.shape.key_dim;
  step.value_dim = tile.shape.value_dim;
  step.k_layout = IsQuantised(tile.shape.k_codec) ? &tile.k_layout : nullptr;
  step.v_layout = IsQuantised(tile.shape.v_codec) ? &tile.v_layout : nullptr;
  step.prefetch = tile.k_stored.data();
  step.prefetch_bytes = tile.k_stored.size();
  return step;
}

void Attend(const Kernels& kernels, const Tile& tile, const Rows& rows, Softmax& softmax) {
  const Rounded rounded(tile.shape.k_codec, tile.shape.key_dim, rows.queries.data(), rows.count());
  TileStep step = StepOf(tile);
  step.num_rows = rows.count();
  step.queries = rows.queries.data();
  if (IsQuantised(tile.shape.k_codec)) step.rounded = rounded.queries();
  step.first_slot = rows.first_slot.data();
  step.end_slot = rows.end_slot.data();
  step.rows = softmax.rows();
  kernels.attend_tile(step);
}

// Attention of one row over all it sees in some tiles, in double precision. Of quantised keys it is that of the query
// as it was rounded; of quantised values, what the rounding of weights may add.
struct Reference {
  double largest = -std::numeric_limits<double>::infinity();
  double sum = 0;
  std::vector<double> output;
  double weight_rounding = 0;  // half a unit a weight: the most in the Euclidean norm of the output
};

std::vector<double> ScoresInDouble(const Tile& tile, const Rows& rows, int row) {
  const TileShape& shape = tile.shape;
  const float* query = rows.queries.data() + row * shape.key_dim;
  const Rounded rounded(shape.k_codec, shape.key_dim, query, 1);
  std::vector<double> scores;
  for (int slot = rows.first_slot[size_t(row)]; slot < rows.end_slot[size_t(row)]; ++slot) {
    double score = 0;
    for (int c = 0; c < shape.key_dim; ++c) {
      const double key = double(tile.k[size_t(c * shape.block_tokens + slot)]), mean = double(tile.k_mean[size_t(c)]);
      score += double(rounded.met[size_t(c)]) * (key - mean) + double(query[c]) * mean;
    }
    scores.push_back(score);
  }
  return scores;
}

// Adds half a unit times the levels' magnitudes, channel by channel.
void AddWeightRounding(const Tile& tile, const std::vector<int>& levels, const std::vector<double>& weights,
                       int first_slot, std::vector<double>& bounds) {
  double largest = 0;
  for (size_t i = 0; i < weights.size(); ++i)
    largest = std::max(largest, weights[i] * double(ScaleOf(tile.v_stored, tile.v_layout, first_slot + int(i))));
  const double unit = largest / (tile.shape.v_codec == Codec::kQ8 ? 32767 : 255);
  for (size_t i = 0; i < weights.size(); ++i)
    for (size_t c = 0; c < bounds.size(); ++c)
      bounds[c] += unit / 2 * std::abs(levels[(size_t(first_slot) + i) * bounds.size() + c]);
}

double Norm(const std::vector<double>& numbers) {
  double square_sum = 0;
  for (const double x : numbers) square_sum += x * x;
  return std::sqrt(square_sum);
}

std::vector<Reference> AttendInDouble(const std::vector<Tile>& tiles, const std::vector<Rows>& rows_of_tile) {
  const TileShape& shape = tiles[0].shape;
  const auto value_dim = size_t(shape.value_dim);
  std::vector<std::vector<int>> levels(tiles.size());
  if (IsQuantised(shape.v_codec))
    for (size_t t = 0; t < tiles.size(); ++t) levels[t] = LevelsOf(tiles[t].v_layout, tiles[t].v_stored);
  std::vector<Reference> references;
  for (int row = 0; row < rows_of_tile[0].count(); ++row) {
    Reference result;
    result.output.resize(value_dim);
    std::vector<std::vector<double>> weights;  // scores first
    for (size_t t = 0; t < tiles.size(); ++t) {
      weights.push_back(ScoresInDouble(tiles[t], rows_of_tile[t], row));
      for (const double score : weights.back()) result.largest = std::max(result.largest, score);
    }
    std::vector<double> bounds(value_dim, 0.0);
    for (size_t t = 0; t < tiles.size(); ++t) {
      const int first_slot = rows_of_tile[t].first_slot[size_t(row)];
      for (size_t i = 0; i < weights[t].size(); ++i) {
        const double weight = weights[t][i] = std::exp(weights[t][i] - result.largest);
        result.sum += weight;
        for (size_t c = 0; c < value_dim; ++c)
          result.output[c] += weight * double(tiles[t].v[(size_t(first_slot) + i) * value_dim + c]);
      }
      if (IsQuantised(shape.v_codec)) AddWeightRounding(tiles[t], levels[t], weights[t], first_slot, bounds);
    }
    result.weight_rounding = Norm(bounds);
    references.push_back(std::move(result));
  }
  return references;
}

struct Errors {
  double worst = 0;        // of the rows' normalised outputs, sums and maxima, in units of 1, beyond weight_rounding
  double of_rounding = 0;  // the largest part of weight_rounding that was reached
};

// The output of quantised values comes in rotated channels.
std::vector<double> NormalisedRow(const Softmax& softmax, Codec v_codec, int row) {
  std::vector<float> output(size_t(softmax.value_dim));
  std::copy_n(softmax.output.begin() + row * softmax.value_dim, softmax.value_dim, output.begin());
  if (IsQuantised(v_codec)) RotateRows(output.data(), 1, softmax.value_dim);
  std::vector<double> result;
  for (const float x : output) result.push_back(double(x) / double(softmax.sum[size_t(row)]));
  return result;
}

Errors ErrorsOf(const std::vector<Reference>& references, Codec v_codec, const Softmax& softmax) {
  Errors errors;
  for (int row = 0; row < int(references.size()); ++row) {
    const Reference& reference = references[size_t(row)];
    const float largest = softmax.largest[size_t(row)], sum = softmax.sum[size_t(row)];
    if (reference.sum == 0) {
      bool empty = largest == -kInfinity && sum == 0;
      for (int c = 0; c < softmax.value_dim; ++c) empty &= softmax.output[size_t(row * softmax.value_dim + c)] == 0;
      if (!empty) errors.worst = 1000;
      continue;
    }
    auto note = [&](double error) {
      errors.worst = std::isnan(error) ? 1000 : std::max(errors.worst, std::fabs(error));
    };
    note((double(largest) - reference.largest) / std::max(1.0, std::fabs(reference.largest)));
    note(double(sum) / reference.sum - 1);
    std::vector<double> difference = NormalisedRow(softmax, v_codec, row);
    for (size_t c = 0; c < difference.size(); ++c) difference[c] -= reference.output[c] / reference.sum;
    if (IsQuantised(v_codec)) {
      const double error = Norm(difference), bound = reference.weight_rounding / reference.sum;
      note(std::max(0.0, error - bound) / std::sqrt(double(softmax.value_dim)));
      if (bound > 0) errors.of_rounding = std::max(errors.of_rounding, error / bound);
    } else {
      for (const double error : difference) note(error);
    }
  }
  return errors;
}

// The same where nothing but floats is rounded.
double WorstError(const std::vector<Tile>& tiles, const std::vector<Rows>& rows_of_tile, const Softmax& softmax) {
  return ErrorsOf(AttendInDouble(tiles, rows_of_tile), tiles[0].shape.v_codec, softmax).worst;
}

std::vector<TileShape> OddShapes(std::mt19937& random) {
  std::vector<TileShape> shapes;
  constexpr int kDims[] = {8, 24, 64, 72, 80, 96, 128, 256, 512};
  const auto any_codec = [&] { return kAllCodecs[random() % std::size(kAllCodecs)]; };
  for (const int block_tokens : {16, 32, 64, 128}) {
    for (const int key_dim : kDims) {
      shapes.push_back({block_tokens, key_dim, kDims[random() % 9], any_codec(), any_codec()});
    }
    for (const Codec k : kAllCodecs)
      for (const Codec v : kAllCodecs) shapes.push_back({block_tokens, 24, 72, k, v});
  }
  return shapes;
}

// All numbers of rows a kernel may take at once, from 1 to 17, occur with every codec.
std::vector<int> SomeRowCounts(std::mt19937& random, const TileShape& shape) {
  if (shape.key_dim > 100) return {1, 6, 11, 16};
  const int first = 1 + int(random() % 6);
  return {first, first + 6, std::min(first + 12, 17)};
}

TEST_CASE("kernels: attention over two tiles is right for odd shapes, all codecs and every number of rows") {
  std::mt19937 random(1);
  std::map<std::string, double> worst, of_byte_rounding, of_word_rounding;
  for (const TileShape& shape : OddShapes(random)) {
    CAPTURE(NameOf(shape));
    for (const int num_rows : SomeRowCounts(random, shape)) {
      const std::vector<Tile> tiles = {RandomTile(random, shape), RandomTile(random, shape)};
      const float magnitude = 2.0f / std::sqrt(float(shape.key_dim));
      std::vector<Rows> rows = {RandomRows(random, shape, num_rows, magnitude),
                                RandomRows(random, shape, num_rows, magnitude)};
      rows[1].queries = rows[0].queries;
      const std::vector<Reference> references = AttendInDouble(tiles, rows);
      for (const Kernels* kernels : SupportedKernels()) {
        CAPTURE(std::string(kernels->name));
        Softmax softmax(num_rows, shape.value_dim);
        for (size_t t = 0; t < 2; ++t) Attend(*kernels, tiles[t], rows[t], softmax);
        const Errors errors = ErrorsOf(references, shape.v_codec, softmax);
        CHECK(errors.worst < 5e-6);
        CHECK(errors.of_rounding < 1.0);
        const auto raise = [&](std::map<std::string, double>& of, double x) {
          of[kernels->name] = std::max(of[kernels->name], x);
        };
        raise(worst, errors.worst);
        if (IsQuantised(shape.v_codec))
          raise(shape.v_codec == Codec::kQ8 ? of_word_rounding : of_byte_rounding, errors.of_rounding);
      }
    }
  }
  for (const Kernels* kernels : SupportedKernels()) {
    CAPTURE(std::string(kernels->name));
    CHECK(worst[kernels->name] > 1e-8);             // f32 can't be better: the reference would be comparing itself
    CHECK(of_byte_rounding[kernels->name] > 0.34);  // nor may the bound be much larger than need be
    CHECK(of_word_rounding[kernels->name] > 0.34);
  }
}

TEST_CASE("kernels: scores of ten thousand, up and down, neither overflow nor lose the smaller ones' share") {
  for (const Kernels* kernels : SupportedKernels()) {
    CAPTURE(std::string(kernels->name));
    for (const float from : {-1e4f, 1e4f}) {
      const TileShape shape{32, 8, 24, Codec::kF32, Codec::kF32};
      // Scores run from `from` to -from over three tiles; neighbours differ by far more than exp can hold, but for the
      // last few, which are 1 apart.
      std::vector<Tile> tiles;
      std::mt19937 random(2);
      for (int t = 0; t < 3; ++t) {
        std::vector<float> k(8 * 32, 0.0f);
        for (int slot = 0; slot < 32; ++slot) {
          const int i = t * 32 + slot;
          k[size_t(slot)] = i < 92 ? from - from * float(i) / 46.0f : -from + float(i - 92);
        }
        tiles.emplace_back(shape, k, RandomNumbers(random, 32 * 24));
      }
      Rows rows{std::vector<float>(3 * 8, 0.0f), {0, 0, 5}, {32, 31, 30}};
      for (int row = 0; row < 3; ++row) rows.queries[size_t(row * 8)] = 1.0f;
      Softmax softmax(3, 24);
      for (const Tile& tile : tiles) Attend(*kernels, tile, rows, softmax);
      CHECK(WorstError(tiles, {rows, rows, rows}, softmax) < 2e-6);
    }
  }
}

TEST_CASE("kernels: a damaged key shows as NaN in what sees it, on every instruction set") {
  for (const Kernels* kernels : SupportedKernels()) {
    CAPTURE(std::string(kernels->name));
    for (const float damage : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      const TileShape shape{16, 8, 8, Codec::kF32, Codec::kF32};
      std::vector<float> k(8 * 16, 0.5f);
      k[5] = damage;  // channel 0 of slot 5
      const Tile tile(shape, k, std::vector<float>(8 * 16, 1.0f));
      Rows rows{std::vector<float>(2 * 8, 1.0f), {0, 0}, {5, 16}};
      Softmax softmax(2, 8);
      Attend(*kernels, tile, rows, softmax);
      const SoftmaxRows got = softmax.rows();
      CHECK(std::isfinite(got.output[0]));
      CHECK(std::isnan(got.output[8]));
    }
  }
}

TEST_CASE("kernels: equal scores give the plain mean, and every slot counts once") {
  for (const Kernels* kernels : SupportedKernels()) {
    CAPTURE(std::string(kernels->name));
    for (const float score : {0.0f, 1.0f, -1e4f, 1e4f, 1e-30f}) {
      for (const int block_tokens : {16, 32, 64, 128}) {
        const TileShape shape{block_tokens, 8, 8, Codec::kF32, Codec::kF32};
        std::vector<float> k(size_t(8 * block_tokens), 0.0f), v(size_t(8 * block_tokens));
        for (int slot = 0; slot < block_tokens; ++slot) {
          k[size_t(slot)] = score;
          for (int c = 0; c < 8; ++c) v[size_t(slot * 8 + c)] = float(slot * (c + 1));
        }
        Rows rows{{1, 0, 0, 0, 0, 0, 0, 0}, {3}, {block_tokens - 2}};
        Softmax softmax(1, 8);
        Attend(*kernels, Tile(shape, k, v), rows, softmax);
        CHECK(softmax.largest[0] == score);
        CHECK(softmax.sum[0] == float(block_tokens - 5));
        for (int c = 0; c < 8; ++c) {
          CHECK(softmax.output[size_t(c)] == float((c + 1) * (block_tokens - 5) * (block_tokens) / 2));
        }
      }
    }
  }
}

// exp at every distance a score can have from the largest: 0 far below, and never wrong by more than rounding.
TEST_CASE("kernels: the exponential is right from 0 down to where it vanishes") {
  for (const Kernels* kernels : SupportedKernels()) {
    CAPTURE(std::string(kernels->name));
    const TileShape shape{16, 8, 8, Codec::kF32, Codec::kF32};
    double worst = 0;
    for (float x = 0.0f; x > -120.0f; x -= 0.0137f) {
      std::vector<float> k(8 * 16, 0.0f), v(16 * 8, 0.0f);
      k[1] = x;  // slot 0 scores 0, slot 1 scores x
      v[8] = 1.0f;
      Softmax softmax(1, 8);
      Attend(*kernels, Tile(shape, k, v), {{1, 0, 0, 0, 0, 0, 0, 0}, {0}, {2}}, softmax);
      const double wanted = std::exp(double(x)), got = double(softmax.output[0]);
      if (x < -87.4f) CHECK(got == 0);
      if (x > -87.2f) worst = std::max(worst, std::fabs(got / wanted - 1));
    }
    CHECK(worst < 2e-7);
    CHECK(worst > 1e-9);
  }
}

TEST_CASE("kernels: a row's bits don't depend on the rows beside it, nor on decoding the tile first") {
  for (const Kernels* kernels : SupportedKernels()) {
    CAPTURE(std::string(kernels->name));
    std::mt19937 random(3);
    for (const TileShape& shape : OddShapes(random)) {
      CAPTURE(NameOf(shape));
      const Tile tile = RandomTile(random, shape), in_f32 = tile.InF32();
      const int num_rows = 1 + int(random() % 17);
      CAPTURE(num_rows);
      const Rows first = RandomRows(random, shape, num_rows, 0.3f);
      Rows second = RandomRows(random, shape, num_rows, 0.3f);
      second.queries = first.queries;
      Softmax together(num_rows, shape.value_dim), decoded(num_rows, shape.value_dim);
      for (const Rows& rows : {first, second}) {
        Attend(*kernels, tile, rows, together);
        Attend(*kernels, in_f32, rows, decoded);
      }
      bool all_same = true;
      for (int row = 0; row < num_rows; ++row) {
        Softmax alone(1, shape.value_dim);
        for (const Rows& rows : {first, second}) Attend(*kernels, tile, rows.One(row, shape.key_dim), alone);
        all_same &= alone.SameRow(0, together, row) && alone.SameRow(0, decoded, row);
      }
      CHECK(all_same);
    }
  }
}

std::vector<float> Times(std::vector<float> numbers, float factor) {
  for (float& x : numbers) x *= factor;
  return numbers;
}

// Scores and sums differ by float rounding between instruction sets; whole numbers do only where a weight lies at the
// border of two.
TEST_CASE("kernels: all instruction sets agree") {
  std::mt19937 random(9);
  for (const TileShape& shape : OddShapes(random)) {
    CAPTURE(NameOf(shape));
    const int num_rows = 1 + int(random() % 17);
    const Tile tile = RandomTile(random, shape);
    Rows rows = RandomRows(random, shape, num_rows, 2.0f / std::sqrt(float(shape.key_dim)));
    Softmax by_scalar(num_rows, shape.value_dim);
    Attend(*SupportedKernels().front(), tile, rows, by_scalar);
    for (const Kernels* kernels : SupportedKernels()) {
      CAPTURE(std::string(kernels->name));
      Softmax softmax(num_rows, shape.value_dim);
      Attend(*kernels, tile, rows, softmax);
      for (int row = 0; row < num_rows; ++row) {
        const auto at = size_t(row);
        if (by_scalar.sum[at] == 0.0f) {
          CHECK(softmax.SameRow(row, by_scalar, row));
          continue;
        }
        CHECK(std::fabs(softmax.largest[at] - by_scalar.largest[at]) < 5e-6f);
        CHECK(softmax.sum[at] == doctest::Approx(by_scalar.sum[at]).epsilon(1e-5));
        std::vector<double> difference = NormalisedRow(softmax, shape.v_codec, row);
        const std::vector<double> wanted = NormalisedRow(by_scalar, shape.v_codec, row);
        for (size_t c = 0; c < wanted.size(); ++c) difference[c] -= wanted[c];
        CHECK(Norm(difference) < 3e-5 * std::sqrt(double(shape.value_dim)));
      }
    }
  }
}

// Any bytes are codes; scales 1 and no mean.
std::vector<std::byte> TileOfCodes(std::mt19937& random, const QuantisedTile& layout, const char* codes) {
  std::vector<std::byte> stored(layout.num_bytes);
  for (int slot = 0; slot < layout.block_tokens; ++slot) SetScale(stored, layout, slot, 1.0f);
  for (size_t i = layout.codes_offset; i < stored.size(); ++i) {
    stored[i] = *codes == 'l' ? std::byte{0} : *codes == 'h' ? std::byte{0xff} : std::byte(random() % 256);
  }
  return stored;
}

constexpr Codec kQuantisedCodecs[] = {Codec::kQ8, Codec::kQ6, Codec::kQ5, Codec::kQ4, Codec::kQ3, Codec::kQ2};

// One row a slot, which sees that slot alone: its largest score is the dot product.
TEST_CASE("kernels: dot products of keys are those of 64-bit integers, the largest there can be included") {
  for (const Codec codec : kQuantisedCodecs) {
    const int limit = codec == Codec::kQ8 ? 8191 : 127;
    int64_t largest_dot = 0;
    for (const auto& [dim, tokens] : {std::pair{8, 16}, {24, 32}, {72, 64}, {512, 128}}) {
      for (const char* codes : {"low", "high", "random"}) {
        for (const int query_sign : {1, -1, 0}) {
          std::mt19937 random(10);
          const QuantisedTile layout = QuantisedTile::OfKeys(codec, dim, tokens);
          const std::vector<std::byte> stored = TileOfCodes(random, layout, codes);
          const std::vector<int> levels = LevelsOf(layout, stored);
          std::vector<int8_t> bytes;
          std::vector<int16_t> words;
          std::vector<int32_t> sums, first_slot, end_slot;
          std::vector<float> wanted;
          for (int row = 0; row < tokens; ++row) {
            int64_t dot = 0;
            int32_t sum = 0;
            for (int c = 0; c < dim; ++c) {
              const int number = query_sign != 0 ? query_sign * limit : int(random() % unsigned(2 * limit + 1)) - limit;
              bytes.push_back(int8_t(number)), words.push_back(int16_t(number));
              sum += number;
              dot += int64_t{number} * levels[size_t(row * dim + c)];
            }
            sums.push_back(sum), first_slot.push_back(row), end_slot.push_back(row + 1);
            wanted.push_back(float(dot));
            largest_dot = std::max(largest_dot, dot);
          }
          const std::vector<float> no_mean(size_t(tokens * dim), 0.0f), ones(size_t(tokens), 1.0f);
          const std::vector<float> values(size_t(tokens * 8), 0.0f);
          for (const Kernels* kernels : SupportedKernels()) {
            Softmax softmax(tokens, 8);
            const TileStep step{.k = stored.data(),
                                .v = reinterpret_cast<const std::byte*>(values.data()),
                                .k_codec = codec,
                                .v_codec = Codec::kF32,
                                .block_tokens = tokens,
                                .key_dim = dim,
                                .value_dim = 8,
                                .prefetch = nullptr,
                                .prefetch_bytes = 0,
                                .k_layout = &layout,
                                .v_layout = nullptr,
                                .num_rows = tokens,
                                .queries = no_mean.data(),
                                .rounded = {bytes.data(), words.data(), ones.data(), sums.data()},
                                .first_slot = first_slot.data(),
                                .end_slot = end_slot.data(),
                                .rows = softmax.rows()};
            kernels->attend_tile(step);
            CAPTURE(std::string(kernels->name));
            CAPTURE(std::string(CodecName(codec)));
            CAPTURE(std::string(codes));
            CAPTURE(query_sign);
            CAPTURE(dim);
            CHECK(softmax.largest == wanted);
          }
        }
      }
    }
    CHECK(largest_dot == int64_t{512} * limit * Levels(codec).back());
  }
}

// All scores are 0, so all weights are 1 and the whole numbers those of the scales.
TEST_CASE("kernels: sums of values are those of 64-bit integers, the largest there can be included") {
  for (const Codec codec : kQuantisedCodecs) {
    const int limit = codec == Codec::kQ8 ? 32767 : 255;
    int64_t largest_dot = 0;
    for (const auto& [dim, tokens] : {std::pair{8, 16}, {24, 32}, {72, 64}, {512, 128}}) {
      const TileShape shape{tokens, 8, dim, Codec::kF32, codec};
      for (const char* codes : {"low", "high", "random"}) {
        for (const bool same_scales : {true, false}) {
          std::mt19937 random(11);
          Tile tile(shape, std::vector<float>(size_t(8 * tokens), 0.0f),
                    std::vector<float>(size_t(tokens * dim), 0.0f));
          tile.v_stored = TileOfCodes(random, tile.v_layout, codes);
          const std::vector<int> levels = LevelsOf(tile.v_layout, tile.v_stored);
          for (int slot = 0; slot < tokens && !same_scales; ++slot)
            SetScale(tile.v_stored, tile.v_layout, slot, float(random() % 1000 + 1) * 0.01f);
          const Rows rows{std::vector<float>(3 * 8, 0.0f), {0, 5, 3}, {tokens, tokens - 2, 4}};
          Softmax wanted(3, dim);
          for (size_t row = 0; row < 3; ++row) {
            float largest = 0;
            for (int slot = rows.first_slot[row]; slot < rows.end_slot[row]; ++slot)
              largest = std::max(largest, ScaleOf(tile.v_stored, tile.v_layout, slot));
            const float unit = largest / float(limit), inverse = 1.0f / unit;
            for (int c = 0; c < dim; ++c) {
              int64_t dot = 0;
              for (int slot = rows.first_slot[row]; slot < rows.end_slot[row]; ++slot) {
                const float number = std::nearbyint(ScaleOf(tile.v_stored, tile.v_layout, slot) * inverse);
                dot += int64_t(number) * levels[size_t(slot * dim + c)];
              }
              wanted.output[row * size_t(dim) + size_t(c)] = float(dot) * unit;
              largest_dot = std::max(largest_dot, dot);
            }
          }
          for (const Kernels* kernels : SupportedKernels()) {
            CAPTURE(std::string(kernels->name));
            CAPTURE(NameOf(shape));
            CAPTURE(std::string(codes));
            CAPTURE(same_scales);
            Softmax softmax(3, dim);
            Attend(*kernels, tile, rows, softmax);
            bool right = true;  // but for the rounding of unit * dot product
            for (size_t i = 0; i < wanted.output.size(); ++i)
              right &= std::fabs(softmax.output[i] - wanted.output[i]) <= 5e-7f * std::fabs(wanted.output[i]);
            CHECK(right);
          }
        }
      }
    }
    CHECK(largest_dot == int64_t{128} * limit * Levels(codec).back());
  }
}

TEST_CASE("kernels: a quantised tile that is NaN shows in every row that sees a slot of it, and in no other") {
  for (const Kernels* kernels : SupportedKernels()) {
    CAPTURE(std::string(kernels->name));
    for (const Codec k : kAllCodecs) {
      for (const Codec v : kAllCodecs) {
        for (const bool k_is_nan : {true, false}) {
          if (!IsQuantised(k_is_nan ? k : v)) continue;
          const TileShape shape{32, 24, 72, k, v};
          CAPTURE(NameOf(shape));
          CAPTURE(k_is_nan);
          std::mt19937 random(12);
          const Tile clean = RandomTile(random, shape);
          std::vector<float> k_numbers = clean.k, v_numbers = clean.v;
          (k_is_nan ? k_numbers : v_numbers)[77] = kNan;
          const Tile damaged(shape, k_numbers, v_numbers);
          const Rows all{RandomNumbers(random, 4 * 24), {0, 0, 0, 0}, {32, 32, 32, 32}};
          const Rows some{all.queries, {0, 7, 19, 31}, {32, 7, 20, 3}};
          Softmax softmax(4, 72);
          Attend(*kernels, clean, all, softmax);
          const Softmax before = softmax;
          Attend(*kernels, damaged, some, softmax);
          for (const int row : {0, 2}) {
            const std::vector<double> output = NormalisedRow(softmax, Codec::kF32, row);
            CHECK(std::ranges::all_of(output, [](double x) { return std::isnan(x); }));
          }
          for (const int row : {1, 3}) CHECK(softmax.SameRow(row, before, row));
        }
      }
    }
  }
}

TEST_CASE("kernels: a query that is NaN shows in its row and in no other") {
  for (const Kernels* kernels : SupportedKernels()) {
    CAPTURE(std::string(kernels->name));
    for (const Codec k : kAllCodecs) {
      const TileShape shape{32, 24, 8, k, Codec::kF32};
      CAPTURE(NameOf(shape));
      std::mt19937 random(13);
      const Tile tile = RandomTile(random, shape);
      const Rows rows{RandomNumbers(random, 3 * 24), {0, 0, 0}, {32, 32, 32}};
      Rows damaged = rows;
      damaged.queries[24 + 11] = kNan;
      Softmax from_clean(3, 8), from_damaged(3, 8);
      Attend(*kernels, tile, rows, from_clean);
      Attend(*kernels, tile, damaged, from_damaged);
      CHECK(std::isnan(from_damaged.output[8] / from_damaged.sum[1]));
      for (const int row : {0, 2}) CHECK(from_damaged.SameRow(row, from_clean, row));
    }
  }
}

TEST_CASE("kernels: scales of slots that a row does not see change none of its bits") {
  for (const Kernels* kernels : SupportedKernels()) {
    CAPTURE(std::string(kernels->name));
    for (const Codec codec : kQuantisedCodecs) {
      const TileShape shape{32, 24, 72, codec, codec};
      CAPTURE(NameOf(shape));
      std::mt19937 random(14);
      const Tile clean = RandomTile(random, shape);
      Tile other = clean;
      SetScale(other.k_stored, other.k_layout, 9, 1e30f);
      SetScale(other.v_stored, other.v_layout, 9, 1e30f);
      const Rows rows{RandomNumbers(random, 3 * 24, 0.1f), {0, 10, 8}, {9, 32, 11}};
      Softmax from_clean(3, 72), from_other(3, 72);
      Attend(*kernels, clean, rows, from_clean);
      Attend(*kernels, other, rows, from_other);
      CHECK(from_other.SameRow(0, from_clean, 0));
      CHECK(from_other.SameRow(1, from_clean, 1));
      CHECK_FALSE(from_other.SameRow(2, from_clean, 2));
    }
  }
}

// Their unit is so small that it has no reciprocal.
TEST_CASE("kernels: a quantised tile whose weights all but vanish changes no bit, before or after the others") {
  for (const Kernels* kernels : SupportedKernels()) {
    CAPTURE(std::string(kernels->name));
    for (const Codec codec : kQuantisedCodecs) {
      for (const float score : {-8.0f, -75.0f, -80.0f, -83.0f, -87.0f, -200.0f}) {
        CAPTURE(std::string(CodecName(codec)));
        CAPTURE(score);
        const TileShape shape{16, 8, 24, Codec::kF32, codec};
        std::mt19937 random(15);
        const std::vector<float> v = RandomNumbers(random, 16 * 24, 1e-3f);
        const Tile tile(shape, std::vector<float>(8 * 16, 0.0f), v);
        const Tile far(shape, std::vector<float>(8 * 16, score / 8), Times(v, -2.0f));
        const Rows rows{std::vector<float>(8, 1.0f), {0}, {16}};
        Softmax alone(1, 24), before(1, 24), after(1, 24);
        Attend(*kernels, tile, rows, alone);
        for (const Tile* each : {&far, &tile}) Attend(*kernels, *each, rows, before);
        for (const Tile* each : {&tile, &far}) Attend(*kernels, *each, rows, after);
        CHECK(before.SameRow(0, alone, 0) == (score < -70));
        CHECK(after.SameRow(0, alone, 0) == (score < -70));
      }
    }
  }
}

TEST_CASE("kernels: scales of values times a power of two give the output times that") {
  for (const Kernels* kernels : SupportedKernels()) {
    CAPTURE(std::string(kernels->name));
    for (const Codec codec : kQuantisedCodecs) {
      for (const float factor : {0x1p-66f, 0x1p66f}) {
        const TileShape shape{32, 8, 72, Codec::kF32, codec};
        CAPTURE(NameOf(shape));
        CAPTURE(factor);
        std::mt19937 random(16);
        const Tile tile = RandomTile(random, shape);
        Tile scaled = tile;
        for (int slot = 0; slot < 32; ++slot)
          SetScale(scaled.v_stored, tile.v_layout, slot, factor * ScaleOf(tile.v_stored, tile.v_layout, slot));
        const Rows rows{RandomNumbers(random, 8), {1}, {32}};
        Softmax plain(1, 72), times(1, 72);
        Attend(*kernels, tile, rows, plain);
        Attend(*kernels, scaled, rows, times);
        CHECK(times.output == Times(plain.output, factor));
      }
    }
  }
}

// A value beyond f16's range is stored as infinity. The tokens before it must not see that.
TEST_CASE("kernels: what a row does not see can't reach it, infinities and NaN included") {
  for (const Kernels* kernels : SupportedKernels()) {
    CAPTURE(std::string(kernels->name));
    int num_reached = 0, num_blind = 0;
    for (const Codec codec : kFloatCodecs) {
      for (const float poison : {kInfinity, -kInfinity, std::numeric_limits<float>::quiet_NaN()}) {
        std::mt19937 random(4);
        const TileShape shape{32, 24, 24, codec, codec};
        const Tile clean = RandomTile(random, shape);
        std::vector<float> k = clean.k, v = clean.v;
        for (int c = 0; c < 24; ++c) k[size_t(c * 32 + 9)] = poison, v[size_t(9 * 24 + c)] = poison;
        const Tile poisoned(shape, k, v);
        // Row 0 sees the tokens before, row 1 those after, row 2 nothing; only row 3 sees the poisoned one.
        const Rows rows{RandomNumbers(random, 4 * 24), {0, 10, 0, 8}, {9, 32, 0, 11}};
        Softmax from_clean(4, 24), from_poisoned(4, 24);
        Attend(*kernels, clean, rows, from_clean);
        Attend(*kernels, poisoned, rows, from_poisoned);
        for (int row = 0; row < 3; ++row) num_reached += !from_clean.SameRow(row, from_poisoned, row);
        num_blind += from_clean.SameRow(3, from_poisoned, 3);
      }
    }
    CHECK(num_reached == 0);
    CHECK(num_blind == 0);
  }
}

// Floats at and beside everything where rounding to f16 changes its mind.
std::vector<float> InterestingFloats() {
  std::vector<float> floats = {0.0f,       65504.0f,  65519.996f, 65520.0f,
                               65536.0f,   kInfinity, 1e-45f,     std::numeric_limits<float>::min(),
                               3.4028e38f, 0x1p-24f,  0x1p-25f,   0x1p-26f};
  for (uint32_t half = 0; half < 0x7c00; ++half) {
    const float low = F16ToF32(uint16_t(half)), high = half == 0x7bff ? 65536.0f : F16ToF32(uint16_t(half + 1));
    const float middle = (low + high) / 2;
    for (const float x : {low, std::nextafter(low, kInfinity), middle, std::nextafter(middle, 0.0f),
                          std::nextafter(middle, kInfinity)}) {
      floats.push_back(x);
    }
  }
  std::mt19937 random(5);
  for (int i = 0; i < 300000; ++i) {
    const float x = std::bit_cast<float>(uint32_t(random()));
    if (!std::isnan(x)) floats.push_back(x);
  }
  const size_t n = floats.size();
  for (size_t i = 0; i < n; ++i) floats.push_back(-floats[i]);
  floats.push_back(1.5f);  // an odd number of them: the last ones fill no vector
  return floats;
}

TEST_CASE("kernels: encode and decode agree with the codec to the last bit, at every length") {
  const std::vector<float> floats = InterestingFloats();
  for (const Kernels* kernels : SupportedKernels()) {
    CAPTURE(std::string(kernels->name));
    for (const Codec codec : kFloatCodecs) {
      CAPTURE(std::string(CodecName(codec)));
      std::vector<std::byte> wanted(CodecBytes(codec, floats.size())), got(wanted.size());
      Encode(codec, floats.data(), floats.size(), wanted.data());
      kernels->encode(codec, floats.data(), floats.size(), got.data());
      CHECK(wanted == got);
      std::vector<float> wanted_back(floats.size()), got_back(floats.size());
      Decode(codec, wanted.data(), floats.size(), wanted_back.data());
      kernels->decode(codec, wanted.data(), floats.size(), got_back.data());
      CHECK(std::memcmp(wanted_back.data(), got_back.data(), floats.size() * sizeof(float)) == 0);

      for (size_t n = 0; n <= 40; ++n) {
        std::vector<std::byte> some(CodecBytes(codec, n) + 4, std::byte{0x5a});
        kernels->encode(codec, floats.data() + 100, n, some.data());
        CHECK(std::memcmp(some.data(), wanted.data() + CodecBytes(codec, 100), CodecBytes(codec, n)) == 0);
        CHECK(some[CodecBytes(codec, n)] == std::byte{0x5a});
        std::vector<float> back(n + 1, -7.0f);
        kernels->decode(codec, some.data(), n, back.data());
        CHECK(std::equal(back.begin(), back.end() - 1, wanted_back.begin() + 100));
        CHECK(back[n] == -7.0f);
      }
    }
  }
}

TEST_CASE("kernels: NaN stays NaN in every form on every instruction set") {
  std::vector<float> nans;
  for (const uint32_t payload : {1u, 0x1000u, 0x1fffu, 0x2000u, 0x400000u, 0x7fffffu})
    for (const uint32_t sign : {0u, 0x80000000u}) nans.push_back(std::bit_cast<float>(sign | 0x7f800000u | payload));
  for (const Kernels* kernels : SupportedKernels()) {
    for (const Codec codec : kFloatCodecs) {
      std::vector<std::byte> stored(CodecBytes(codec, nans.size()));
      std::vector<float> back(nans.size());
      kernels->encode(codec, nans.data(), nans.size(), stored.data());
      kernels->decode(codec, stored.data(), nans.size(), back.data());
      CHECK(std::all_of(back.begin(), back.end(), [](float x) { return std::isnan(x); }));
    }
  }
}

// Rows as whole numbers.
template <class Number>
struct RoundedRows {
  static constexpr int kLimit = sizeof(Number) == 1 ? 127 : 8191;
  RoundedRows(const std::vector<float>& rows, int dim)
      : numbers(rows.size()), scales(rows.size() / size_t(dim)), sums(scales.size()) {
    RoundQueries(rows.data(), int(scales.size()), dim, numbers.data(), scales.data(), sums.data());
  }
  std::vector<Number> numbers;
  std::vector<float> scales;
  std::vector<int32_t> sums;
};

TEST_CASE_TEMPLATE("queries: each number is within half a unit, the largest is met, and the sums are right", Number,
                   int8_t, int16_t) {
  constexpr int kLimit = RoundedRows<Number>::kLimit;
  std::mt19937 random(17);
  double worst = 0;
  for (const int dim : {8, 24, 512}) {
    for (const float magnitude : {1e-20f, 1.0f, 1e20f}) {
      const std::vector<float> rows = RandomNumbers(random, size_t(5 * dim), magnitude);
      const RoundedRows<Number> rounded(rows, dim);
      for (int row = 0; row < 5; ++row) {
        float largest = 0;
        int largest_number = 0, sum = 0;
        const auto scale = double(rounded.scales[size_t(row)]);
        for (size_t i = size_t(row * dim); i < size_t((row + 1) * dim); ++i) {
          largest = std::max(largest, std::fabs(rows[i]));
          largest_number = std::max(largest_number, std::abs(int(rounded.numbers[i])));
          sum += rounded.numbers[i];
          worst = std::max(worst, std::fabs(double(rows[i]) / scale - double(rounded.numbers[i])));
        }
        CHECK(rounded.scales[size_t(row)] == largest / float(kLimit));
        CHECK(largest_number == kLimit);
        CHECK(rounded.sums[size_t(row)] == sum);
      }
    }
  }
  CHECK(worst < 0.501);
  CHECK(worst > 0.49);
}

TEST_CASE_TEMPLATE("queries: halves go to the even number, zeros stay, and each row has its own scale", Number, int8_t,
                   int16_t) {
  constexpr auto kLimit = float(RoundedRows<Number>::kLimit);
  const std::vector<float> rows = {0,       0,    0,     0,     0,     0,     0,     0,       //
                                   -kLimit, 0.5f, 1.5f,  2.5f,  -0.5f, -1.5f, 99.5f, 0.499f,  //
                                   0,       0,    -0.0f, 1e-9f, 0,     0,     0,     -2e-9f};
  const RoundedRows<Number> rounded(rows, 8);
  constexpr int kWhole = RoundedRows<Number>::kLimit, kHalf = (kWhole + 1) / 2;
  const std::vector<Number> wanted = {0,       0, 0, 0,     0, 0,  0,   0,  //
                                      -kWhole, 0, 2, 2,     0, -2, 100, 0,  //
                                      0,       0, 0, kHalf, 0, 0,  0,   -kWhole};
  CHECK(rounded.numbers == wanted);
  CHECK(rounded.scales == std::vector<float>{0.0f, 1.0f, 2e-9f / kLimit});
  CHECK(rounded.sums == std::vector<int32_t>{0, -kWhole + 102, kHalf - kWhole});
}

TEST_CASE_TEMPLATE(
    "queries: what is too small to be rounded, or no number, leaves whole numbers and their sum in order", Number,
    int8_t, int16_t) {
  for (const float odd : {1e-38f, 1e-42f, kNan, kInfinity}) {
    CAPTURE(odd);
    std::vector<float> row(512, odd);
    row[5] = 0.0f;
    const RoundedRows<Number> rounded(row, 512);
    int64_t sum = 0;
    double worst = 0;
    for (size_t i = 0; i < row.size(); ++i) {
      sum += rounded.numbers[i];
      worst = std::max(worst, std::fabs(double(rounded.scales[0]) * double(rounded.numbers[i]) - double(row[i])));
    }
    CHECK(rounded.sums[0] == sum);
    if (std::isfinite(odd)) CHECK(worst <= double(odd));
  }
}

TEST_CASE("kernels: probabilities are the softmax over what each row sees, and 0 elsewhere") {
  for (const Kernels* kernels : SupportedKernels()) {
    CAPTURE(kernels->name);
    std::mt19937 random(31);
    for (const auto& [block_tokens, key_dim, num_tiles] : {std::array{16, 64, 3}, {32, 80, 1}, {128, 8, 2}}) {
      const int num_tokens = block_tokens * num_tiles, num_rows = 7;
      const auto dim = size_t(key_dim);
      const auto keys = RandomNumbers(random, dim * size_t(num_tokens));
      const auto queries = RandomNumbers(random, dim * size_t(num_rows), 0.5f);
      const std::vector<int32_t> num_seen = {num_tokens, 0, 1, num_tokens - 1, 5, num_tokens / 2, 2};
      std::vector<float> out(size_t(num_rows * num_tokens), kNan);
      kernels->probabilities({.keys = keys.data(),
                              .num_tiles = num_tiles,
                              .block_tokens = block_tokens,
                              .key_dim = key_dim,
                              .num_rows = num_rows,
                              .queries = queries.data(),
                              .num_seen = num_seen.data(),
                              .out = out.data()});
      for (size_t row = 0; row < size_t(num_rows); ++row) {
        std::vector<double> weights(size_t(num_tokens), 0);
        double sum = 0;
        for (size_t t = 0; t < size_t(num_seen[row]); ++t) {
          double score = 0;
          const size_t tile = t / size_t(block_tokens), slot = t % size_t(block_tokens);
          for (size_t c = 0; c < dim; ++c)
            score += double(queries[row * dim + c]) * keys[(tile * dim + c) * size_t(block_tokens) + slot];
          sum += weights[t] = std::exp(score);
        }
        double worst = 0;
        for (size_t t = 0; t < weights.size(); ++t) {
          const double wanted = sum > 0 ? weights[t] / sum : 0;
          worst = std::max(worst, std::fabs(wanted - double(out[row * weights.size() + t])));
        }
        CHECK(worst < 1e-5);
      }
    }
  }
}

TEST_CASE("merge: two softmaxes over different tokens are the one over all of them") {
  for (const Kernels* kernels : SupportedKernels()) {
    CAPTURE(std::string(kernels->name));
    std::mt19937 random(6);
    for (const float magnitude : {0.1f, 1.0f, 30.0f}) {
      const TileShape shape{32, 64, 72, Codec::kF32, Codec::kF32};
      std::vector<Tile> tiles;
      std::vector<Rows> rows;
      const int num_rows = 7;
      Softmax total(num_rows, shape.value_dim);
      for (int t = 0; t < 6; ++t) {
        tiles.push_back(RandomTile(random, shape));
        rows.push_back(RandomRows(random, shape, num_rows, magnitude / 8));
        rows.back().queries = rows[0].queries;
        Softmax part(num_rows, shape.value_dim);
        Attend(*kernels, tiles.back(), rows.back(), part);
        MergeSoftmax(num_rows, shape.value_dim, part.rows(), total.rows());
      }
      CHECK(WorstError(tiles, rows, total) < 3e-5 * std::max(0.1f, magnitude));
    }
  }
}

TEST_CASE("merge: an empty part changes nothing, and into an empty total a part is copied") {
  std::mt19937 random(8);
  Softmax part(3, 24), empty(3, 24), total(3, 24);
  for (size_t row = 0; row < 3; ++row) {
    part.largest[row] = float(row) * 1000 - 1000;
    part.sum[row] = 1.5f;
  }
  part.output = RandomNumbers(random, 3 * 24);
  MergeSoftmax(3, 24, part.rows(), total.rows());
  for (int row = 0; row < 3; ++row) CHECK(total.SameRow(row, part, row));
  MergeSoftmax(3, 24, empty.rows(), total.rows());
  for (int row = 0; row < 3; ++row) CHECK(total.SameRow(row, part, row));
  Softmax still_empty(3, 24);
  MergeSoftmax(3, 24, empty.rows(), still_empty.rows());
  for (int row = 0; row < 3; ++row) CHECK(still_empty.SameRow(row, empty, row));
}

TEST_CASE("kernels: scores of bf16 keys alone, for any number of rows") {
  std::mt19937 random(71);
  for (const int block_tokens : {32, 64, 128}) {
    for (const int key_dim : {8, 80, 128}) {
      std::vector<float> keys = RandomNumbers(random, size_t(key_dim * block_tokens));
      std::vector<std::byte> stored;
      Tile::Store(Codec::kBf16, keys, stored);
      for (int num_rows = 1; num_rows <= 9; ++num_rows) {
        const std::vector<float> queries = RandomNumbers(random, size_t(num_rows * key_dim));
        TileStep step{};
        step.k = stored.data();
        step.block_tokens = block_tokens;
        step.key_dim = key_dim;
        step.num_rows = num_rows;
        step.queries = queries.data();
        for (const Kernels* kernels : SupportedKernels()) {
          std::vector<float> scores(size_t(num_rows * block_tokens), kNan);
          kernels->score_bf16(step, scores.data());
          double worst = 0;
          for (int i = 0; i < num_rows * block_tokens; ++i) {
            double score = 0;
            for (int c = 0; c < key_dim; ++c)
              score += double(queries[size_t(i / block_tokens * key_dim + c)]) *
                       keys[size_t(c * block_tokens + i % block_tokens)];
            const double error = std::fabs(score - double(scores[size_t(i)]));
            worst = std::isnan(error) ? kInfinity : std::max(worst, error);
          }
          CHECK(worst < 5e-5);
        }
      }
    }
  }
}

class EnvironmentVariable {
 public:
  explicit EnvironmentVariable(const char* name) : name_(name) {
    if (const char* value = std::getenv(name)) before_ = value;
  }
  ~EnvironmentVariable() {
    if (before_.empty())
      unsetenv(name_);
    else
      Set(before_.c_str());
  }
  void Set(const char* value) { setenv(name_, value, 1); }

 private:
  const char* name_;
  std::string before_;
};

TEST_CASE("kernels: KVIST_ISA chooses one, and an unknown one is an error that lists what is there") {
  EnvironmentVariable isa("KVIST_ISA");
  REQUIRE(std::string(SupportedKernels().front()->name) == "scalar");
  for (const Kernels* kernels : SupportedKernels()) {
    isa.Set(kernels->name);
    CHECK(ChooseKernels().value() == kernels);
  }
  isa.Set("");
  CHECK(ChooseKernels().value() == SupportedKernels().back());
  isa.Set("mmx");
  const auto refused = ChooseKernels();
  REQUIRE(!refused);
  CHECK(refused.error().code == ErrorCode::kUnsupported);
  CHECK(refused.error().message.find("mmx") != std::string::npos);
  CHECK(refused.error().message.find("scalar") != std::string::npos);
}

}  // namespace
}  // namespace kvist::kernels_test
