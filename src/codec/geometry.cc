// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "kvist/geometry.h"

#include <algorithm>
#include <cmath>

#include "codec/tile.h"

namespace kvist {
namespace {

Result<Codec> ParseCodec(std::string_view name) {
  std::string known;
  for (Codec codec : kAllCodecs) {
    if (name == CodecName(codec)) return codec;
    known += std::string(known.empty() ? "" : ", ") + CodecName(codec);
  }
  return Fail(ErrorCode::kInvalidArgument,
              "unknown form '" + std::string(name) + "'; known: " + known + "; K and V apart as in f16/bf16");
}

Status CheckRope(const RopeSpec& rope, int key_dim, const std::string& where) {
  if (rope.dims < 0 || rope.dims > key_dim || rope.dims % 2 != 0) {
    return Fail(ErrorCode::kInvalidArgument,
                where + "rope.dims must be even and between 0 and key_dim, is " + std::to_string(rope.dims));
  }
  if (rope.dims > 0 && !(rope.base > 0 && std::isfinite(rope.base) && std::isfinite(rope.position_scale))) {
    return Fail(ErrorCode::kInvalidArgument, where + "rope.base must be a positive number");
  }
  if (!rope.frequency_factors.empty() && rope.frequency_factors.size() != size_t(rope.dims) / 2) {
    return Fail(ErrorCode::kInvalidArgument, where + "rope.frequency_factors must be empty or rope.dims / 2 numbers");
  }
  if (!std::ranges::all_of(rope.frequency_factors, [](float factor) { return factor > 0 && std::isfinite(factor); })) {
    return Fail(ErrorCode::kInvalidArgument, where + "rope.frequency_factors must be positive numbers");
  }
  return {};
}

Status CheckLayer(const LayerGeometry& layer, size_t index) {
  const std::string where = "layer " + std::to_string(index) + ": ";
  auto head_dim_is_fine = [](int dim) { return dim > 0 && dim <= kMaxHeadDim && dim % 8 == 0; };
  if (layer.num_kv_heads < 1 || layer.num_kv_heads > 1024) {
    return Fail(ErrorCode::kInvalidArgument,
                where + "num_kv_heads must be between 1 and 1024, is " + std::to_string(layer.num_kv_heads));
  }
  if (layer.num_query_heads < 1 || layer.num_query_heads > 1024 || layer.num_query_heads % layer.num_kv_heads != 0) {
    return Fail(ErrorCode::kInvalidArgument, where + "num_query_heads must be a multiple of num_kv_heads (" +
                                                 std::to_string(layer.num_kv_heads) + ") up to 1024, is " +
                                                 std::to_string(layer.num_query_heads));
  }
  if (!head_dim_is_fine(layer.key_dim) || !head_dim_is_fine(layer.value_dim)) {
    return Fail(ErrorCode::kInvalidArgument,
                where + "key_dim and value_dim must be multiples of 8 up to " + std::to_string(kMaxHeadDim) + ", are " +
                    std::to_string(layer.key_dim) + " and " + std::to_string(layer.value_dim));
  }
  if (layer.window < 0) return Fail(ErrorCode::kInvalidArgument, where + "window must be 0 (full) or more");
  if (!std::isfinite(layer.attention_scale)) {
    return Fail(ErrorCode::kInvalidArgument, where + "attention_scale must be a number");
  }
  return CheckRope(layer.rope, layer.key_dim, where);
}

}  // namespace

float LayerGeometry::score_scale() const {
  return attention_scale != 0.0f ? attention_scale : 1.0f / std::sqrt(float(key_dim));
}

const char* CodecName(Codec codec) {
  constexpr const char* kNames[] = {"f32", "f16", "bf16", "q8", "q6", "q5", "q4", "q3", "q2"};
  return kNames[size_t(codec)];
}

std::string FormName(Form form) {
  if (form.k == form.v) return CodecName(form.k);
  return std::string(CodecName(form.k)) + "/" + CodecName(form.v);
}

Result<Form> ParseForm(std::string_view name) {
  const size_t slash = name.find('/');
  KVIST_TRY(const Codec k, ParseCodec(name.substr(0, slash)));
  if (slash == std::string_view::npos) return Form{k, k};
  KVIST_TRY(const Codec v, ParseCodec(name.substr(slash + 1)));
  return Form{k, v};
}

Status CacheGeometry::Validate() const {
  if (block_tokens != 16 && block_tokens != 32 && block_tokens != 64 && block_tokens != 128) {
    return Fail(ErrorCode::kInvalidArgument,
                "block_tokens must be 16, 32, 64 or 128, is " + std::to_string(block_tokens));
  }
  if (layers.empty() || layers.size() > 1024) {
    return Fail(ErrorCode::kInvalidArgument, "a geometry has 1 to 1024 layers, not " + std::to_string(layers.size()));
  }
  for (size_t i = 0; i < layers.size(); ++i) KVIST_TRY_VOID(CheckLayer(layers[i], i));
  return {};
}

size_t CacheGeometry::BytesPerToken(Form form) const {
  size_t block_bytes = 0;
  for (const LayerGeometry& layer : layers) {
    block_bytes += size_t(layer.num_kv_heads) * (KTileBytes(form.k, layer.key_dim, block_tokens) +
                                                 VTileBytes(form.v, layer.value_dim, block_tokens));
  }
  return (block_bytes + size_t(block_tokens) - 1) / size_t(block_tokens);
}

double CacheGeometry::BitsPerNumber(Form form) const {
  size_t num_numbers = 0;
  for (const LayerGeometry& layer : layers) {
    num_numbers += size_t(layer.num_kv_heads) * size_t(layer.key_dim + layer.value_dim);
  }
  return double(BytesPerToken(form) * 8) / double(num_numbers);
}

}  // namespace kvist
