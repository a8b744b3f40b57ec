// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kvist/error.h"

namespace kvist {

// How the numbers of one tile are stored. Layout, range and error bound of each: docs/formats.md. Those with a q are
// quantised: so many bits a number, and half a bit (K) or a quarter (V) for scales at 64 channels.
enum class Codec : uint8_t { kF32, kF16, kBf16, kQ8, kQ6, kQ5, kQ4, kQ3, kQ2 };

// All there are, finest first.
inline constexpr Codec kAllCodecs[] = {Codec::kF32, Codec::kF16, Codec::kBf16, Codec::kQ8, Codec::kQ6,
                                       Codec::kQ5,  Codec::kQ4,  Codec::kQ3,   Codec::kQ2};
constexpr bool IsQuantised(Codec codec) {
  return codec >= Codec::kQ8;
}
const char* CodecName(Codec codec);  // "f16", "q4", ...

// The codecs of a block's K and V tiles.
struct Form {
  Codec k = Codec::kF16;
  Codec v = Codec::kF16;
  bool operator==(const Form&) const = default;
};
constexpr bool IsQuantised(Form form) {
  return IsQuantised(form.k) || IsQuantised(form.v);
}
// What tokens of this form are stored as until their block is sealed: f16 where the form is quantised.
constexpr Form OpenForm(Form form) {
  return {IsQuantised(form.k) ? Codec::kF16 : form.k, IsQuantised(form.v) ? Codec::kF16 : form.v};
}

// "f16", or "f16/bf16" when K and V differ.
std::string FormName(Form form);
// The inverse. kInvalidArgument names the known codecs.
Result<Form> ParseForm(std::string_view name);

// Which channels a rotary embedding turns together.
enum class RopePairing : uint8_t {
  kAdjacent,  // (0, 1), (2, 3), ...          Llama's own layout in GGUF
  kHalves,    // (0, n/2), (1, n/2 + 1), ...  GPT-NeoX; Qwen, Gemma, Phi
};

// Rotary position embedding: channel pair i turns by  position * position_scale * base^(-2i/dims) / factor[i].
// The cache needs it only to reuse keys at another position (it turns the query back instead).
struct RopeSpec {
  int dims = 0;  // channels turned, from channel 0; 0: no rotary embedding
  float base = 10000.0f;
  float position_scale = 1.0f;
  RopePairing pairing = RopePairing::kAdjacent;
  std::vector<float> frequency_factors = {};  // empty, or dims / 2 values
  bool operator==(const RopeSpec&) const = default;
};

struct LayerGeometry {
  int num_query_heads = 0;
  int num_kv_heads = 0;          // divides num_query_heads; query head h reads KV head h / (query heads per KV head)
  int key_dim = 0;               // multiple of 8, at most kMaxHeadDim
  int value_dim = 0;             // likewise
  int window = 0;                // tokens a query sees, itself included; 0: all before it
  float attention_scale = 0.0f;  // factor on q.k; 0: 1 / sqrt(key_dim)
  RopeSpec rope = {};

  float score_scale() const;  // the factor on q.k that attention_scale stands for
  int num_heads_per_kv_head() const { return num_query_heads / num_kv_heads; }
};

inline constexpr int kMaxHeadDim = 512;

// The shape of what is cached. Every size and stride in Kvist is derived from it.
struct CacheGeometry {
  int block_tokens = 32;  // 16, 32, 64 or 128
  std::vector<LayerGeometry> layers = {};

  // kInvalidArgument names the first field that is out of range.
  Status Validate() const;
  // Bytes that one token's keys and values take over all layers, scales included, once its block is sealed: what is
  // stored, not what a budget has to allow for (kv_size.h).
  size_t BytesPerToken(Form form) const;
  // Of the same, the bits a stored number takes.
  double BitsPerNumber(Form form) const;
};

}  // namespace kvist
