// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "model/weights.h"

#include <ggml-backend.h>
#include <ggml-cpp.h>
#include <ggml-cpu.h>
#include <ggml.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <string>
#include <utility>

namespace kvist {

struct Weights::State {
  std::shared_ptr<const GgufFile> file;
  ggml_context_ptr context;          // the tensors' descriptions
  ggml_backend_buffer_ptr mapped;    // the file itself
  ggml_backend_buffer_ptr expanded;  // what is kept as f32 though the file has it otherwise
  ggml_tensor* token_embedding = nullptr;
  ggml_tensor* output_norm = nullptr;
  ggml_tensor* output = nullptr;
  ggml_tensor* frequency_factors = nullptr;
  std::vector<LayerWeights> layers;
};

namespace {

// Types ggml's CPU multiplies with and takes rows from.
bool IsMatrixType(ggml_type type) {
  switch (type) {
    case GGML_TYPE_F32:
    case GGML_TYPE_F16:
    case GGML_TYPE_BF16:
    case GGML_TYPE_Q4_0:
    case GGML_TYPE_Q4_1:
    case GGML_TYPE_Q5_0:
    case GGML_TYPE_Q5_1:
    case GGML_TYPE_Q8_0:
    case GGML_TYPE_Q2_K:
    case GGML_TYPE_Q3_K:
    case GGML_TYPE_Q4_K:
    case GGML_TYPE_Q5_K:
    case GGML_TYPE_Q6_K:
    case GGML_TYPE_IQ2_XXS:
    case GGML_TYPE_IQ2_XS:
    case GGML_TYPE_IQ2_S:
    case GGML_TYPE_IQ3_XXS:
    case GGML_TYPE_IQ3_S:
    case GGML_TYPE_IQ1_S:
    case GGML_TYPE_IQ1_M:
    case GGML_TYPE_IQ4_NL:
    case GGML_TYPE_IQ4_XS:
    case GGML_TYPE_TQ1_0:
    case GGML_TYPE_TQ2_0:
    case GGML_TYPE_MXFP4:
      return ggml_get_type_traits_cpu(type)->vec_dot != nullptr;
    default:
      return false;
  }
}

bool IsVectorType(ggml_type type) {
  return type == GGML_TYPE_F32 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16;
}

// "[576, 49152]", in ggml's order.
std::string ShapeName(const std::vector<uint64_t>& shape) {
  std::string out = "[";
  for (const uint64_t extent : shape) out += (out.size() > 1 ? ", " : "") + std::to_string(extent);
  return out + "]";
}

// Trailing axes of length 1 say nothing.
std::vector<uint64_t> WithoutOnes(std::vector<uint64_t> shape) {
  while (shape.size() > 1 && shape.back() == 1) shape.pop_back();
  return shape;
}

void ExpandToF32(const GgufTensor& source, float* out) {
  const auto type = static_cast<ggml_type>(source.type);
  if (type == GGML_TYPE_F32) {
    std::memcpy(out, source.data.data(), source.data.size());
    return;
  }
  const uint64_t num_values = source.data.size() / ggml_type_size(type) * static_cast<uint64_t>(ggml_blck_size(type));
  ggml_get_type_traits(type)->to_float(source.data.data(), out, static_cast<int64_t>(num_values));
}

// Makes ggml tensors of the file's and gives them their memory: first all are taken, then Place puts them.
class Loader {
 public:
  Loader(const GgufFile& file, WeightsForm form, ggml_context* context) : file_(file), form_(form), context_(context) {}

  // A matrix y = W x, from `columns` numbers to `rows`.
  Result<ggml_tensor*> Matrix(const std::string& name, int rows, int columns) {
    return Take(name, {static_cast<uint64_t>(columns), static_cast<uint64_t>(rows)});
  }
  Result<ggml_tensor*> Vector(const std::string& name, int size) { return Take(name, {static_cast<uint64_t>(size)}); }

  // Every tensor of the file must have been taken, or the answers would silently lack its part.
  Status CheckAllTaken() const {
    for (const GgufTensor& tensor : file_.tensors()) {
      if (taken_.contains(tensor.name)) continue;
      return Fail(ErrorCode::kUnsupported, file_.path() + " has a tensor '" + std::string(tensor.name.substr(0, 80)) +
                                               "' that this build has no use for; it may be a newer kind of model");
    }
    return {};
  }

