// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "model/graph.h"

#include <ggml.h>

#include <utility>

namespace kvist {
namespace {

// More than any layer makes; the room for descriptions is reserved before they are made.
constexpr size_t kTensorsPerLayer = 64;
constexpr size_t kOtherTensors = 32;

// Both operations are called by every thread of the pool; ggml waits for all between one node and the next.
void RunAppend(ggml_tensor* done, int worker_index, int num_workers, void* user_data) {
  const auto& operation = *static_cast<const LayerOperation*>(user_data);
  const LayerGeometry& geometry = *operation.geometry;
  const auto* keys = static_cast<const float*>(done->src[0]->data);    // [token, kv_head, key_dim]
  const auto* values = static_cast<const float*>(done->src[1]->data);  // [token, kv_head, value_dim]
  for (const StepItem& item : *operation.step) {
    const int64_t first_head = item.first_token * geometry.num_kv_heads;
    item.sequence->Append(operation.layer, keys + first_head * geometry.key_dim,
                          values + first_head * geometry.value_dim, {worker_index, num_workers});
  }
}

void RunAttend(ggml_tensor* result, int worker_index, int num_workers, void* user_data) {
  const auto& operation = *static_cast<const LayerOperation*>(user_data);
  const LayerGeometry& geometry = *operation.geometry;
  const auto* queries = static_cast<const float*>(result->src[0]->data);  // [token, query_head, key_dim]
  auto* out = static_cast<float*>(result->data);                          // [token, query_head, value_dim]
  for (const StepItem& item : *operation.step) {
    const int64_t first_head = item.first_token * geometry.num_query_heads;
    item.sequence->Attend(operation.layer, queries + first_head * geometry.key_dim,
                          out + first_head * geometry.value_dim, {worker_index, num_workers});
  }
}

class Builder {
 public:
  Builder(const ModelConfig& config, const Weights& weights, Graph& graph)
      : config_(config), weights_(weights), graph_(graph), context_(graph.context.get()) {}

  void Build() {
    const GraphSize size = graph_.size;
    graph_.tokens = Input(size.num_tokens);
    graph_.positions = Input(size.num_tokens);
    if (size.num_outputs > 0 && size.num_outputs < size.num_tokens) graph_.rows = Input(size.num_outputs);

    ggml_tensor* state = ggml_get_rows(context_, weights_.token_embedding(), graph_.tokens);
    if (config_.embedding_scale != 1.0F) state = ggml_scale(context_, state, config_.embedding_scale);
    for (int i = 0; i < config_.num_layers(); ++i) state = Layer(state, i);
    if (size.num_outputs == 0) return;
    state = Norm(state, weights_.output_norm());
    graph_.logits = ggml_mul_mat(context_, weights_.output(), state);
    ggml_set_output(graph_.logits);
    ggml_build_forward_expand(graph_.nodes, graph_.logits);
  }

 private:
  ggml_tensor* Input(int64_t size) {
    ggml_tensor* tensor = ggml_new_tensor_1d(context_, GGML_TYPE_I32, size);
    ggml_set_input(tensor);
    return tensor;
  }

  ggml_tensor* Norm(ggml_tensor* x, ggml_tensor* weight) {
    return ggml_mul(context_, ggml_rms_norm(context_, x, config_.norm_epsilon), weight);
  }

  ggml_tensor* NormIf(ggml_tensor* x, ggml_tensor* weight) { return weight == nullptr ? x : Norm(x, weight); }

  // y = W x + b as [token, head, dim].
  ggml_tensor* Project(ggml_tensor* x, ggml_tensor* weight, ggml_tensor* bias, int dim, int num_heads) {
    ggml_tensor* y = ggml_mul_mat(context_, weight, x);
    if (bias != nullptr) y = ggml_add(context_, y, bias);
    return ggml_reshape_3d(context_, y, dim, num_heads, graph_.size.num_tokens);
  }

  ggml_tensor* Rotate(ggml_tensor* x, const RopeSpec& rope) {
    const int mode = rope.pairing == RopePairing::kAdjacent ? GGML_ROPE_TYPE_NORMAL : GGML_ROPE_TYPE_NEOX;
    ggml_tensor* factors = rope.frequency_factors.empty() ? nullptr : weights_.frequency_factors();
    return ggml_rope_ext(context_, x, graph_.positions, factors, rope.dims, mode, /*n_ctx_orig=*/0, rope.base,
                         rope.position_scale, /*ext_factor=*/0.0F, /*attn_factor=*/1.0F, /*beta_fast=*/32.0F,
                         /*beta_slow=*/1.0F);
  }

