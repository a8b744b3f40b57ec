// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors

// The model runner on tiny models of random weights, beside a second implementation that shares nothing with it: plain
// loops in double precision over the whole text, no cache. Real models: tests/golden.

#include "model/model.h"

#include <doctest/doctest.h>
#include <ggml.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <random>

#include "model/tiny_model.h"

namespace kvist::model_test {
namespace {

using Vector = std::vector<double>;

class NaiveModel {
 public:
  explicit NaiveModel(const TinyModel& model) : m_(model), tensors_(model.Tensors()) {}

  // Logits of every token.
  std::vector<Vector> Forward(const std::vector<Token>& tokens) const {
    std::vector<Vector> states;
    for (const Token token : tokens) {
      Vector state;
      for (int i = 0; i < m_.width; ++i) state.push_back(At("token_embd.weight", token * m_.width + i));
      if (m_.gemma()) Scale(state, std::sqrt(m_.width));
      states.push_back(state);
    }
    for (int layer = 0; layer < m_.num_layers; ++layer) Layer(states, layer);
    std::vector<Vector> logits;
    for (const Vector& state : states) {
      logits.push_back(Multiply(m_.own_output ? "output.weight" : "token_embd.weight",
                                Norm("output_norm.weight", state), m_.vocabulary));
    }
    return logits;
  }

 private:
  double At(const std::string& name, int i) const { return tensors_.at(name).data.at(static_cast<size_t>(i)); }

  static void Scale(Vector& x, double factor) {
    for (double& value : x) value *= factor;
  }

  Vector Multiply(const std::string& name, const Vector& x, int rows) const {
    Vector y;
    const auto columns = static_cast<int>(x.size());
    for (int r = 0; r < rows; ++r) {
      double sum = 0;
      for (int c = 0; c < columns; ++c) sum += At(name, r * columns + c) * x[static_cast<size_t>(c)];
      y.push_back(sum);
    }
    return y;
  }

  Vector Norm(const std::string& name, const Vector& x) const {
    double squares = 0;
    for (const double value : x) squares += value * value;
    Vector y = x;
    Scale(y, 1.0 / std::sqrt(squares / static_cast<double>(x.size()) + 1e-5));
    for (size_t i = 0; i < y.size(); ++i) y[i] *= At(name, static_cast<int>(i));
    return y;
  }

  void Rotate(Vector& x, int position, bool windowed) const {
    const bool halves = m_.architecture != "llama";
    const double base = m_.gemma() && windowed ? 10000.0 : m_.rope_base;
    const double scale = m_.gemma() && windowed ? 1.0 : 1.0 / m_.rope_scale_factor;
    for (int i = 0; i < m_.rope_dims / 2; ++i) {
      double angle = position * scale * std::pow(base, -2.0 * i / m_.rope_dims);
      if (m_.frequency_factors) angle /= At("rope_freqs.weight", i);
      double& a = x[static_cast<size_t>(halves ? i : 2 * i)];
      double& b = x[static_cast<size_t>(halves ? i + m_.rope_dims / 2 : 2 * i + 1)];
      const double a0 = a;
      a = a0 * std::cos(angle) - b * std::sin(angle);
      b = a0 * std::sin(angle) + b * std::cos(angle);
    }
  }

  // [head][dim] of one token.
  std::vector<Vector> Heads(const std::string& prefix, const char* which, const Vector& x, int heads, int dim,
                            int position, bool windowed) const {
    Vector all = Multiply(prefix + "attn_" + which + ".weight", x, heads * dim);
    std::vector<Vector> result;
    for (int h = 0; h < heads; ++h) {
      Vector head;
      for (int i = 0; i < dim; ++i) {
        const double bias = m_.bias ? At(prefix + "attn_" + which + ".bias", h * dim + i) : 0.0;
        head.push_back(all[static_cast<size_t>(h * dim + i)] + bias);
      }
      if (*which != 'v') {
        if (m_.qk_norm()) head = Norm(prefix + "attn_" + which + "_norm.weight", head);
        Rotate(head, position, windowed);
      }
      result.push_back(head);
    }
    return result;
  }