  Status Place(ggml_backend_buffer_ptr& mapped, ggml_backend_buffer_ptr& expanded) {
    // ggml wants a pointer it could write to; weights are only ever read.
    auto* begin = const_cast<std::byte*>(file_.bytes().data());
    mapped.reset(ggml_backend_cpu_buffer_from_ptr(begin, file_.bytes().size()));
    if (!mapped) return OutOfMemory();
    for (const auto& [tensor, source] : as_stored_) {
      auto* data = const_cast<std::byte*>(source->data.data());
      if (ggml_backend_tensor_alloc(mapped.get(), tensor, data) != GGML_STATUS_SUCCESS) return OutOfMemory();
    }
    if (as_f32_.empty()) return {};
    const ggml_backend_buffer_type_t type = ggml_backend_cpu_buffer_type();
    const size_t alignment = ggml_backend_buft_get_alignment(type);
    size_t num_bytes = 0;
    for (const auto& [tensor, source] : as_f32_) num_bytes += Aligned(ggml_nbytes(tensor), alignment);
    expanded.reset(ggml_backend_buft_alloc_buffer(type, num_bytes));
    if (!expanded) return OutOfMemory();
    auto* at = static_cast<std::byte*>(ggml_backend_buffer_get_base(expanded.get()));
    for (const auto& [tensor, source] : as_f32_) {
      if (ggml_backend_tensor_alloc(expanded.get(), tensor, at) != GGML_STATUS_SUCCESS) return OutOfMemory();
      ExpandToF32(*source, reinterpret_cast<float*>(at));
      at += Aligned(ggml_nbytes(tensor), alignment);
    }
    return {};
  }

 private:
  static size_t Aligned(size_t num_bytes, size_t alignment) {
    return (num_bytes + alignment - 1) / alignment * alignment;
  }

  std::unexpected<Error> OutOfMemory() const {
    return Fail(ErrorCode::kOutOfMemory, "not enough memory for the weights of " + file_.path());
  }

  Result<ggml_tensor*> Take(const std::string& name, const std::vector<uint64_t>& shape) {
    const GgufTensor* source = file_.FindTensor(name);
    if (source == nullptr) return Fail(ErrorCode::kCorrupt, file_.path() + " lacks the tensor " + name);
    if (WithoutOnes(source->shape) != WithoutOnes(shape)) {
      return Fail(ErrorCode::kCorrupt, file_.path() + ": tensor " + name + " has the shape " +
                                           ShapeName(source->shape) + " where " + ShapeName(shape) + " is needed");
    }
    const auto type = static_cast<ggml_type>(source->type);
    const bool vector = shape.size() == 1;
    if (!(vector ? IsVectorType(type) : IsMatrixType(type))) {
      return Fail(ErrorCode::kUnsupported, file_.path() + ": tensor " + name + " is stored as " + ggml_type_name(type) +
                                               ", which can't be used here");
    }
    // ggml multiplies and adds vectors only as f32.
    const bool expand = type != GGML_TYPE_F32 && (vector || form_ == WeightsForm::kF32);
    const ggml_type used_type = expand ? GGML_TYPE_F32 : type;
    ggml_tensor* tensor = vector ? ggml_new_tensor_1d(context_, used_type, static_cast<int64_t>(shape[0]))
                                 : ggml_new_tensor_2d(context_, used_type, static_cast<int64_t>(shape[0]),
                                                      static_cast<int64_t>(shape[1]));
    ggml_set_name(tensor, name.c_str());
    (expand ? as_f32_ : as_stored_).emplace_back(tensor, source);
    taken_.insert(source->name);
    return tensor;
  }