  // Stores the layer's keys and values; the result only orders what comes after.
  ggml_tensor* Append(ggml_tensor* keys, ggml_tensor* values, LayerOperation& operation) {
    ggml_tensor* sources[] = {keys, values};
    return ggml_custom_4d(context_, GGML_TYPE_F32, 1, 1, 1, 1, sources, 2, RunAppend, GGML_N_TASKS_MAX, &operation);
  }

  ggml_tensor* Attend(ggml_tensor* queries, ggml_tensor* appended, LayerOperation& operation) {
    ggml_tensor* sources[] = {queries, appended};
    return ggml_custom_4d(context_, GGML_TYPE_F32, int64_t{config_.num_query_heads} * config_.value_dim,
                          graph_.size.num_tokens, 1, 1, sources, 2, RunAttend, GGML_N_TASKS_MAX, &operation);
  }

  ggml_tensor* FeedForward(ggml_tensor* x, const LayerWeights& layer) {
    ggml_tensor* gate = ggml_mul_mat(context_, layer.gate, x);
    ggml_tensor* up = ggml_mul_mat(context_, layer.up, x);
    ggml_tensor* gated = config_.activation == Activation::kSilu ? ggml_swiglu_split(context_, gate, up)
                                                                 : ggml_geglu_split(context_, gate, up);
    return ggml_mul_mat(context_, layer.down, gated);
  }

  ggml_tensor* Layer(ggml_tensor* state, int index) {
    const LayerWeights& layer = weights_.layers()[static_cast<size_t>(index)];
    LayerOperation& operation = graph_.operations[static_cast<size_t>(index)];
    const bool last = index + 1 == config_.num_layers();

    ggml_tensor* x = Norm(state, layer.attention_norm);
    ggml_tensor* queries = Project(x, layer.query, layer.query_bias, config_.key_dim, config_.num_query_heads);
    ggml_tensor* keys = Project(x, layer.key, layer.key_bias, config_.key_dim, config_.num_kv_heads);
    ggml_tensor* values = Project(x, layer.value, layer.value_bias, config_.value_dim, config_.num_kv_heads);
    queries = Rotate(NormIf(queries, layer.query_norm), operation.geometry->rope);
    keys = Rotate(NormIf(keys, layer.key_norm), operation.geometry->rope);
    ggml_tensor* appended = Append(keys, values, operation);
    if (last && graph_.size.num_outputs == 0) {  // nobody reads beyond the last keys and values, but who observes
      ggml_build_forward_expand(graph_.nodes,
                                graph_.size.is_observed ? Attend(queries, appended, operation) : appended);
      return state;
    }
    ggml_tensor* attended = Attend(queries, appended, operation);
    if (last && graph_.rows != nullptr) {  // from here on only the wanted tokens
      attended = ggml_get_rows(context_, attended, graph_.rows);
      state = ggml_get_rows(context_, state, graph_.rows);
    }
    attended = ggml_mul_mat(context_, layer.attention_out, attended);
    state = ggml_add(context_, NormIf(attended, layer.post_attention_norm), state);
    x = FeedForward(Norm(state, layer.feed_forward_norm), layer);
    return ggml_add(context_, NormIf(x, layer.post_feed_forward_norm), state);
  }

  const ModelConfig& config_;
  const Weights& weights_;
  Graph& graph_;
  ggml_context* context_;
};

}  // namespace

Result<std::unique_ptr<Graph>> BuildGraph(const ModelConfig& config, const Weights& weights, const Step& step,
                                          GraphSize size) {
  auto graph = std::make_unique<Graph>();
  graph->size = size;
  const size_t num_tensors = kTensorsPerLayer * static_cast<size_t>(config.num_layers()) + kOtherTensors;
  graph->context.reset(
      ggml_init({.mem_size = ggml_tensor_overhead() * num_tensors + ggml_graph_overhead_custom(num_tensors, false),
                 .mem_buffer = nullptr,
                 .no_alloc = true}));
  if (!graph->context) return Fail(ErrorCode::kOutOfMemory, "not enough memory to describe a step of the model");
  graph->nodes = ggml_new_graph_custom(graph->context.get(), num_tensors, /*grads=*/false);
  for (int i = 0; i < config.num_layers(); ++i) {
    graph->operations.push_back({&step, &config.geometry.layers[static_cast<size_t>(i)], i});
  }
  Builder(config, weights, *graph).Build();
  return graph;
}

}  // namespace kvist