  void Layer(std::vector<Vector>& states, int layer) const {
    const std::string prefix = "blk." + std::to_string(layer) + ".";
    const bool windowed = m_.window != 0 && !(m_.gemma() && layer % 6 == 5);
    std::vector<std::vector<Vector>> keys, values;
    for (size_t t = 0; t < states.size(); ++t) {
      const auto position = static_cast<int>(t);
      const Vector x = Norm(prefix + "attn_norm.weight", states[t]);
      const auto queries = Heads(prefix, "q", x, m_.query_heads, m_.key_dim, position, windowed);
      keys.push_back(Heads(prefix, "k", x, m_.kv_heads, m_.key_dim, position, windowed));
      values.push_back(Heads(prefix, "v", x, m_.kv_heads, m_.value_dim, position, windowed));
      Vector attended;
      for (int h = 0; h < m_.query_heads; ++h) {
        const auto kv = static_cast<size_t>(h / (m_.query_heads / m_.kv_heads));
        const size_t begin =
            windowed && t + 1 > static_cast<size_t>(m_.window) ? t + 1 - static_cast<size_t>(m_.window) : 0;
        Vector out(static_cast<size_t>(m_.value_dim));
        double total = 0;
        for (size_t s = begin; s <= t; ++s) {
          double score = 0;
          for (size_t i = 0; i < keys[s][kv].size(); ++i) score += queries[static_cast<size_t>(h)][i] * keys[s][kv][i];
          const double weight = std::exp(score / std::sqrt(m_.key_dim));
          total += weight;
          for (size_t i = 0; i < out.size(); ++i) out[i] += weight * values[s][kv][i];
        }
        Scale(out, 1.0 / total);
        attended.insert(attended.end(), out.begin(), out.end());
      }
      Vector y = Multiply(prefix + "attn_output.weight", attended, m_.width);
      if (m_.gemma()) y = Norm(prefix + "post_attention_norm.weight", y);
      for (size_t i = 0; i < y.size(); ++i) states[t][i] += y[i];
      y = FeedForward(prefix, Norm(prefix + "ffn_norm.weight", states[t]));
      if (m_.gemma()) y = Norm(prefix + "post_ffw_norm.weight", y);
      for (size_t i = 0; i < y.size(); ++i) states[t][i] += y[i];
    }
  }

  Vector FeedForward(const std::string& prefix, const Vector& x) const {
    const Vector gate = Multiply(prefix + "ffn_gate.weight", x, m_.feed_forward);
    Vector gated = Multiply(prefix + "ffn_up.weight", x, m_.feed_forward);
    for (size_t i = 0; i < gated.size(); ++i) {
      const double g = gate[i];
      const double gelu = 0.5 * g * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (g + 0.044715 * g * g * g)));
      gated[i] *= m_.gemma() ? gelu : g / (1 + std::exp(-g));
    }
    return Multiply(prefix + "ffn_down.weight", gated, m_.width);
  }

  TinyModel m_;
  std::map<std::string, TinyModel::Tensor> tensors_;
};

struct Opened {
  std::unique_ptr<Model> model;
  std::unique_ptr<Cache> cache;
};

Result<Opened> Open(const std::vector<std::byte>& bytes, ModelOptions options, Form form = {Codec::kF32, Codec::kF32}) {
  const TemporaryFile on_disk(bytes);
  KVIST_TRY(auto file, GgufFile::Open(on_disk.path()));
  KVIST_TRY(auto model, Model::Open(file, options));
  KVIST_TRY(auto cache, Cache::Open(model->geometry(), {.form = form, .budget_bytes = 64 << 20}));
  return Opened{std::move(model), std::move(cache)};
}

Opened OpenOrFail(const TinyModel& model, ModelOptions options = {.num_threads = 2}) {
  auto opened = Open(model.Build(), options);
  REQUIRE_MESSAGE(opened.has_value(), opened.error().message);
  return *std::move(opened);
}

