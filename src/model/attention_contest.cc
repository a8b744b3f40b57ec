// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "model/attention_contest.h"

#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml-cpp.h>
#include <ggml-cpu.h>
#include <ggml.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <optional>
#include <random>
#include <span>
#include <string>

#include "kvist/cache.h"
#include "model/thread_pool.h"

namespace kvist {
namespace {

// The same numbers for every contestant: keys of a layer, values of a layer, queries.
enum class Content : uint32_t { kKeys, kValues, kQueries };

// A prime, so that no two rows of a layer are equal before there are as many of them.
constexpr size_t kNumRandomNumbers = 1'048'573;

std::vector<float> MakeRandomNumbers() {
  std::minstd_rand random(1);
  std::vector<float> numbers(kNumRandomNumbers);
  for (float& x : numbers) {  // the sum of four uniforms is near enough to normal
    float sum = 0;
    for (int i = 0; i < 4; ++i) sum += float(random()) / float(std::minstd_rand::max()) - 0.5f;
    x = sum * 1.7f;
  }
  return numbers;
}

// Numbers [first, first + numbers.size()) of a layer's content. There are thousands of millions of them, so that all
// come from the same few, each content beginning at another place.
void FillRandom(std::span<float> numbers, int layer, Content content, size_t first) {
  static const std::vector<float> all = MakeRandomNumbers();
  size_t place = ((size_t(layer) * 3 + size_t(content)) * 350'377 + first) % all.size();
  while (!numbers.empty()) {
    const size_t num_copied = std::min(numbers.size(), all.size() - place);
    std::copy_n(all.data() + place, num_copied, numbers.data());
    numbers = numbers.subspan(num_copied);
    place = 0;
  }
}

// Keys and values are made in pieces of so many tokens: those of all tokens take gigabytes in f32.
constexpr int64_t kStoredAtOnce = 512;

// A graph with one attention node a layer, and the threads to run it.
class GraphContestant : public AttentionContestant {
 public:
  explicit GraphContestant(const AttentionTask& task) : task_(task) {}

  double RunOnce() override {
    // Between runs the threads sleep: spinning, as they do for a while otherwise, they would slow the other
    // contestants.
    ggml_threadpool_resume(pool_.get());
    const auto start = std::chrono::steady_clock::now();
    KVIST_CHECK(ggml_backend_graph_compute(backend_.get(), graph_) == GGML_STATUS_SUCCESS);
    const auto end = std::chrono::steady_clock::now();
    ggml_threadpool_pause(pool_.get());
    return std::chrono::duration<double, std::milli>(end - start).count();
  }

  std::vector<float> FirstLayerOutput() const override {
    std::vector<float> output(size_t(ggml_nelements(outputs_.front())));
    ggml_backend_tensor_get(outputs_.front(), output.data(), 0, ggml_nbytes(outputs_.front()));
    return output;
  }

 protected:
  Status OpenContext() {
    const size_t num_tensors = task_.geometry.layers.size() * 12 + 8;
    context_.reset(ggml_init({ggml_tensor_overhead() * num_tensors + ggml_graph_overhead(), nullptr, true}));
    backend_.reset(ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr));
    ggml_threadpool_params params = ggml_threadpool_params_default(task_.num_threads);
    pool_.reset(ggml_threadpool_new(&params));
    if (!context_ || !backend_ || !pool_) return Fail(ErrorCode::kOutOfMemory, "ggml could not be started");
    ggml_backend_cpu_set_n_threads(backend_.get(), task_.num_threads);
    ggml_backend_cpu_set_threadpool(backend_.get(), pool_.get());
    graph_ = ggml_new_graph(context_.get());
    return {};
  }

  ggml_tensor* NewQueries(const LayerGeometry& layer) {
    return ggml_new_tensor_3d(context_.get(), GGML_TYPE_F32, layer.key_dim, layer.num_query_heads,
                              task_.num_step_tokens);
  }

  void AddOutput(ggml_tensor* output) {
    ggml_set_output(output);
    ggml_build_forward_expand(graph_, output);
    outputs_.push_back(output);
  }

  Status Allocate() {
    buffer_.reset(ggml_backend_alloc_ctx_tensors(context_.get(), backend_.get()));
    if (!buffer_) return Fail(ErrorCode::kOutOfMemory, "no memory for ggml's keys and values");
    return {};
  }

  const AttentionTask task_;
  ggml_context_ptr context_;
  ggml_backend_ptr backend_;
  ThreadPool pool_;
  ggml_backend_buffer_ptr buffer_;
  ggml_cgraph* graph_ = nullptr;
  std::vector<ggml_tensor*> outputs_;
};

// Sets a tensor [dim, heads, tokens] to the numbers of the tokens that begin with the given one.
void SetRandom(ggml_tensor* tensor, int layer, Content content, int64_t first_token) {
  const int64_t token_numbers = tensor->ne[0] * tensor->ne[1];
  const size_t token_bytes = ggml_row_size(tensor->type, token_numbers);
  const auto encode = ggml_get_type_traits_cpu(tensor->type)->from_float;
  std::vector<float> numbers;
  std::vector<std::byte> encoded;
  for (int64_t token = 0; token < tensor->ne[2]; token += kStoredAtOnce) {
    const int64_t num_tokens = std::min(kStoredAtOnce, tensor->ne[2] - token);
    numbers.resize(size_t(num_tokens * token_numbers));
    encoded.resize(size_t(num_tokens) * token_bytes);
    FillRandom(numbers, layer, content, size_t((first_token + token) * token_numbers));
    encode(numbers.data(), encoded.data(), int64_t(numbers.size()));
    ggml_backend_tensor_set(tensor, encoded.data(), size_t(token) * token_bytes, encoded.size());
  }
}

class KvistContestant : public GraphContestant {
 public:
  KvistContestant(const AttentionTask& task, Form form) : GraphContestant(task), form_(form) {}

