// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "model/model.h"

#include <ggml-backend.h>
#include <ggml-cpp.h>
#include <ggml-cpu.h>
#include <ggml.h>
#include <xxhash.h>

#include <algorithm>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "model/graph.h"
#include "model/thread_pool.h"

namespace kvist {
namespace {

Result<int> NumThreads(int wanted) {
  if (wanted == 0) {
    const auto machine = static_cast<int>(std::thread::hardware_concurrency());
    return std::clamp(machine, 1, GGML_MAX_N_THREADS);
  }
  if (wanted < 1 || wanted > GGML_MAX_N_THREADS) {
    return Fail(ErrorCode::kInvalidArgument, "the number of threads is " + std::to_string(wanted) +
                                                 ", not between 1 and " + std::to_string(GGML_MAX_N_THREADS));
  }
  return wanted;
}

int64_t NumOutputs(const BatchItem& item) {
  switch (item.logits) {
    case LogitsWanted::kNone:
      return 0;
    case LogitsWanted::kLast:
      return 1;
    case LogitsWanted::kAll:
      break;
  }
  return static_cast<int64_t>(item.tokens.size());
}

GraphSize SizeOf(std::span<const BatchItem> batch) {
  GraphSize size;
  for (const BatchItem& item : batch) {
    size.num_tokens += static_cast<int64_t>(item.tokens.size());
    size.num_outputs += NumOutputs(item);
    size.is_observed |= item.sequence->is_observing();
  }
  return size;
}

std::span<int32_t> Numbers(ggml_tensor* tensor) {
  return {static_cast<int32_t*>(tensor->data), static_cast<size_t>(tensor->ne[0])};
}

}  // namespace

struct Model::State {
  std::shared_ptr<const GgufFile> file;
  ModelConfig config;
  Weights weights;
  WeightsForm weights_form;
  int num_threads;
  ThreadPool pool;
  ggml_gallocr_ptr allocator;    // memory between the nodes of a graph; grows to the largest step and is kept
  std::vector<uint8_t> work;     // ggml's own, likewise
  Step step;                     // the sequences of the step under way
  std::unique_ptr<Graph> graph;  // the last one: decoding repeats its size, and building costs a tenth of a millisecond
  std::once_flag fingerprint_once;
  Fingerprint fingerprint;

