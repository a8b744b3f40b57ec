// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "model/model_config.h"

#include <doctest/doctest.h>

#include <cmath>
#include <functional>

#include "model/tiny_model.h"

namespace kvist::model_config_test {
namespace {

Result<ModelConfig> Read(const std::vector<std::byte>& bytes) {
  const TemporaryFile on_disk(bytes);
  KVIST_TRY(const auto file, GgufFile::Open(on_disk.path()));
  return ReadModelConfig(*file);
}

// A tiny Llama's metadata, changed, with the one tensor the configuration looks at.
Result<ModelConfig> ReadWith(const std::function<void(GgufBuilder&)>& change, TinyModel model = {}) {
  GgufBuilder builder = model.Metadata();
  change(builder);
  const auto embedding = model.Tensors()["token_embd.weight"];
  builder.AddTensor("token_embd.weight", embedding.shape, embedding.data);
  return Read(builder.Build());
}

void CheckFails(const Result<ModelConfig>& config, ErrorCode code, const char* part_of_message) {
  REQUIRE_FALSE(config.has_value());
  CAPTURE(config.error().message);
  CHECK(ErrorCodeName(config.error().code) == std::string(ErrorCodeName(code)));
  CHECK(config.error().message.find(part_of_message) != std::string::npos);
}

TEST_CASE("model config: llama") {
  TinyModel model;
  model.frequency_factors = true;
  model.rope_scale_factor = 4.0F;
  const auto config = Read(model.Build());
  REQUIRE_MESSAGE(config.has_value(), config.error().message);
  CHECK(config->architecture == "llama");
  CHECK(config->num_layers() == 3);
  CHECK(config->num_vocabulary == 50);
  CHECK(config->context_length == 256);
  CHECK(config->num_embedding == 32);
  CHECK_FALSE(config->qkv_bias);
  CHECK(config->embedding_scale == 1.0F);
  const LayerGeometry& layer = config->geometry.layers[2];
  CHECK(layer.num_query_heads == 4);
  CHECK(layer.num_kv_heads == 2);
  CHECK(layer.window == 0);
  CHECK(layer.attention_scale == doctest::Approx(1.0 / std::sqrt(8.0)));
  CHECK(layer.rope.pairing == RopePairing::kAdjacent);
  CHECK(layer.rope.position_scale == 0.25F);
  CHECK(layer.rope.frequency_factors == std::vector<float>{1.0F, 1.75F, 2.5F, 3.25F});
}

TEST_CASE("model config: gemma3 has windows on five layers of six, with their own RoPE") {
  TinyModel model;
  model.architecture = "gemma3";
  model.num_layers = 7;
  model.window = 16;
  model.rope_base = 1e6F;
  model.rope_scale_factor = 8.0F;
  const auto config = Read(model.Build());
  REQUIRE_MESSAGE(config.has_value(), config.error().message);
  CHECK(config->embedding_scale == doctest::Approx(std::sqrt(32.0)));
  CHECK(config->activation == Activation::kGeluTanh);
  CHECK(config->qk_norm);
  CHECK(config->post_norms);
  for (size_t i = 0; i < 7; ++i) {
    const LayerGeometry& layer = config->geometry.layers[i];
    const bool global = i == 5;
    CHECK(layer.window == (global ? 0 : 16));
    CHECK(layer.rope.base == (global ? 1e6F : 10000.0F));
    CHECK(layer.rope.position_scale == (global ? 0.125F : 1.0F));
    CHECK(layer.rope.pairing == RopePairing::kHalves);
  }
}

TEST_CASE("model config: unknown architectures and features are refused with what is known") {
  TinyModel model;
  model.architecture = "mamba";
  CheckFails(Read(model.Build()), ErrorCode::kUnsupported, "llama, qwen2, qwen3, gemma3");
  CheckFails(ReadWith([](GgufBuilder& b) { b.AddUint("llama.expert_count", 8); }), ErrorCode::kUnsupported,
             "llama.expert_count");
  CHECK(ReadWith([](GgufBuilder& b) { b.AddUint("llama.expert_count", 0); }).has_value());
  CheckFails(ReadWith([](GgufBuilder& b) { b.AddString("llama.rope.scaling.type", "yarn"); }), ErrorCode::kUnsupported,
             "'yarn'");
  CheckFails(ReadWith([](GgufBuilder& b) { b.AddFloat("llama.rope.scaling.attn_factor", 1.2F); }),
             ErrorCode::kUnsupported, "attn_factor");
  CheckFails(ReadWith([](GgufBuilder& b) { b.AddFloat("llama.final_logit_softcapping", 30.0F); }),
             ErrorCode::kUnsupported, "final_logit_softcapping");
  model.architecture = "qwen2";
  CheckFails(ReadWith([](GgufBuilder& b) { b.AddUint("qwen2.attention.sliding_window", 4096); }, model),
             ErrorCode::kUnsupported, "sliding_window");
}

TEST_CASE("model config: missing and absurd values") {
  GgufBuilder empty;
  CheckFails(Read(empty.Build()), ErrorCode::kCorrupt, "general.architecture");
  empty.AddString("general.architecture", "llama");
  CheckFails(Read(empty.Build()), ErrorCode::kCorrupt, "llama.block_count");
  const std::vector<std::pair<std::function<void(TinyModel&)>, const char*>> damages = {
      {[](TinyModel& m) { m.num_layers = 0; }, "block_count is 0"},
      {[](TinyModel& m) { m.num_layers = 1'000'000; }, "block_count is 1000000"},
      {[](TinyModel& m) { m.width = 0; }, "embedding_length"},
      {[](TinyModel& m) { m.feed_forward = 1 << 30; }, "feed_forward_length"},
      {[](TinyModel& m) { m.context = 0; }, "context_length"},
      {[](TinyModel& m) { m.context = -1; }, "context_length is 4294967295"},
      {[](TinyModel& m) { m.query_heads = 1 << 20; }, "head_count"},
      {[](TinyModel& m) { m.key_dim = 1 << 20; }, "key_length"},
      {[](TinyModel& m) { m.rope_dims = 7; }, "odd"},
      {[](TinyModel& m) { m.rope_dims = 16; }, "rope.dimension_count is 16"},
      {[](TinyModel& m) { m.rope_base = 0.0F; }, "freq_base"},
      {[](TinyModel& m) { m.rope_base = NAN; }, "freq_base"},
      {[](TinyModel& m) { m.rope_base = INFINITY; }, "freq_base"},
      {[](TinyModel& m) { m.rope_scale_factor = -2.0F; }, "scaling.factor"},
  };
  for (const auto& [damage, part] : damages) {
    TinyModel model;
    damage(model);
    GgufBuilder builder = model.Metadata();
    builder.AddTensor("token_embd.weight", {32, 50}, std::vector<float>(32 * 50));
    CheckFails(Read(builder.Build()), ErrorCode::kCorrupt, part);
  }
  // Sound, but not what the cache can hold.
  for (const auto& [dim, kv_heads] : {std::pair{12, 2}, {1024, 2}, {8, 3}}) {
    TinyModel model;
    model.key_dim = dim;
    model.kv_heads = kv_heads;
    const auto config = ReadWith([](GgufBuilder&) {}, model);
    REQUIRE_FALSE(config.has_value());
    CHECK(config.error().code == ErrorCode::kUnsupported);
  }
  CheckFails(ReadWith([](GgufBuilder& b) { b.AddTensor("rope_freqs.weight", {3}, std::vector<float>(3, 1.0F)); }),
             ErrorCode::kCorrupt, "rope_freqs.weight");
  CheckFails(ReadWith([](GgufBuilder& b) { b.AddTensor("rope_freqs.weight", {4}, std::vector<float>(4, 0.0F)); }),
             ErrorCode::kCorrupt, "not positive");
}

}  // namespace
}  // namespace kvist::model_config_test
