// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "model/model_config.h"

#include <cmath>
#include <cstring>
#include <string_view>
#include <utility>
#include <variant>

namespace kvist {
namespace {

// What sets a family apart. Everything else is read from the file.
struct ModelFamily {
  std::string_view architecture;
  RopePairing pairing;
  Activation activation = Activation::kSilu;
  bool qkv_bias = false;
  bool qk_norm = false;
  bool gemma = false;  // scaled embeddings, norms on both sides, sliding-window layers with a RoPE of their own
};

constexpr ModelFamily kModelFamilies[] = {
    {.architecture = "llama", .pairing = RopePairing::kAdjacent},
    {.architecture = "qwen2", .pairing = RopePairing::kHalves, .qkv_bias = true},
    {.architecture = "qwen3", .pairing = RopePairing::kHalves, .qk_norm = true},
    {.architecture = "gemma3",
     .pairing = RopePairing::kHalves,
     .activation = Activation::kGeluTanh,
     .qk_norm = true,
     .gemma = true},
};

// Wide bounds: beyond them a file is damaged, not large. Their products stay far from overflow.
constexpr uint64_t kMaxLayers = 1024;
constexpr uint64_t kMaxWidth = 1 << 18;
constexpr uint64_t kMaxHeads = 4096;
constexpr uint64_t kMaxVocabulary = 1 << 22;
constexpr uint64_t kMaxContext = 1 << 28;

// Gemma 3: every sixth layer sees everything, the others a window, where RoPE turns at its own base.
constexpr uint64_t kGemmaWindowPeriod = 6;
constexpr double kGemmaWindowRopeBase = 10000.0;
// The 27B model alone scales attention by its embedding's share per head; the file does not say so.
constexpr int kGemma27BLayers = 62;

constexpr std::string_view kFrequencyFactors = "rope_freqs.weight";

// Reads the keys of one architecture ("llama." + key) and checks their ranges.
class Keys {
 public:
  Keys(const GgufFile& file, std::string_view architecture) : file_(file), prefix_(std::string(architecture) + ".") {}

  std::string Name(std::string_view key) const { return prefix_ + std::string(key); }
  bool Has(std::string_view key) const { return file_.Find(Name(key)) != nullptr; }
  const GgufValue* Find(std::string_view key) const { return file_.Find(Name(key)); }

  Result<int> Count(std::string_view key, uint64_t min, uint64_t max) const {
    KVIST_TRY_VOID(OneValue(key));
    KVIST_TRY(const uint64_t value, file_.GetUint(Name(key)));
    return Checked(key, value, min, max);
  }
  Result<int> CountOr(std::string_view key, int otherwise, uint64_t min, uint64_t max) const {
    return Has(key) ? Count(key, min, max) : Checked(key, static_cast<uint64_t>(otherwise), min, max);
  }
  Result<float> Positive(std::string_view key, double max) const {
    KVIST_TRY(const double value, file_.GetFloat(Name(key)));
    return Checked(key, value, max);
  }
  Result<float> PositiveOr(std::string_view key, double otherwise, double max) const {
    KVIST_TRY(const double value, file_.FloatOr(Name(key), otherwise));
    return Checked(key, value, max);
  }
  Result<std::string_view> StringOr(std::string_view key, std::string_view otherwise) const {
    return file_.StringOr(Name(key), otherwise);
  }

  // These features change the result and are not built: better none than a wrong answer.
  Status RefuseUnlessZero(std::string_view key) const {
    const GgufValue* value = Find(key);
    if (value == nullptr) return {};
    const bool zero = std::visit(
        [](const auto& v) {
          if constexpr (std::is_arithmetic_v<std::decay_t<decltype(v)>>) return v == std::decay_t<decltype(v)>{};
          return false;
        },
        *value);
    return zero ? Status() : Unsupported(Name(key) + " is set, which this build can't do");
  }

  std::unexpected<Error> Unsupported(const std::string& what) const {
    return Fail(ErrorCode::kUnsupported, file_.path() + ": " + what);
  }
  std::unexpected<Error> Corrupt(const std::string& what) const {
    return Fail(ErrorCode::kCorrupt, file_.path() + ": " + what);
  }

 private:
  Status OneValue(std::string_view key) const {
    const GgufValue* value = Find(key);
    if (value == nullptr) return {};
    const bool array =
        std::holds_alternative<std::vector<uint64_t>>(*value) || std::holds_alternative<std::vector<int64_t>>(*value);
    if (array) return Unsupported(Name(key) + " differs by layer, which this build can't do");
    return {};
  }
  Result<int> Checked(std::string_view key, uint64_t value, uint64_t min, uint64_t max) const {
    if (value < min || value > max) {
      return Corrupt(Name(key) + " is " + std::to_string(value) + ", not between " + std::to_string(min) + " and " +
                     std::to_string(max));
    }
    return static_cast<int>(value);
  }
  Result<float> Checked(std::string_view key, double value, double max) const {
    // Written so that a NaN fails.
    if (!(value > 0.0 && value <= max)) {
      return Corrupt(Name(key) + " is " + std::to_string(value) + ", not above 0 and at most " + std::to_string(max));
    }
    return static_cast<float>(value);
  }