  Status Check(std::span<const BatchItem> batch) const;
  Status BuildIfOther(GraphSize size);
  void FillInputs(std::span<const BatchItem> batch);
  Status Compute();
};

Result<std::unique_ptr<Model>> Model::Open(std::shared_ptr<const GgufFile> file, const ModelOptions& options) {
  KVIST_TRY(const int num_threads, NumThreads(options.num_threads));
  KVIST_TRY(ModelConfig config, ReadModelConfig(*file));
  KVIST_TRY(Weights weights, Weights::Load(file, config, options.weights));
  ggml_threadpool_params pool_params = ggml_threadpool_params_default(num_threads);
  // Between two steps ggml's threads spin, a third of a second by default, while others work: the sampler, or what
  // gives up tokens, which took four times as long beside them. This is some milliseconds.
  pool_params.poll = 1;
  ThreadPool pool(ggml_threadpool_new(&pool_params));
  // Only the plain CPU buffer: ggml's repacked ones make a token's result depend on the batch.
  ggml_gallocr_ptr allocator(ggml_gallocr_new(ggml_backend_cpu_buffer_type()));
  if (!pool || !allocator) return Fail(ErrorCode::kOutOfMemory, "not enough memory to start the model's threads");
  return std::unique_ptr<Model>(new Model(std::unique_ptr<State>(new State{.file = std::move(file),
                                                                           .config = std::move(config),
                                                                           .weights = std::move(weights),
                                                                           .weights_form = options.weights,
                                                                           .num_threads = num_threads,
                                                                           .pool = std::move(pool),
                                                                           .allocator = std::move(allocator),
                                                                           .work = {},
                                                                           .step = {},
                                                                           .graph = nullptr,
                                                                           .fingerprint_once = {},
                                                                           .fingerprint = {}})));
}

Model::Model(std::unique_ptr<State> state) : state_(std::move(state)) {}
Model::~Model() = default;

Status Model::State::Check(std::span<const BatchItem> batch) const {
  const GraphSize size = SizeOf(batch);
  if (size.num_tokens == 0) return Fail(ErrorCode::kInvalidArgument, "a step of the model needs at least one token");
  if (size.num_tokens > kMaxBatchTokens) {
    return Fail(ErrorCode::kInvalidArgument, "a step of " + std::to_string(size.num_tokens) +
                                                 " tokens; one takes at most " + std::to_string(kMaxBatchTokens) +
                                                 ", feed the rest in further steps");
  }
  std::vector<const Sequence*> sequences;
  for (const BatchItem& item : batch) {
    if (item.tokens.empty()) return Fail(ErrorCode::kInvalidArgument, "a sequence of the step has no tokens");
    const int64_t num_after = item.sequence->num_tokens() + static_cast<int64_t>(item.tokens.size());
    if (num_after > config.context_length) {
      return Fail(ErrorCode::kOutOfRange, "the text has " + std::to_string(num_after) +
                                              " tokens; the model's context is " +
                                              std::to_string(config.context_length));
    }
    for (const Token token : item.tokens) {
      if (token < 0 || token >= config.num_vocabulary) {
        return Fail(ErrorCode::kInvalidArgument, "token " + std::to_string(token) + " is not between 0 and " +
                                                     std::to_string(config.num_vocabulary - 1));
      }
    }
    sequences.push_back(item.sequence);
  }
  std::ranges::sort(sequences);
  if (std::ranges::adjacent_find(sequences) != sequences.end()) {
    return Fail(ErrorCode::kInvalidArgument, "a sequence is in the step twice");
  }
  return {};
}

Status Model::State::BuildIfOther(GraphSize size) {
  if (graph && graph->size == size) return {};
  graph.reset();
  KVIST_TRY(auto built, BuildGraph(config, weights, step, size));
  if (!ggml_gallocr_alloc_graph(allocator.get(), built->nodes)) {
    return Fail(ErrorCode::kOutOfMemory,
                "not enough memory for a step of " + std::to_string(size.num_tokens) + " tokens; use shorter steps");
  }
  graph = std::move(built);
  return {};
}

void Model::State::FillInputs(std::span<const BatchItem> batch) {
  const std::span<int32_t> tokens = Numbers(graph->tokens);
  const std::span<int32_t> positions = Numbers(graph->positions);
  std::vector<int32_t> rows;
  size_t next = 0;
  step.clear();
  for (const BatchItem& item : batch) {
    step.push_back({item.sequence, static_cast<int64_t>(next)});
    auto position = static_cast<int32_t>(item.sequence->num_tokens());
    const size_t first_row = next + item.tokens.size() - static_cast<size_t>(NumOutputs(item));
    for (const Token token : item.tokens) {
      if (next >= first_row) rows.push_back(static_cast<int32_t>(next));
      tokens[next] = token;
      positions[next] = position++;
      ++next;
    }
  }
  if (graph->rows != nullptr) std::ranges::copy(rows, Numbers(graph->rows).begin());
}

Status Model::State::Compute() {
  ggml_cplan plan = ggml_graph_plan(graph->nodes, num_threads, pool.get());
  if (work.size() < plan.work_size) work.resize(plan.work_size);
  plan.work_data = work.data();
  if (ggml_graph_compute(graph->nodes, &plan) != GGML_STATUS_SUCCESS) {
    return Fail(ErrorCode::kOutOfMemory, "ggml could not compute the step");
  }
  return {};
}

// All of the batch or, when one's spilled blocks could not be read, none.
static Status CommitAll(std::span<const BatchItem> batch) {
  for (const BatchItem& item : batch) {
    if (!item.sequence->CheckStep()) return item.sequence->Commit();
  }
  for (const BatchItem& item : batch) KVIST_TRY_VOID(item.sequence->Commit());
  return {};
}

Result<std::span<const float>> Model::Forward(std::span<const BatchItem> batch) {
  KVIST_TRY_VOID(state_->Check(batch));
  KVIST_TRY_VOID(state_->BuildIfOther(SizeOf(batch)));
  for (const BatchItem& item : batch) KVIST_TRY_VOID(item.sequence->Prepare(item.tokens));
  state_->FillInputs(batch);
  KVIST_TRY_VOID(state_->Compute());
  KVIST_TRY_VOID(CommitAll(batch));
  const ggml_tensor* logits = state_->graph->logits;
  if (logits == nullptr) return std::span<const float>();
  return std::span<const float>(static_cast<const float*>(logits->data), static_cast<size_t>(ggml_nelements(logits)));
}

const CacheGeometry& Model::geometry() const {
  return state_->config.geometry;
}
int Model::num_vocabulary() const {
  return state_->config.num_vocabulary;
}
int Model::context_length() const {
  return state_->config.context_length;
}
int Model::num_threads() const {
  return state_->num_threads;
}

Fingerprint Model::fingerprint() const {
  std::call_once(state_->fingerprint_once, [this] {
    const std::span<const std::byte> bytes = state_->file->bytes();
    const XXH128_hash_t hash =
        XXH3_128bits_withSeed(bytes.data(), bytes.size(), static_cast<uint64_t>(state_->weights_form));
    state_->fingerprint = {hash.low64, hash.high64};
  });
  return state_->fingerprint;
}

}  // namespace kvist
