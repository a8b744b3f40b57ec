// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kvist/error.h"
#include "kvist/geometry.h"
#include "model/gguf.h"

namespace kvist {

enum class Activation : uint8_t {
  kSilu,      // x / (1 + e^-x)
  kGeluTanh,  // Gaussian error linear unit, tanh approximation
};

// What a model file says about its own shape, read and checked. The families are one graph (graph.cc) with the
// switches below; a family is a row of a table in model_config.cc, not a class.
struct ModelConfig {
  std::string architecture;  // as in the file: "llama", "gemma3", ...
  std::string name;          // for people; may be empty
  int context_length = 0;    // tokens the model was trained to see
  int num_embedding = 0;     // width of a token's state between layers
  int num_feed_forward = 0;
  int num_vocabulary = 0;
  int num_query_heads = 0;  // the same in every layer, as the next three
  int num_kv_heads = 0;
  int key_dim = 0;
  int value_dim = 0;
  float norm_epsilon = 0.0F;
  float embedding_scale = 1.0F;  // on the embedding of a token
  Activation activation = Activation::kSilu;
  bool qkv_bias = false;    // the projections to queries, keys and values add a bias
  bool qk_norm = false;     // queries and keys are normalised per head before they are rotated
  bool post_norms = false;  // attention and feed-forward are normalised after, too, before they are added
  CacheGeometry geometry;   // one entry a layer: heads, dims, window, attention scale, RoPE

  int num_layers() const { return static_cast<int>(geometry.layers.size()); }
};

// kCorrupt for a missing or absurd value; kUnsupported for an architecture or a feature this build does not have, with
// what it does have. Reads metadata and, for RoPE's frequency factors, one small tensor.
Result<ModelConfig> ReadModelConfig(const GgufFile& file);

}  // namespace kvist