std::vector<Token> RandomTokens(size_t count, int vocabulary, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<Token> tokens;
  for (size_t i = 0; i < count; ++i) tokens.push_back(static_cast<Token>(random() % static_cast<uint32_t>(vocabulary)));
  return tokens;
}

// The logits of all tokens, fed `piece` at a time.
std::vector<float> Logits(Model& model, Cache& cache, std::span<const Token> tokens, size_t piece) {
  Sequence sequence = cache.Begin();
  std::vector<float> all;
  for (size_t begin = 0; begin < tokens.size(); begin += piece) {
    const BatchItem item{&sequence, tokens.subspan(begin, std::min(piece, tokens.size() - begin)), LogitsWanted::kAll};
    const auto logits = model.Forward({&item, 1});
    REQUIRE_MESSAGE(logits.has_value(), logits.error().message);
    all.insert(all.end(), logits->begin(), logits->end());
  }
  return all;
}

bool SameBits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

std::vector<TinyModel> Families() {
  TinyModel llama;
  TinyModel llama3;  // frequency factors, own output, grouped heads of other sizes, part of the channels rotated
  llama3.own_output = true;
  llama3.frequency_factors = true;
  llama3.key_dim = 16;
  llama3.value_dim = 24;
  llama3.query_heads = 6;
  llama3.kv_heads = 2;
  TinyModel biased;
  biased.bias = true;
  biased.rope_scale_factor = 4.0F;
  TinyModel mistral;
  mistral.window = 9;
  TinyModel qwen2;
  qwen2.architecture = "qwen2";
  qwen2.bias = true;
  qwen2.rope_base = 1e6F;
  TinyModel qwen3;
  qwen3.architecture = "qwen3";
  qwen3.key_dim = 16;
  qwen3.value_dim = 16;
  qwen3.rope_dims = 16;
  qwen3.kv_heads = 1;
  TinyModel gemma;
  gemma.architecture = "gemma3";
  gemma.num_layers = 7;
  gemma.window = 5;
  gemma.rope_base = 1e6F;
  gemma.key_dim = 16;
  gemma.value_dim = 16;
  gemma.rope_dims = 16;
  gemma.kv_heads = 1;
  TinyModel gemma_long = gemma;
  gemma_long.rope_scale_factor = 8.0F;
  return {llama, llama3, biased, mistral, qwen2, qwen3, gemma, gemma_long};
}

TEST_CASE("model: every family agrees with plain loops") {
  int index = 0;
  for (const TinyModel& tiny : Families()) {
    CAPTURE(index++);
    CAPTURE(tiny.architecture);
    const Opened opened = OpenOrFail(tiny, {.num_threads = 1});
    const std::vector<Token> tokens = RandomTokens(70, tiny.vocabulary, 3);
    const auto expected = NaiveModel(tiny).Forward(tokens);
    const std::vector<float> logits = Logits(*opened.model, *opened.cache, tokens, 16);
    double worst = 0;
    for (size_t t = 0; t < tokens.size(); ++t) {
      for (size_t i = 0; i < expected[t].size(); ++i) {
        worst = std::max(worst, std::abs(expected[t][i] - logits[t * expected[t].size() + i]));
      }
    }
    // Logits here are of size 5. ggml looks the GELU up in a table of half floats, so Gemma has 11 bits of it.
    CHECK(worst < (tiny.gemma() ? 3e-2 : 1e-4));
    CHECK(worst > 0);
  }
}

