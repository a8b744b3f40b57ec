// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "kernels/kernels.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "base/half.h"
#include "codec/tile.h"

namespace kvist {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr Codec kCodecs[] = {Codec::kF32, Codec::kF16, Codec::kBf16};

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

// A tile as it is stored, beside the numbers that its stored form stands for.
struct Tile {
  Tile(const TileShape& shape_in, std::vector<float> k_in, std::vector<float> v_in)
      : shape(shape_in), k(std::move(k_in)), v(std::move(v_in)) {
    Store(shape.k_codec, k, k_stored);
    Store(shape.v_codec, v, v_stored);
  }
  static void Store(Codec codec, std::vector<float>& numbers, std::vector<std::byte>& stored) {
    stored.resize(CodecBytes(codec, numbers.size()));
    Encode(codec, numbers.data(), numbers.size(), stored.data());
    Decode(codec, stored.data(), numbers.size(), numbers.data());
  }
  // Its decoded numbers as an f32 tile.
  Tile InF32() const {
    return Tile({shape.block_tokens, shape.key_dim, shape.value_dim, Codec::kF32, Codec::kF32}, k, v);
  }

  TileShape shape;
  std::vector<float> k;  // [key_dim][block_tokens]
  std::vector<float> v;  // [block_tokens][value_dim]
  std::vector<std::byte> k_stored, v_stored;
};

Tile RandomTile(std::mt19937& random, const TileShape& shape) {
  return Tile(shape, RandomNumbers(random, size_t(shape.key_dim * shape.block_tokens)),
              RandomNumbers(random, size_t(shape.block_tokens * shape.value_dim)));
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

void Attend(const Kernels& kernels, const Tile& tile, const Rows& rows, Softmax& softmax) {
  TileStep step{};
  step.k = tile.k_stored.data();
  step.v = tile.v_stored.data();
  step.k_codec = tile.shape.k_codec;
  step.v_codec = tile.shape.v_codec;
  step.block_tokens = tile.shape.block_tokens;
  step.key_dim = tile.shape.key_dim;
  step.value_dim = tile.shape.value_dim;
  step.num_rows = rows.count();
  step.queries = rows.queries.data();
  step.first_slot = rows.first_slot.data();
  step.end_slot = rows.end_slot.data();
  step.rows = softmax.rows();
  kernels.attend_tile(step);
}

// Attention of one row over all it sees in some tiles, in double precision.
struct Reference {
  double largest = -std::numeric_limits<double>::infinity();
  double sum = 0;
  std::vector<double> output;
};

Reference AttendInDouble(const std::vector<Tile>& tiles, const std::vector<Rows>& rows_of_tile, int row) {
  const TileShape& shape = tiles[0].shape;
  Reference result;
  result.output.resize(size_t(shape.value_dim));
  std::vector<double> scores;
  auto for_each_visible = [&](auto visit) {
    for (size_t t = 0; t < tiles.size(); ++t)
      for (int slot = rows_of_tile[t].first_slot[size_t(row)]; slot < rows_of_tile[t].end_slot[size_t(row)]; ++slot)
        visit(tiles[t], rows_of_tile[t].queries.data() + row * shape.key_dim, slot);
  };
  for_each_visible([&](const Tile& tile, const float* query, int slot) {
    double score = 0;
    for (int c = 0; c < shape.key_dim; ++c)
      score += double(query[c]) * double(tile.k[size_t(c * shape.block_tokens + slot)]);
    scores.push_back(score);
    result.largest = std::max(result.largest, score);
  });
  size_t next = 0;
  for_each_visible([&](const Tile& tile, const float*, int slot) {
    const double weight = std::exp(scores[next++] - result.largest);
    result.sum += weight;
    for (int c = 0; c < shape.value_dim; ++c)
      result.output[size_t(c)] += weight * double(tile.v[size_t(slot * shape.value_dim + c)]);
  });
  return result;
}

// The largest difference of the rows' normalised outputs, sums and maxima from the reference, in units of 1.
double WorstError(const std::vector<Tile>& tiles, const std::vector<Rows>& rows_of_tile, const Softmax& softmax) {
  double worst = 0;
  for (int row = 0; row < rows_of_tile[0].count(); ++row) {
    const Reference reference = AttendInDouble(tiles, rows_of_tile, row);
    const float largest = softmax.largest[size_t(row)], sum = softmax.sum[size_t(row)];
    if (reference.sum == 0) {
      bool empty = largest == -kInfinity && sum == 0;
      for (int c = 0; c < softmax.value_dim; ++c) empty &= softmax.output[size_t(row * softmax.value_dim + c)] == 0;
      if (!empty) worst = 1000;
      continue;
    }
    auto note = [&](double error) { worst = std::isnan(error) ? 1000 : std::max(worst, std::fabs(error)); };
    note((double(largest) - reference.largest) / std::max(1.0, std::fabs(reference.largest)));
    note(double(sum) / reference.sum - 1);
    for (int c = 0; c < softmax.value_dim; ++c) {
      note(double(softmax.output[size_t(row * softmax.value_dim + c)]) / double(sum) -
           reference.output[size_t(c)] / reference.sum);
    }
  }
  return worst;
}

std::vector<TileShape> OddShapes(std::mt19937& random) {
  std::vector<TileShape> shapes;
  constexpr int kDims[] = {8, 24, 64, 72, 80, 96, 128, 256, 512};
  for (const int block_tokens : {16, 32, 64, 128}) {
    for (const int key_dim : kDims) {
      shapes.push_back({block_tokens, key_dim, kDims[random() % 9], kCodecs[random() % 3], kCodecs[random() % 3]});
    }
    for (const Codec k : kCodecs)
      for (const Codec v : kCodecs) shapes.push_back({block_tokens, 24, 72, k, v});
  }
  return shapes;
}

TEST_CASE("kernels: attention over two tiles is right for odd shapes, all codecs and every number of rows") {
  for (const Kernels* kernels : SupportedKernels()) {
    std::mt19937 random(1);
    double worst = 0;
    for (const TileShape& shape : OddShapes(random)) {
      CAPTURE(shape.block_tokens);
      CAPTURE(shape.key_dim);
      CAPTURE(shape.value_dim);
      for (int num_rows = 1; num_rows <= 17; num_rows += shape.key_dim > 100 ? 5 : 1) {
        const std::vector<Tile> tiles = {RandomTile(random, shape), RandomTile(random, shape)};
        const float magnitude = 2.0f / std::sqrt(float(shape.key_dim));
        std::vector<Rows> rows = {RandomRows(random, shape, num_rows, magnitude),
                                  RandomRows(random, shape, num_rows, magnitude)};
        rows[1].queries = rows[0].queries;
        Softmax softmax(num_rows, shape.value_dim);
        for (size_t t = 0; t < 2; ++t) Attend(*kernels, tiles[t], rows[t], softmax);
        const double error = WorstError(tiles, rows, softmax);
        CHECK(error < 5e-6);
        worst = std::max(worst, error);
      }
    }
    CAPTURE(std::string(kernels->name));
    CHECK(worst > 1e-8);  // f32 can't be better: the reference would be comparing itself
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
      CAPTURE(shape.block_tokens);
      CAPTURE(shape.key_dim);
      CAPTURE(shape.value_dim);
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

// A value beyond f16's range is stored as infinity. The tokens before it must not see that.
TEST_CASE("kernels: what a row does not see can't reach it, infinities and NaN included") {
  for (const Kernels* kernels : SupportedKernels()) {
    CAPTURE(std::string(kernels->name));
    int num_reached = 0, num_blind = 0;
    for (const Codec codec : kCodecs) {
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
    for (const Codec codec : kCodecs) {
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
    for (const Codec codec : kCodecs) {
      std::vector<std::byte> stored(CodecBytes(codec, nans.size()));
      std::vector<float> back(nans.size());
      kernels->encode(codec, nans.data(), nans.size(), stored.data());
      kernels->decode(codec, stored.data(), nans.size(), back.data());
      CHECK(std::all_of(back.begin(), back.end(), [](float x) { return std::isnan(x); }));
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
}  // namespace kvist
