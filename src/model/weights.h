// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <memory>
#include <vector>

#include "kvist/error.h"
#include "model/gguf.h"
#include "model/model_config.h"

struct ggml_tensor;

namespace kvist {

enum class WeightsForm : uint8_t {
  kFile,  // as stored, mapped: nothing is copied, the operating system reads what is used
  kF32,   // every matrix expanded to f32 in memory at load (4 bytes a weight), for measuring
};

// One layer's tensors. Those the model does not have are nullptr. Shapes are [rows, columns] of y = W x.
struct LayerWeights {
  ggml_tensor* attention_norm = nullptr;          // [embedding]
  ggml_tensor* query = nullptr;                   // [query_heads * key_dim, embedding]
  ggml_tensor* key = nullptr;                     // [kv_heads * key_dim, embedding]
  ggml_tensor* value = nullptr;                   // [kv_heads * value_dim, embedding]
  ggml_tensor* query_bias = nullptr;              // [query_heads * key_dim]
  ggml_tensor* key_bias = nullptr;                // [kv_heads * key_dim]
  ggml_tensor* value_bias = nullptr;              // [kv_heads * value_dim]
  ggml_tensor* query_norm = nullptr;              // [key_dim]
  ggml_tensor* key_norm = nullptr;                // [key_dim]
  ggml_tensor* attention_out = nullptr;           // [embedding, query_heads * value_dim]
  ggml_tensor* post_attention_norm = nullptr;     // [embedding]
  ggml_tensor* feed_forward_norm = nullptr;       // [embedding]
  ggml_tensor* gate = nullptr;                    // [feed_forward, embedding]
  ggml_tensor* up = nullptr;                      // [feed_forward, embedding]
  ggml_tensor* down = nullptr;                    // [embedding, feed_forward]
  ggml_tensor* post_feed_forward_norm = nullptr;  // [embedding]
};

// A model's tensors, each checked for presence, shape and a type that the graph can use, so that ggml (which aborts
// the process on bad input) never meets a wrong one. Keeps the file mapped. Immutable.
class Weights {
 public:
  // kCorrupt for a missing or wrongly shaped tensor; kUnsupported for a type the graph can't use or for a tensor that
  // nothing would use (a feature this build does not know); kOutOfMemory when kF32 doesn't fit.
  static Result<Weights> Load(std::shared_ptr<const GgufFile> file, const ModelConfig& config, WeightsForm form);
  Weights(Weights&&) noexcept;
  Weights& operator=(Weights&&) noexcept;
  ~Weights();

  ggml_tensor* token_embedding() const;    // [vocabulary, embedding]
  ggml_tensor* output_norm() const;        // [embedding]
  ggml_tensor* output() const;             // [vocabulary, embedding]; the token embedding when the model shares it
  ggml_tensor* frequency_factors() const;  // [rope dims / 2], or nullptr
  const std::vector<LayerWeights>& layers() const;

 private:
  struct State;
  explicit Weights(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace kvist