TEST_CASE("model: logits do not depend on pieces, batch or threads") {
  for (const TinyModel& tiny : Families()) {
    CAPTURE(tiny.architecture);
    const Opened one = OpenOrFail(tiny, {.num_threads = 1});
    const Opened two = OpenOrFail(tiny, {.num_threads = 2});
    const std::vector<Token> tokens = RandomTokens(70, tiny.vocabulary, 4);
    const std::vector<float> expected = Logits(*one.model, *one.cache, tokens, tokens.size());
    for (const size_t piece : {size_t{1}, size_t{7}, size_t{64}}) {
      CAPTURE(piece);
      CHECK(SameBits(Logits(*one.model, *one.cache, tokens, piece), expected));
      // ggml's threads wait for each other spinning, which takes long on a busy machine: few steps for two of them.
      if (piece > 1) CHECK(SameBits(Logits(*two.model, *two.cache, tokens, piece), expected));
    }
    // In a batch of four, with others before and after, of which only the last token is asked.
    std::vector<Sequence> sequences;
    for (int i = 0; i < 4; ++i) sequences.push_back(two.cache->Begin());
    const std::vector<Token> other = RandomTokens(33, tiny.vocabulary, 5);
    const std::vector<BatchItem> batch = {{&sequences[0], other, LogitsWanted::kNone},
                                          {&sequences[1], std::span(other).first(1), LogitsWanted::kLast},
                                          {&sequences[2], tokens, LogitsWanted::kAll},
                                          {&sequences[3], other, LogitsWanted::kLast}};
    const auto logits = two.model->Forward(batch);
    REQUIRE_MESSAGE(logits.has_value(), logits.error().message);
    const auto row = static_cast<size_t>(tiny.vocabulary);
    REQUIRE(logits->size() == row * (1 + tokens.size() + 1));
    CHECK(SameBits(logits->subspan(row, expected.size()), expected));
    const std::vector<float> others = Logits(*one.model, *one.cache, other, 5);
    CHECK(SameBits(logits->first(row), std::span(others).first(row)));
    CHECK(SameBits(logits->last(row), std::span(others).last(row)));
    CHECK(sequences[0].num_tokens() == 33);
  }
}

TEST_CASE("model: what a sequence observes does not depend on which logits are wanted") {
  const TinyModel tiny;
  const Opened rig = OpenOrFail(tiny, {.num_threads = 1});
  const std::vector<Token> tokens = RandomTokens(200, tiny.vocabulary, 8);
  for (const RetentionPolicy policy : {RetentionPolicy::kH2o, RetentionPolicy::kSnapKv, RetentionPolicy::kExpected}) {
    CAPTURE(RetentionPolicyName(policy));
    std::vector<std::vector<int64_t>> kept;  // of the last layer
    for (const LogitsWanted wanted : {LogitsWanted::kNone, LogitsWanted::kAll}) {
      Sequence sequence = rig.cache->Begin();
      REQUIRE(sequence.Observe(policy));
      for (const size_t begin : {0, 100}) {
        const BatchItem item{.sequence = &sequence, .tokens = std::span(tokens).subspan(begin, 100), .logits = wanted};
        REQUIRE(rig.model->Forward(std::span(&item, 1)));
      }
      REQUIRE(sequence.Retain({.policy = policy, .recent_tokens = 16, .sink_tokens = 0}, 80));
      kept.push_back(sequence.HeldPositions(int(rig.model->geometry().layers.size()) - 1, 0));
    }
    CHECK(kept[0] == kept[1]);
  }
}

TEST_CASE("model: weights as f32 give what the file's own f32 gives; fingerprints tell them apart") {
  TinyModel tiny;
  const Opened mapped = OpenOrFail(tiny);
  const Opened expanded = OpenOrFail(tiny, {.num_threads = 1, .weights = WeightsForm::kF32});
  const std::vector<Token> tokens = RandomTokens(20, tiny.vocabulary, 6);
  CHECK(
      SameBits(Logits(*mapped.model, *mapped.cache, tokens, 20), Logits(*expanded.model, *expanded.cache, tokens, 20)));
  CHECK(mapped.model->fingerprint() == OpenOrFail(tiny).model->fingerprint());
  CHECK_FALSE(mapped.model->fingerprint() == expanded.model->fingerprint());
  tiny.seed = 2;
  CHECK_FALSE(mapped.model->fingerprint() == OpenOrFail(tiny).model->fingerprint());
}

