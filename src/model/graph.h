// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <ggml-cpp.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "kvist/cache.h"
#include "model/model_config.h"
#include "model/weights.h"

namespace kvist {

// A sequence in the step under way and where its tokens begin among the step's.
struct StepItem {
  Sequence* sequence;
  int64_t first_token;
};
using Step = std::vector<StepItem>;

// How many tokens a graph takes and how many rows of logits it makes. Which tokens and sequences they are is read when
// it runs, so that a graph serves every step of the same size.
struct GraphSize {
  int64_t num_tokens = 0;
  int64_t num_outputs = 0;
  // Whether a sequence notes what its queries attend to: then all layers attend, also where nobody wants an output.
  bool is_observed = false;
  bool operator==(const GraphSize&) const = default;
};

// What the two operations of ours in a layer need to know when they run.
struct LayerOperation {
  const Step* step;
  const LayerGeometry* geometry;
  int layer;
};

// The computation of one step as ggml sees it. The tensors get their memory from an allocator outside.
struct Graph {
  GraphSize size;
  std::vector<LayerOperation> operations;  // before the context, which points here
  ggml_context_ptr context;
  ggml_cgraph* nodes = nullptr;
  ggml_tensor* tokens = nullptr;     // [num_tokens] i32
  ggml_tensor* positions = nullptr;  // [num_tokens] i32
  ggml_tensor* rows = nullptr;       // [num_outputs] i32: the tokens whose logits are wanted; nullptr when it's all
  ggml_tensor* logits = nullptr;     // [num_outputs, vocabulary]; nullptr without outputs
};

// Builds the graph of a step; `step` is read when the graph runs and, like config and weights, must outlive it.
// kOutOfMemory when its description does not fit.
Result<std::unique_ptr<Graph>> BuildGraph(const ModelConfig& config, const Weights& weights, const Step& step,
                                          GraphSize size);

}  // namespace kvist
