// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "kvist/geometry.h"

#include <doctest/doctest.h>

#include <cmath>
#include <iterator>
#include <limits>
#include <string>
#include <vector>

#include "base/address_range.h"
#include "codec/block_layout.h"
#include "codec/tile.h"

namespace kvist::geometry_test {
namespace {

LayerGeometry Layer(int window = 0) {
  return {.num_query_heads = 4, .num_kv_heads = 2, .key_dim = 64, .value_dim = 32, .window = window, .rope = {}};
}

CacheGeometry Geometry() {
  return {.block_tokens = 32, .layers = {Layer(), Layer(128), Layer()}};
}

void CheckRefused(const CacheGeometry& geometry, const char* word) {
  const Status status = geometry.Validate();
  REQUIRE(!status);
  CHECK(status.error().code == ErrorCode::kInvalidArgument);
  CHECK(status.error().message.find(word) != std::string::npos);
}

template <class Change>
void CheckLayerRefused(const char* word, Change change) {
  CacheGeometry geometry = Geometry();
  change(geometry.layers[1]);
  CAPTURE(std::string(word));
  CheckRefused(geometry, word);
  CheckRefused(geometry, "layer 1");
}

TEST_CASE("geometry: a valid one is accepted at the limits of every field") {
  CHECK(Geometry().Validate());
  CacheGeometry geometry = Geometry();
  for (const int block_tokens : {16, 32, 64, 128}) {
    geometry.block_tokens = block_tokens;
    CHECK(geometry.Validate());
  }
  geometry.layers[0].key_dim = geometry.layers[0].value_dim = kMaxHeadDim;
  geometry.layers[0].rope = {.dims = kMaxHeadDim, .frequency_factors = std::vector<float>(kMaxHeadDim / 2, 1.0f)};
  geometry.layers[1].key_dim = geometry.layers[1].value_dim = 8;
  geometry.layers[1].window = 1;
  geometry.layers[2].num_query_heads = 1024;
  geometry.layers[2].num_kv_heads = 1;
  CHECK(geometry.Validate());
}

TEST_CASE("geometry: what is out of range is named") {
  CacheGeometry geometry = Geometry();
  for (const int block_tokens : {0, -32, 1, 8, 24, 48, 256}) {
    geometry.block_tokens = block_tokens;
    CheckRefused(geometry, "block_tokens");
  }
  CheckRefused({.layers = {}}, "layers");
  CheckRefused({.layers = std::vector<LayerGeometry>(1025, Layer())}, "layers");
  for (const int heads : {0, -1, 1025}) {
    CheckLayerRefused("num_kv_heads", [=](LayerGeometry& layer) { layer.num_kv_heads = heads; });
  }
  for (const int heads : {0, -2, 3, 1026}) {
    CheckLayerRefused("num_query_heads", [=](LayerGeometry& layer) { layer.num_query_heads = heads; });
  }
  for (const int dim : {0, -8, 4, 12, 513, 520}) {
    CheckLayerRefused("key_dim", [=](LayerGeometry& layer) { layer.key_dim = dim; });
    CheckLayerRefused("value_dim", [=](LayerGeometry& layer) { layer.value_dim = dim; });
  }
  CheckLayerRefused("window", [](LayerGeometry& layer) { layer.window = -1; });
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  for (const float scale : {nan, infinity, -infinity}) {
    CheckLayerRefused("attention_scale", [=](LayerGeometry& layer) { layer.attention_scale = scale; });
  }
  for (const int dims : {-2, 3, 66}) {
    CheckLayerRefused("rope.dims", [=](LayerGeometry& layer) { layer.rope.dims = dims; });
  }
  for (const float base : {0.0f, -1.0f, nan, infinity}) {
    CheckLayerRefused("rope.base", [=](LayerGeometry& layer) { layer.rope.dims = 8, layer.rope.base = base; });
  }
  CheckLayerRefused("frequency_factors", [](LayerGeometry& layer) {
    layer.rope = {.dims = 8, .frequency_factors = {1.0f, 1.0f, 1.0f}};
  });
}

// They are divisors: a zero would turn keys by infinity.
TEST_CASE("geometry: frequency factors must be positive numbers") {
  for (const float factor :
       {0.0f, -1.0f, std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    CAPTURE(factor);
    CheckLayerRefused("frequency_factors", [=](LayerGeometry& layer) {
      layer.rope = {.dims = 4, .frequency_factors = {1.0f, factor}};
    });
  }
}

TEST_CASE("geometry: form names go there and back") {
  for (const Codec k : kAllCodecs) {
    for (const Codec v : kAllCodecs) {
      const auto parsed = ParseForm(FormName({k, v}));
      REQUIRE(parsed);
      CHECK(*parsed == Form{k, v});
    }
  }
  CHECK(FormName({Codec::kF16, Codec::kF16}) == "f16");
  CHECK(FormName({Codec::kF16, Codec::kBf16}) == "f16/bf16");
  CHECK(FormName({Codec::kQ4, Codec::kQ4}) == "q4");
  CHECK(FormName({Codec::kQ8, Codec::kQ4}) == "q8/q4");
  for (const char* wrong : {"", "f64", "F16", "f16/", "/f16", "f16/f16/f16", "f16 ", "q", "q1", "q7", "Q4", "q4_0"}) {
    CAPTURE(std::string(wrong));
    const auto parsed = ParseForm(wrong);
    REQUIRE(!parsed);
    CHECK(parsed.error().code == ErrorCode::kInvalidArgument);
    CHECK(parsed.error().message.find("f32, f16, bf16, q8, q6, q5, q4, q3, q2") != std::string::npos);
  }
}

TEST_CASE("geometry: a form is quantised if K or V is, and such tokens are open in f16") {
  for (const Codec k : kAllCodecs) {
    for (const Codec v : kAllCodecs) {
      const Form form{k, v}, open = OpenForm(form);
      CHECK(IsQuantised(form) == (IsQuantised(k) || IsQuantised(v)));
      CHECK(open.k == (std::string(CodecName(k))[0] == 'q' ? Codec::kF16 : k));
      CHECK(open.v == (std::string(CodecName(v))[0] == 'q' ? Codec::kF16 : v));
    }
  }
}

TEST_CASE("geometry: bytes per token and bits per number") {
  CHECK(Geometry().BytesPerToken({Codec::kF16, Codec::kF16}) == 3 * 2 * (64 + 32) * 2);
  CHECK(Geometry().BytesPerToken({Codec::kF32, Codec::kBf16}) == 3 * 2 * (64 * 4 + 32 * 2));
  CHECK(Geometry().BitsPerNumber({Codec::kF16, Codec::kF16}) == 16);
  // A K tile of q4: scales, mean, its scale, codes, up to a multiple of 16; a V tile: scales and codes.
  constexpr size_t kKeyBytes = 64 + 64 + 4 + 1024 + 12, kValueBytes = 64 + 512;
  CHECK(Geometry().BytesPerToken({Codec::kQ4, Codec::kQ4}) == 3 * 2 * (kKeyBytes + kValueBytes) / 32);
  CHECK(Geometry().BytesPerToken({Codec::kF16, Codec::kQ4}) == 3 * 2 * (64 * 2 * 32 + kValueBytes) / 32);
  // 4 bits, the scales' 16 a row, and of keys the mean's 8 a channel.
  CHECK(Geometry().BitsPerNumber({Codec::kQ4, Codec::kQ4}) > 4 + (2 * 16 + 64 * 8 / 32.0) / (64 + 32));
  CHECK(Geometry().BitsPerNumber({Codec::kQ4, Codec::kQ4}) < 4 + (2 * 16 + 64 * 8 / 32.0) / (64 + 32) + 0.05);
  // The finer, the larger.
  for (size_t i = 2; i + 1 < std::size(kAllCodecs); ++i) {
    const Codec finer = kAllCodecs[i], coarser = kAllCodecs[i + 1];
    CHECK(Geometry().BitsPerNumber({finer, finer}) >= Geometry().BitsPerNumber({coarser, coarser}) + 1);
  }
  // A token of few and short heads is not a whole number of bytes: rounded up.
  LayerGeometry small = Layer();
  small.num_kv_heads = 1, small.key_dim = 24, small.value_dim = 8;
  const CacheGeometry odd{.block_tokens = 128, .layers = {small}};
  CHECK(odd.BytesPerToken({Codec::kQ5, Codec::kQ5}) == (256 + 24 + 4 + 1920 + 4 + 256 + 640 + 127) / 128);
}

TEST_CASE("block layout: layers of one window share a group, and tiles lie apart, aligned, inside the block") {
  CacheGeometry geometry = Geometry();
  geometry.layers.push_back(Layer(128));
  geometry.layers[3].key_dim = 8;
  for (const Codec k : {Codec::kF32, Codec::kF16}) {
    for (const int block_tokens : {16, 32, 64, 128}) {
      geometry.block_tokens = block_tokens;
      const auto groups = LayOutGroups(geometry, {k, Codec::kBf16});
      REQUIRE(groups.size() == 2);
      CHECK(groups[0].window == 0);
      CHECK(groups[1].window == 128);
      for (const BlockLayout& group : groups) {
        REQUIRE(group.layers.size() == 2);
        CHECK(group.block_bytes % PageBytes() == 0);
        size_t end = 0;
        for (const BlockLayout::Layer& place : group.layers) {
          const LayerGeometry& layer = geometry.layers[size_t(place.layer)];
          CHECK(layer.window == group.window);
          for (int head = 0; head < layer.num_kv_heads; ++head) {
            CHECK(place.k_offset_bytes(head) >= end);
            CHECK(place.k_offset_bytes(head) % 64 == 0);
            CHECK(place.v_offset_bytes(head) % 64 == 0);
            CHECK(place.v_offset_bytes(head) >=
                  place.k_offset_bytes(head) + size_t(block_tokens * layer.key_dim) * (k == Codec::kF32 ? 4 : 2));
            end = place.v_offset_bytes(head) + size_t(block_tokens * layer.value_dim) * 2;
          }
        }
        CHECK(end <= group.block_bytes);
        CHECK(group.block_bytes - end < PageBytes());
      }
    }
  }
}

TEST_CASE("block layout: each layer may have its own form, and quantised ones lie closer") {
  const CacheGeometry geometry = Geometry();  // layers 0 and 2 share a group
  for (const Codec k : kAllCodecs) {
    for (const Codec v : kAllCodecs) {
      const std::vector<Form> forms = {{k, v}, {v, k}, {Codec::kF16, Codec::kF16}};
      const auto groups = LayOutGroups(geometry, forms);
      REQUIRE(groups.size() == 2);
      REQUIRE(groups[0].layers.size() == 2);
      CHECK(groups[0].layers[0].form == forms[0]);
      CHECK(groups[0].layers[1].form == forms[2]);
      CHECK(groups[1].layers[0].form == forms[1]);
      const BlockLayout::Layer &first = groups[0].layers[0], &second = groups[0].layers[1];
      const size_t alignment = IsQuantised(forms[0]) ? 16 : 64;
      CHECK(first.k_tile_bytes >= KTileBytes(k, 64, 32));
      CHECK(first.k_tile_bytes < KTileBytes(k, 64, 32) + alignment);
      CHECK(first.v_tile_bytes >= VTileBytes(v, 32, 32));
      CHECK(first.v_tile_bytes < VTileBytes(v, 32, 32) + alignment);
      if (IsQuantised(k)) CHECK(first.k_quantised.num_bytes == KTileBytes(k, 64, 32));
      if (IsQuantised(v)) CHECK(first.v_quantised.num_bytes == VTileBytes(v, 32, 32));
      for (int head = 0; head < 2; ++head) {
        CHECK(first.k_offset_bytes(head) % alignment == 0);
        CHECK(first.v_offset_bytes(head) % alignment == 0);
        CHECK(first.v_offset_bytes(head) >= first.k_offset_bytes(head) + first.k_tile_bytes);
        CHECK(second.k_offset_bytes(head) % 64 == 0);  // floats beside a quantised layer
        CHECK(second.k_offset_bytes(0) >= first.v_offset_bytes(head) + first.v_tile_bytes);
      }
      CHECK(second.v_offset_bytes(1) + second.v_tile_bytes <= groups[0].block_bytes);
    }
  }
}

}  // namespace
}  // namespace kvist::geometry_test