TEST_CASE("model: half-float weights, expanded, equal the same numbers") {
  const TinyModel tiny;
  GgufBuilder halves = tiny.Metadata();
  GgufBuilder rounded = tiny.Metadata();
  for (const auto& [name, tensor] : tiny.Tensors()) {
    std::vector<ggml_fp16_t> half(tensor.data.size());
    std::vector<float> back(tensor.data.size());
    ggml_fp32_to_fp16_row(tensor.data.data(), half.data(), static_cast<int64_t>(half.size()));
    ggml_fp16_to_fp32_row(half.data(), back.data(), static_cast<int64_t>(half.size()));
    const auto bytes = std::as_bytes(std::span(half));
    halves.AddTensor(name, GGML_TYPE_F16, tensor.shape, {bytes.begin(), bytes.end()});
    rounded.AddTensor(name, tensor.shape, back);
  }
  const auto a = Open(halves.Build(), {.num_threads = 1, .weights = WeightsForm::kF32});
  const auto b = Open(rounded.Build(), {.num_threads = 1});
  REQUIRE(a.has_value());
  REQUIRE(b.has_value());
  const std::vector<Token> tokens = RandomTokens(20, tiny.vocabulary, 6);
  CHECK(SameBits(Logits(*a->model, *a->cache, tokens, 20), Logits(*b->model, *b->cache, tokens, 20)));
}

