// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "codec/tile.h"

#include <doctest/doctest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "codec/quantised_tile.h"

namespace kvist::tile_test {
namespace {

constexpr Codec kCodecs[] = {Codec::kF32, Codec::kF16, Codec::kBf16};

std::vector<float> RandomNumbers(size_t n, float magnitude) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0, magnitude);
  std::vector<float> numbers(n);
  for (float& x : numbers) x = normal(random);
  return numbers;
}

TEST_CASE("tile: a codec's error is within its bound, and no better than its bits allow") {
  for (const Codec codec : kCodecs) {
    CAPTURE(std::string(CodecName(codec)));
    const double bound = codec == Codec::kF32 ? 0 : codec == Codec::kF16 ? 0x1p-11 : 0x1p-8;
    const auto numbers = RandomNumbers(10000, 3.0f);
    std::vector<std::byte> stored(CodecBytes(codec, numbers.size()));
    std::vector<float> decoded(numbers.size());
    Encode(codec, numbers.data(), numbers.size(), stored.data());
    Decode(codec, stored.data(), numbers.size(), decoded.data());
    double worst = 0;
    for (size_t i = 0; i < numbers.size(); ++i) {
      if (std::fabs(numbers[i]) < 6.2e-5f) continue;
      worst = std::max(worst, std::fabs(double(decoded[i]) - double(numbers[i])) / std::fabs(double(numbers[i])));
    }
    CHECK(worst <= bound);
    CHECK(worst >= 0.45 * bound);
  }
}

TEST_CASE("tile: encoding what was decoded changes nothing") {
  for (const Codec codec : kCodecs) {
    const auto numbers = RandomNumbers(1000, 100.0f);
    std::vector<std::byte> once(CodecBytes(codec, numbers.size())), twice(once.size());
    std::vector<float> decoded(numbers.size());
    Encode(codec, numbers.data(), numbers.size(), once.data());
    Decode(codec, once.data(), numbers.size(), decoded.data());
    Encode(codec, decoded.data(), decoded.size(), twice.data());
    CHECK(once == twice);
  }
}

TEST_CASE("tile: key rows become columns, and only their own") {
  for (const Codec codec : kCodecs) {
    for (const int block_tokens : {16, 32, 64, 128}) {
      const int dim = 24;
      std::vector<std::byte> tile(CodecBytes(codec, size_t(dim * block_tokens)));
      const auto numbers = RandomNumbers(size_t(dim * block_tokens), 1.0f);
      std::vector<std::byte> row(CodecBytes(codec, size_t(dim))), gathered(row.size());
      for (int slot = block_tokens - 1; slot >= 0; --slot) {
        Encode(codec, numbers.data() + slot * dim, size_t(dim), row.data());
        ScatterKeyRow(codec, row.data(), dim, block_tokens, slot, tile.data());
      }
      std::vector<float> decoded(numbers.size()), wanted(size_t{1});
      Decode(codec, tile.data(), decoded.size(), decoded.data());
      for (int slot = 0; slot < block_tokens; ++slot) {
        Encode(codec, numbers.data() + slot * dim, size_t(dim), row.data());
        GatherKeyRow(codec, tile.data(), dim, block_tokens, slot, gathered.data());
        CHECK(gathered == row);
        Decode(codec, row.data() + CodecBytes(codec, 5), 1, wanted.data());
        CHECK(decoded[size_t(5 * block_tokens + slot)] == wanted[0]);  // channel-major
      }
    }
  }
}

TEST_CASE("tile: its bytes are those of its numbers, of a quantised one those of its layout, in sixteens") {
  CHECK(KTileBytes(Codec::kF32, 64, 32) == 64 * 32 * 4);
  CHECK(VTileBytes(Codec::kF16, 80, 16) == 80 * 16 * 2);
  CHECK(VTileBytes(Codec::kBf16, 8, 16) == 8 * 16 * 2);
  CHECK(KTileBytes(Codec::kQ4, 64, 32) == 64 + 64 + 4 + 1024 + 12);  // scales, mean, its scale, codes, up to 16
  CHECK(VTileBytes(Codec::kQ4, 64, 32) == 64 + 1024);
  for (const Codec codec : kAllCodecs) {
    CAPTURE(std::string(CodecName(codec)));
    for (const int dim : {8, 24, 72, 512}) {
      for (const int block_tokens : {16, 128}) {
        const size_t k_bytes = KTileBytes(codec, dim, block_tokens), v_bytes = VTileBytes(codec, dim, block_tokens);
        CHECK(k_bytes % 16 == 0);
        CHECK(v_bytes % 16 == 0);
        if (!IsQuantised(codec)) {
          CHECK(k_bytes == CodecBytes(codec, size_t(dim * block_tokens)));
          CHECK(v_bytes == k_bytes);
        } else {
          CHECK(k_bytes == QuantisedTile::OfKeys(codec, dim, block_tokens).num_bytes);
          CHECK(v_bytes == QuantisedTile::OfValues(codec, dim, block_tokens).num_bytes);
          CHECK(v_bytes < k_bytes);  // K has means
        }
      }
    }
  }
}

}  // namespace
}  // namespace kvist::tile_test
