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
};

// Computes one task again and again; each implementation runs inside a ggml graph with one node a layer, on a
// persistent thread pool, as it does in a model. Holds the keys and values of all layers.
class AttentionContestant {
 public:
  // Our store and attention in this form. Errors as Cache::Open and Sequence::Prepare.
  static Result<std::unique_ptr<AttentionContestant>> OpenKvist(const AttentionTask& task, Form form);
  // ggml_flash_attn_ext over contiguous K and V of a ggml type by name: "f16", "f32", "bf16", "q8_0", "q4_0".
  static Result<std::unique_ptr<AttentionContestant>> OpenGgml(const AttentionTask& task, std::string_view type);

  virtual ~AttentionContestant() = default;
  virtual double RunOnce() = 0;               // milliseconds for all layers
  virtual size_t num_bytes_read() const = 0;  // keys and values that one run has to read at least once
  // Of the last run: [token, query_head, value_dim] of the first layer, to see that all compute the same thing.
  virtual std::vector<float> FirstLayerOutput() const = 0;
};

}  // namespace kvist