  const GgufFile& file_;
  WeightsForm form_;
  ggml_context* context_;
  std::vector<std::pair<ggml_tensor*, const GgufTensor*>> as_stored_;
  std::vector<std::pair<ggml_tensor*, const GgufTensor*>> as_f32_;
  std::set<std::string_view> taken_;
};

Result<LayerWeights> TakeLayer(Loader& loader, const ModelConfig& config, int layer_index) {
  const std::string prefix = "blk." + std::to_string(layer_index) + ".";
  const int width = config.num_embedding;
  const int query_width = config.num_query_heads * config.key_dim;
  const int key_width = config.num_kv_heads * config.key_dim;
  const int value_width = config.num_kv_heads * config.value_dim;
  LayerWeights layer;
  KVIST_TRY(layer.attention_norm, loader.Vector(prefix + "attn_norm.weight", width));
  KVIST_TRY(layer.query, loader.Matrix(prefix + "attn_q.weight", query_width, width));
  KVIST_TRY(layer.key, loader.Matrix(prefix + "attn_k.weight", key_width, width));
  KVIST_TRY(layer.value, loader.Matrix(prefix + "attn_v.weight", value_width, width));
  if (config.qkv_bias) {
    KVIST_TRY(layer.query_bias, loader.Vector(prefix + "attn_q.bias", query_width));
    KVIST_TRY(layer.key_bias, loader.Vector(prefix + "attn_k.bias", key_width));
    KVIST_TRY(layer.value_bias, loader.Vector(prefix + "attn_v.bias", value_width));
  }
  if (config.qk_norm) {
    KVIST_TRY(layer.query_norm, loader.Vector(prefix + "attn_q_norm.weight", config.key_dim));
    KVIST_TRY(layer.key_norm, loader.Vector(prefix + "attn_k_norm.weight", config.key_dim));
  }
  KVIST_TRY(layer.attention_out,
            loader.Matrix(prefix + "attn_output.weight", width, config.num_query_heads * config.value_dim));
  KVIST_TRY(layer.feed_forward_norm, loader.Vector(prefix + "ffn_norm.weight", width));
  KVIST_TRY(layer.gate, loader.Matrix(prefix + "ffn_gate.weight", config.num_feed_forward, width));
  KVIST_TRY(layer.up, loader.Matrix(prefix + "ffn_up.weight", config.num_feed_forward, width));
  KVIST_TRY(layer.down, loader.Matrix(prefix + "ffn_down.weight", width, config.num_feed_forward));
  if (config.post_norms) {
    KVIST_TRY(layer.post_attention_norm, loader.Vector(prefix + "post_attention_norm.weight", width));
    KVIST_TRY(layer.post_feed_forward_norm, loader.Vector(prefix + "post_ffw_norm.weight", width));
  }
  return layer;
}

}  // namespace

Result<Weights> Weights::Load(std::shared_ptr<const GgufFile> file, const ModelConfig& config, WeightsForm form) {
  auto state = std::make_unique<State>();
  state->file = std::move(file);
  const size_t num_tensors = state->file->tensors().size();  // each is taken at most once
  state->context.reset(
      ggml_init({.mem_size = ggml_tensor_overhead() * (num_tensors + 1), .mem_buffer = nullptr, .no_alloc = true}));
  if (!state->context) return Fail(ErrorCode::kOutOfMemory, "not enough memory for the tensors of the model");

  Loader loader(*state->file, form, state->context.get());
  KVIST_TRY(state->token_embedding, loader.Matrix("token_embd.weight", config.num_vocabulary, config.num_embedding));
  KVIST_TRY(state->output_norm, loader.Vector("output_norm.weight", config.num_embedding));
  state->output = state->token_embedding;
  if (state->file->FindTensor("output.weight") != nullptr) {
    KVIST_TRY(state->output, loader.Matrix("output.weight", config.num_vocabulary, config.num_embedding));
  }
  if (state->file->FindTensor("rope_freqs.weight") != nullptr) {
    KVIST_TRY(state->frequency_factors, loader.Vector("rope_freqs.weight", config.geometry.layers[0].rope.dims / 2));
  }
  for (int i = 0; i < config.num_layers(); ++i) {
    KVIST_TRY(state->layers.emplace_back(), TakeLayer(loader, config, i));
  }
  KVIST_TRY_VOID(loader.CheckAllTaken());
  KVIST_TRY_VOID(loader.Place(state->mapped, state->expanded));
  return Weights(std::move(state));
}

Weights::Weights(std::unique_ptr<State> state) : state_(std::move(state)) {}
Weights::Weights(Weights&&) noexcept = default;
Weights& Weights::operator=(Weights&&) noexcept = default;
Weights::~Weights() = default;

ggml_tensor* Weights::token_embedding() const {
  return state_->token_embedding;
}
ggml_tensor* Weights::output_norm() const {
  return state_->output_norm;
}
ggml_tensor* Weights::output() const {
  return state_->output;
}
ggml_tensor* Weights::frequency_factors() const {
  return state_->frequency_factors;
}
const std::vector<LayerWeights>& Weights::layers() const {
  return state_->layers;
}

}  // namespace kvist