TEST_CASE("model: wrong use is an error and changes nothing") {
  const TinyModel tiny;
  const Opened opened = OpenOrFail(tiny);
  Sequence sequence = opened.cache->Begin();
  const auto code = [&](std::vector<BatchItem> batch) {
    const auto logits = opened.model->Forward(batch);
    return logits ? "ok" : ErrorCodeName(logits.error().code);
  };
  const std::vector<Token> good = {1, 2, 3};
  CHECK(code({}) == std::string("invalid_argument"));
  CHECK(code({{&sequence, {}}}) == std::string("invalid_argument"));
  CHECK(code({{&sequence, std::vector<Token>{1, 50}}}) == std::string("invalid_argument"));
  CHECK(code({{&sequence, std::vector<Token>{-1}}}) == std::string("invalid_argument"));
  CHECK(code({{&sequence, good}, {&sequence, good}}) == std::string("invalid_argument"));
  CHECK(code({{&sequence, std::vector<Token>(257)}}) == std::string("out_of_range"));
  CHECK(code({{&sequence, std::vector<Token>(Model::kMaxBatchTokens + 1)}}) == std::string("invalid_argument"));
  CHECK(sequence.num_tokens() == 0);
  CHECK(code({{&sequence, std::vector<Token>(256)}}) == std::string("ok"));
  CHECK(code({{&sequence, std::vector<Token>(1)}}) == std::string("out_of_range"));
  CHECK(sequence.num_tokens() == 256);
  CHECK_FALSE(Open(tiny.Build(), {.num_threads = -1}).has_value());
  CHECK_FALSE(Open(tiny.Build(), {.num_threads = 100'000}).has_value());
}

TEST_CASE("model: a cache without room is an error and changes no sequence") {
  const TinyModel tiny;
  const Opened opened = OpenOrFail(tiny);
  const auto small = Cache::Open(opened.model->geometry(), {.form = {}, .budget_bytes = 64 << 10});
  if (!small) return;  // refused at once: just as well
  std::vector<Sequence> sequences;
  for (int i = 0; i < 40; ++i) sequences.push_back((*small)->Begin());
  const std::vector<Token> tokens(50, 1);
  std::vector<BatchItem> batch;
  for (Sequence& sequence : sequences) batch.push_back({&sequence, tokens});
  const auto logits = opened.model->Forward(batch);
  REQUIRE_FALSE(logits.has_value());
  CHECK(logits.error().code == ErrorCode::kOutOfMemory);
  for (const Sequence& sequence : sequences) CHECK(sequence.num_tokens() == 0);
}

TEST_CASE("model: missing, misshapen and unknown tensors") {
  const TinyModel tiny;
  const auto build = [&](const std::string& changed, const std::function<void(TinyModel::Tensor&)>& change,
                         const std::string& extra = "") {
    GgufBuilder builder = tiny.Metadata();
    for (auto& [name, tensor] : tiny.Tensors()) {
      auto copy = tensor;
      if (name == changed) change(copy);
      if (!copy.data.empty()) builder.AddTensor(name, copy.shape, copy.data);
    }
    if (!extra.empty()) builder.AddTensor(extra, {4}, std::vector<float>(4));
    return Open(builder.Build(), {.num_threads = 1});
  };
  for (const auto& [name, tensor] : tiny.Tensors()) {
    CAPTURE(name);
    const auto missing = build(name, [](TinyModel::Tensor& t) { t.data.clear(); });
    REQUIRE_FALSE(missing.has_value());
    CHECK(missing.error().code == ErrorCode::kCorrupt);
    CHECK(missing.error().message.find(name) != std::string::npos);
    const auto misshapen = build(name, [](TinyModel::Tensor& t) {
      t.shape[0] += 1;
      t.data.resize(t.shape[0] * (t.shape.size() > 1 ? t.shape[1] : 1));
    });
    REQUIRE_FALSE(misshapen.has_value());
    CHECK(misshapen.error().code == ErrorCode::kCorrupt);
    CHECK(misshapen.error().message.find("shape") != std::string::npos);
  }
  const auto unknown = build("", {}, "blk.0.ssm_conv.weight");
  REQUIRE_FALSE(unknown.has_value());
  CHECK(unknown.error().code == ErrorCode::kUnsupported);
  CHECK(unknown.error().message.find("blk.0.ssm_conv.weight") != std::string::npos);
}

TEST_CASE("model: tensor types that can't be used") {
  const TinyModel tiny;
  for (const ggml_type type : {GGML_TYPE_I32, GGML_TYPE_F64, GGML_TYPE_Q8_1, GGML_TYPE_I8}) {
    for (const char* changed : {"token_embd.weight", "blk.1.attn_k.weight", "blk.0.attn_norm.weight"}) {
      CAPTURE(ggml_type_name(type));
      CAPTURE(changed);
      GgufBuilder builder = tiny.Metadata();
      for (const auto& [name, tensor] : tiny.Tensors()) {
        if (name != changed) {
          builder.AddTensor(name, tensor.shape, tensor.data);
          continue;
        }
        const auto num_blocks = tensor.data.size() / static_cast<size_t>(ggml_blck_size(type));
        builder.AddTensor(name, type, tensor.shape, std::vector<std::byte>(num_blocks * ggml_type_size(type)));
      }
      const auto opened = Open(builder.Build(), {.num_threads = 1});
      REQUIRE_FALSE(opened.has_value());
      CHECK(opened.error().code == ErrorCode::kUnsupported);
    }
  }
}

TEST_CASE("model: a damaged file gives an error or a model that runs, never a crash") {
  TinyModel tiny;
  tiny.num_layers = 1;
  const std::vector<std::byte> sound = tiny.Build();
  const size_t data_bytes = [&] {
    size_t sum = 0;
    for (const auto& [name, tensor] : tiny.Tensors()) sum += (tensor.data.size() * 4 + 31) / 32 * 32;
    return sum;
  }();
  std::mt19937 random(7);
  int num_sound = 0;
  for (int round = 0; round < 3000; ++round) {
    CAPTURE(round);
    auto bytes = sound;
    for (uint32_t i = 0; i <= random() % 3; ++i) {
      const uint8_t choices[] = {0, 1, 0x7f, 0x80, 0xff, static_cast<uint8_t>(random())};
      bytes[random() % (bytes.size() - data_bytes)] = std::byte{choices[random() % std::size(choices)]};
    }
    const auto opened = Open(bytes, {.num_threads = 1});
    if (!opened) {
      CHECK_FALSE(opened.error().message.empty());
      continue;
    }
    ++num_sound;
    Sequence sequence = opened->cache->Begin();
    const std::vector<Token> tokens = {1, 2, 3};
    const BatchItem item{&sequence, tokens, LogitsWanted::kLast};
    const auto logits = opened->model->Forward({&item, 1});
    if (!logits) CHECK_FALSE(logits.error().message.empty());
  }
  MESSAGE(num_sound << " of 3000 damaged models still ran");
}

}  // namespace
}  // namespace kvist::model_test