  const GgufFile& file_;
  std::string prefix_;
};

Result<const ModelFamily*> FindModelFamily(const GgufFile& file) {
  KVIST_TRY(const std::string_view architecture, file.GetString("general.architecture"));
  std::string known;
  for (const ModelFamily& family : kModelFamilies) {
    if (family.architecture == architecture) return &family;
    known += (known.empty() ? "" : ", ") + std::string(family.architecture);
  }
  return Fail(ErrorCode::kUnsupported, file.path() + " has architecture '" + std::string(architecture.substr(0, 64)) +
                                           "'; this build knows " + known);
}

Result<int> VocabularySize(const GgufFile& file, const Keys& keys) {
  const GgufTensor* embedding = file.FindTensor("token_embd.weight");
  if (embedding == nullptr || embedding->shape.size() < 2) return keys.Corrupt("tensor token_embd.weight is missing");
  const uint64_t size = embedding->shape[1];
  if (size > kMaxVocabulary) return keys.Corrupt("a vocabulary of " + std::to_string(size) + " is absurd");
  return static_cast<int>(size);
}

Result<std::vector<float>> FrequencyFactors(const GgufFile& file, const Keys& keys, int rope_dims) {
  const GgufTensor* tensor = file.FindTensor(kFrequencyFactors);
  if (tensor == nullptr) return std::vector<float>();
  const auto num_factors = static_cast<uint64_t>(rope_dims / 2);
  if (tensor->type != 0 || tensor->shape != std::vector<uint64_t>{num_factors}) {
    return keys.Corrupt(std::string(kFrequencyFactors) + " is not " + std::to_string(num_factors) + " f32 numbers");
  }
  std::vector<float> factors(num_factors);
  std::memcpy(factors.data(), tensor->data.data(), tensor->data.size());
  for (const float factor : factors) {
    if (!(factor > 0.0F && std::isfinite(factor))) {
      return keys.Corrupt(std::string(kFrequencyFactors) + " has a factor that is not positive");
    }
  }
  return factors;
}

// 1 / factor of linear position scaling; 1 without.
Result<float> PositionScale(const Keys& keys) {
  KVIST_TRY(const std::string_view type,
            keys.StringOr("rope.scaling.type", keys.Has("rope.scaling.factor") ? "linear" : "none"));
  if (type == "none") {
    KVIST_TRY(const float factor, keys.PositiveOr("rope.scale_linear", 1.0, 1e6));  // the older name
    return 1.0F / factor;
  }
  if (type == "linear") {
    KVIST_TRY(const float factor, keys.PositiveOr("rope.scaling.factor", 1.0, 1e6));
    return 1.0F / factor;
  }
  return keys.Unsupported("RoPE scaling of type '" + std::string(type.substr(0, 64)) +
                          "' is not supported; this build knows none, linear and frequency factors");
}

Result<RopeSpec> ReadRope(const GgufFile& file, const Keys& keys, const ModelFamily& family, int key_dim) {
  RopeSpec rope;
  rope.pairing = family.pairing;
  KVIST_TRY(rope.dims, keys.CountOr("rope.dimension_count", key_dim, 2, static_cast<uint64_t>(key_dim)));
  if (rope.dims % 2 != 0) return keys.Corrupt(keys.Name("rope.dimension_count") + " is odd");
  KVIST_TRY(rope.base, keys.PositiveOr("rope.freq_base", 10000.0, 1e12));
  KVIST_TRY(rope.position_scale, PositionScale(keys));
  KVIST_TRY(rope.frequency_factors, FrequencyFactors(file, keys, rope.dims));
  return rope;
}

// Which layers see a window: Gemma 3 all but every sixth, unless the file gives another period or a list.
Result<std::vector<bool>> WindowLayers(const Keys& keys, size_t num_layers) {
  const std::string_view key = "attention.sliding_window_pattern";
  if (const GgufValue* value = keys.Find(key)) {
    if (const auto* list = std::get_if<std::vector<bool>>(value)) {
      if (list->size() != num_layers) return keys.Corrupt(keys.Name(key) + " has not one entry a layer");
      return *list;
    }
  }
  KVIST_TRY(const int period, keys.CountOr(key, kGemmaWindowPeriod, 1, kMaxLayers));
  std::vector<bool> windowed(num_layers);
  for (size_t i = 0; i < num_layers; ++i) {
    windowed[i] = (i + 1) % static_cast<size_t>(period) != 0;
  }
  return windowed;
}

Status ApplyGemma(const Keys& keys, ModelConfig& config) {
  config.embedding_scale = std::sqrt(static_cast<float>(config.num_embedding));
  config.post_norms = true;
  KVIST_TRY(const int window, keys.Count("attention.sliding_window", 1, kMaxContext));
  KVIST_TRY(const float window_base, keys.PositiveOr("rope.freq_base_swa", kGemmaWindowRopeBase, 1e12));
  KVIST_TRY(const std::vector<bool> windowed, WindowLayers(keys, config.geometry.layers.size()));
  for (size_t i = 0; i < windowed.size(); ++i) {
    LayerGeometry& layer = config.geometry.layers[i];
    if (config.num_layers() == kGemma27BLayers) {
      layer.attention_scale =
          1.0F / std::sqrt(static_cast<float>(config.num_embedding) / static_cast<float>(config.num_query_heads));
    }
    if (!windowed[i]) continue;
    layer.window = window;
    layer.rope.base = window_base;
    layer.rope.position_scale = 1.0F;  // only the layers that see far were stretched
    layer.rope.frequency_factors.clear();
  }
  return {};
}

// Mistral's first model: every layer sees a window. The other families name the key only for layers of their own
// choice.
Status ApplyWindow(const Keys& keys, const ModelFamily& family, ModelConfig& config) {
  if (family.architecture != "llama") return keys.RefuseUnlessZero("attention.sliding_window");
  KVIST_TRY(const int window, keys.CountOr("attention.sliding_window", 0, 0, kMaxContext));
  for (LayerGeometry& layer : config.geometry.layers) layer.window = window;
  return {};
}

Status RefuseWhatIsNotBuilt(const Keys& keys) {
  for (const std::string_view key :
       {"expert_count", "attn_logit_softcapping", "final_logit_softcapping", "logit_scale", "residual_scale",
        "embedding_scale", "attention.scale", "attention.clamp_kqv", "attention.max_alibi_bias"}) {
    KVIST_TRY_VOID(keys.RefuseUnlessZero(key));
  }
  KVIST_TRY(const float factor, keys.PositiveOr("rope.scaling.attn_factor", 1.0, 1e6));
  if (factor != 1.0F)
    return keys.Unsupported(keys.Name("rope.scaling.attn_factor") + " is set, which this build can't do");
  return {};
}

}  // namespace

Result<ModelConfig> ReadModelConfig(const GgufFile& file) {
  KVIST_TRY(const ModelFamily* family, FindModelFamily(file));
  const Keys keys(file, family->architecture);
  KVIST_TRY_VOID(RefuseWhatIsNotBuilt(keys));

  ModelConfig config;
  config.architecture = family->architecture;
  KVIST_TRY(config.name, file.StringOr("general.name", ""));
  config.activation = family->activation;
  config.qk_norm = family->qk_norm;
  // Some Llama-like models have biases as well; the file shows it.
  config.qkv_bias = family->qkv_bias || file.FindTensor("blk.0.attn_q.bias") != nullptr;

  KVIST_TRY(const int num_layers, keys.Count("block_count", 1, kMaxLayers));
  KVIST_TRY(config.context_length, keys.Count("context_length", 1, kMaxContext));
  KVIST_TRY(config.num_embedding, keys.Count("embedding_length", 1, kMaxWidth));
  KVIST_TRY(config.num_feed_forward, keys.Count("feed_forward_length", 1, kMaxWidth));
  KVIST_TRY(config.num_vocabulary, VocabularySize(file, keys));
  KVIST_TRY(config.num_query_heads, keys.Count("attention.head_count", 1, kMaxHeads));
  KVIST_TRY(config.num_kv_heads, keys.CountOr("attention.head_count_kv", config.num_query_heads, 1, kMaxHeads));
  if (!keys.Has("attention.key_length") && config.num_embedding % config.num_query_heads != 0) {
    return keys.Corrupt("the embedding length is not a multiple of the head count");
  }
  const int head_dim = config.num_embedding / config.num_query_heads;
  KVIST_TRY(config.key_dim, keys.CountOr("attention.key_length", head_dim, 1, kMaxWidth));
  KVIST_TRY(config.value_dim, keys.CountOr("attention.value_length", head_dim, 1, kMaxWidth));
  KVIST_TRY(config.norm_epsilon, keys.Positive("attention.layer_norm_rms_epsilon", 1.0));

  LayerGeometry layer;
  layer.num_query_heads = config.num_query_heads;
  layer.num_kv_heads = config.num_kv_heads;
  layer.key_dim = config.key_dim;
  layer.value_dim = config.value_dim;
  layer.attention_scale = 1.0F / std::sqrt(static_cast<float>(config.key_dim));
  KVIST_TRY(layer.rope, ReadRope(file, keys, *family, config.key_dim));
  config.geometry.layers.assign(static_cast<size_t>(num_layers), layer);
  KVIST_TRY_VOID(family->gemma ? ApplyGemma(keys, config) : ApplyWindow(keys, *family, config));
  if (const Status valid = config.geometry.Validate(); !valid) return keys.Unsupported(valid.error().message);
  return config;
}

}  // namespace kvist