  Status Open() {
    KVIST_TRY_VOID(OpenContext());
    KVIST_TRY(cache_, Cache::Open(task_.geometry, {.form = form_}));
    sequence_.emplace(cache_->Begin());
    for (int64_t first = 0; first < task_.num_stored_tokens; first += kStoredAtOnce) {
      KVIST_TRY_VOID(Store(first, std::min(kStoredAtOnce, task_.num_stored_tokens - first)));
      KVIST_TRY_VOID(sequence_->Commit());
    }
    KVIST_TRY_VOID(Store(task_.num_stored_tokens, task_.num_step_tokens));
    BuildNodes();
    KVIST_TRY_VOID(Allocate());
    for (size_t i = 0; i < layers_.size(); ++i) SetRandom(outputs_[i]->src[0], int(i), Content::kQueries, 0);
    return {};
  }

  size_t num_bytes_read() const override { return cache_->stats().live_bytes; }

 private:
  struct LayerCall {
    Sequence* sequence;
    int layer;
  };

  Status Store(int64_t first_token, int64_t num_tokens) {
    KVIST_TRY_VOID(sequence_->Prepare(std::vector<Token>(size_t(num_tokens), 0)));
    std::vector<float> keys, values;
    for (size_t i = 0; i < task_.geometry.layers.size(); ++i) {
      const LayerGeometry& layer = task_.geometry.layers[i];
      const size_t key_row = size_t(layer.num_kv_heads) * size_t(layer.key_dim);
      const size_t value_row = size_t(layer.num_kv_heads) * size_t(layer.value_dim);
      keys.resize(key_row * size_t(num_tokens));
      values.resize(value_row * size_t(num_tokens));
      FillRandom(keys, int(i), Content::kKeys, size_t(first_token) * key_row);
      FillRandom(values, int(i), Content::kValues, size_t(first_token) * value_row);
      sequence_->Append(int(i), keys.data(), values.data());
    }
    return {};
  }

  void BuildNodes() {
    layers_.resize(task_.geometry.layers.size());
    for (size_t i = 0; i < layers_.size(); ++i) {
      const LayerGeometry& layer = task_.geometry.layers[i];
      layers_[i] = {&*sequence_, int(i)};
      ggml_tensor* sources[] = {NewQueries(layer)};
      AddOutput(ggml_custom_4d(
          context_.get(), GGML_TYPE_F32, layer.value_dim, layer.num_query_heads, task_.num_step_tokens, 1, sources, 1,
          [](ggml_tensor* out, int thread, int num_threads, void* user) {
            const auto* call = static_cast<const LayerCall*>(user);
            call->sequence->Attend(call->layer, static_cast<const float*>(out->src[0]->data),
                                   static_cast<float*>(out->data), Worker{thread, num_threads});
          },
          GGML_N_TASKS_MAX, &layers_[i]));
    }
  }

  const Form form_;
  std::unique_ptr<Cache> cache_;
  std::optional<Sequence> sequence_;
  std::vector<LayerCall> layers_;
};

class GgmlContestant : public GraphContestant {
 public:
  GgmlContestant(const AttentionTask& task, ggml_type type) : GraphContestant(task), type_(type) {}

  Status Open() {
    KVIST_TRY_VOID(OpenContext());
    for (const LayerGeometry& layer : task_.geometry.layers) AddLayer(layer);
    KVIST_TRY_VOID(Allocate());
    for (size_t i = 0; i < layers_.size(); ++i) {
      const int64_t first_token = FirstVisibleToken(task_, task_.geometry.layers[i]);
      SetRandom(layers_[i].keys, int(i), Content::kKeys, first_token);
      SetRandom(layers_[i].values, int(i), Content::kValues, first_token);
      SetRandom(layers_[i].queries, int(i), Content::kQueries, 0);
    }
    for (const auto& [window, mask] : window_to_mask_) SetMask(mask, window);
    return {};
  }

  size_t num_bytes_read() const override {
    size_t bytes = 0;
    for (const Layer& layer : layers_) bytes += ggml_nbytes(layer.keys) + ggml_nbytes(layer.values);
    return bytes;
  }

 private:
  struct Layer {
    ggml_tensor *keys, *values, *queries;
  };

