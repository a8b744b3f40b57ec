// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "kvist/error.h"
#include "kvist/geometry.h"

namespace kvist {

// The attention of a whole model at one depth, over random keys and values.
struct AttentionTask {
  CacheGeometry geometry;
  int64_t num_stored_tokens = 0;  // before the step
  int64_t num_step_tokens = 1;    // 1: decode; more: prefill at that depth
  int num_threads = 1;

  int64_t num_tokens() const { return num_stored_tokens + num_step_tokens; }
};

// The first token that a step of the task sees in a layer: those before it have left its window.
int64_t FirstVisibleToken(const AttentionTask& task, const LayerGeometry& layer);
// (query token, stored token) pairs of a layer that meet: causality and window leave out the others.
int64_t NumVisiblePairs(const AttentionTask& task, const LayerGeometry& layer);

// Computes one task again and again; each implementation runs inside a ggml graph with one node a layer, on a
// persistent thread pool, as it does in a model. Holds the keys and values of all layers: of layers with a window only
// what the step sees.
class AttentionContestant {
 public:
  // Our store and attention in this form. Errors as Cache::Open and Sequence::Prepare.
  static Result<std::unique_ptr<AttentionContestant>> OpenKvist(const AttentionTask& task, Form form);
  // ggml_flash_attn_ext over contiguous K and V of a ggml type by name: "f16", "f32", "bf16", "q8_0", "q4_0".
  static Result<std::unique_ptr<AttentionContestant>> OpenGgml(const AttentionTask& task, std::string_view type);

  virtual ~AttentionContestant() = default;
  virtual double RunOnce() = 0;  // milliseconds for all layers
  // Keys and values that one run has to read at least once. Ours: whole blocks.
  virtual size_t num_bytes_read() const = 0;
  // Of the last run: [token, query_head, value_dim] of the first layer, to see that all compute the same thing.
  virtual std::vector<float> FirstLayerOutput() const = 0;
};

// Bytes of the keys and values that OpenGgml takes. kInvalidArgument names the known types.
Result<size_t> GgmlKvBytes(const AttentionTask& task, std::string_view type);

}  // namespace kvist