  // K and V as llama.cpp lays them out: a row of all heads for each token, seen per head through a permuted view.
  ggml_tensor* NewRows(int dim, const LayerGeometry& layer) {
    const int64_t num_visible_tokens = task_.num_tokens() - FirstVisibleToken(task_, layer);
    return ggml_new_tensor_3d(context_.get(), type_, dim, layer.num_kv_heads, num_visible_tokens);
  }

  void AddLayer(const LayerGeometry& layer) {
    ggml_context* context = context_.get();
    const Layer tensors{NewRows(layer.key_dim, layer), NewRows(layer.value_dim, layer), NewQueries(layer)};
    layers_.push_back(tensors);
    const float scale = layer.score_scale();
    AddOutput(ggml_flash_attn_ext(
        context, ggml_permute(context, tensors.queries, 0, 2, 1, 3), ggml_permute(context, tensors.keys, 0, 2, 1, 3),
        ggml_permute(context, tensors.values, 0, 2, 1, 3), MaskOf(layer, tensors.keys->ne[2]), scale, 0.0f, 0.0f));
  }

  // Layers of one window share a mask. One query sees all that is there.
  ggml_tensor* MaskOf(const LayerGeometry& layer, int64_t num_visible_tokens) {
    if (task_.num_step_tokens == 1) return nullptr;
    ggml_tensor*& mask = window_to_mask_[layer.window];
    if (mask == nullptr) {
      mask = ggml_new_tensor_2d(context_.get(), GGML_TYPE_F16, num_visible_tokens, GGML_PAD(task_.num_step_tokens, 64));
    }
    return mask;
  }

  void SetMask(ggml_tensor* mask, int window) const {
    const ggml_fp16_t visible = ggml_fp32_to_fp16(0.0f), hidden = ggml_fp32_to_fp16(-INFINITY);
    std::vector<ggml_fp16_t> numbers(size_t(ggml_nelements(mask)), hidden);
    for (int64_t row = 0; row < task_.num_step_tokens; ++row) {
      // The last query sees the last token, and so on.
      const int64_t end = mask->ne[0] - task_.num_step_tokens + row + 1;
      const int64_t begin = window > 0 ? std::max<int64_t>(0, end - window) : 0;
      std::fill(numbers.begin() + row * mask->ne[0] + begin, numbers.begin() + row * mask->ne[0] + end, visible);
    }
    ggml_backend_tensor_set(mask, numbers.data(), 0, ggml_nbytes(mask));
  }

  const ggml_type type_;
  std::vector<Layer> layers_;
  std::map<int, ggml_tensor*> window_to_mask_;
};

Result<ggml_type> ParseGgmlType(std::string_view name) {
  for (const ggml_type known : {GGML_TYPE_F16, GGML_TYPE_F32, GGML_TYPE_BF16, GGML_TYPE_Q8_0, GGML_TYPE_Q4_0}) {
    if (name == ggml_type_name(known)) return known;
  }
  return Fail(ErrorCode::kInvalidArgument,
              "ggml has no KV type '" + std::string(name) + "' to compare with; known: f16, f32, bf16, q8_0, q4_0");
}

}  // namespace

int64_t FirstVisibleToken(const AttentionTask& task, const LayerGeometry& layer) {
  return layer.window > 0 ? std::max<int64_t>(0, task.num_stored_tokens + 1 - layer.window) : 0;
}

int64_t NumVisiblePairs(const AttentionTask& task, const LayerGeometry& layer) {
  // The first queries may see less than a window; from there on each sees one token more, or a window.
  const int64_t first = task.num_stored_tokens + 1, last = task.num_tokens();
  const int64_t window = layer.window > 0 ? layer.window : last;
  const int64_t num_growing = std::clamp<int64_t>(window - first + 1, 0, last - first + 1);
  const int64_t num_full = last - first + 1 - num_growing;
  return num_growing * (2 * first + num_growing - 1) / 2 + num_full * window;
}

Result<size_t> GgmlKvBytes(const AttentionTask& task, std::string_view type_name) {
  KVIST_TRY(const ggml_type type, ParseGgmlType(type_name));
  size_t bytes = 0;
  for (const LayerGeometry& layer : task.geometry.layers) {
    const auto num_rows = size_t((task.num_tokens() - FirstVisibleToken(task, layer)) * layer.num_kv_heads);
    bytes += num_rows * (ggml_row_size(type, layer.key_dim) + ggml_row_size(type, layer.value_dim));
  }
  return bytes;
}

Result<std::unique_ptr<AttentionContestant>> AttentionContestant::OpenKvist(const AttentionTask& task, Form form) {
  KVIST_TRY_VOID(task.geometry.Validate());
  auto contestant = std::make_unique<KvistContestant>(task, form);
  KVIST_TRY_VOID(contestant->Open());
  return contestant;
}

Result<std::unique_ptr<AttentionContestant>> AttentionContestant::OpenGgml(const AttentionTask& task,
                                                                           std::string_view type_name) {
  KVIST_TRY_VOID(task.geometry.Validate());
  KVIST_TRY(const ggml_type type, ParseGgmlType(type_name));
  auto contestant = std::make_unique<GgmlContestant>(task, type);
  KVIST_TRY_VOID(contestant->Open());
  return contestant;
}

}  // namespace kvist
