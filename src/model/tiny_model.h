// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cmath>
#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "model/gguf_builder.h"

namespace kvist {

// A model of random weights, small enough for a test to compute by hand (tests only).
struct TinyModel {
  std::string architecture = "llama";
  int num_layers = 3;
  int width = 32;
  int feed_forward = 48;
  int vocabulary = 50;
  int query_heads = 4;
  int kv_heads = 2;
  int key_dim = 8;
  int value_dim = 8;
  int rope_dims = 8;
  int context = 256;
  float rope_base = 10000.0F;
  float rope_scale_factor = 1.0F;  // linear scaling, when not 1
  int window = 0;                  // written when not 0
  bool bias = false;
  bool own_output = false;  // not the token embedding
  bool frequency_factors = false;
  uint32_t seed = 1;

  bool gemma() const { return architecture == "gemma3"; }
  bool qk_norm() const { return gemma() || architecture == "qwen3"; }

  // Every tensor as f32, by name, with its shape in ggml's order.
  struct Tensor {
    std::vector<uint64_t> shape;
    std::vector<float> data;
  };
  std::map<std::string, Tensor> Tensors() const {
    std::map<std::string, Tensor> tensors;
    std::mt19937 random(seed);
    const auto add = [&](const std::string& name, std::vector<int> shape, float mean, float deviation) {
      std::normal_distribution<float> normal(mean, deviation);
      Tensor tensor;
      size_t size = 1;
      for (const int extent : shape) {
        tensor.shape.push_back(static_cast<uint64_t>(extent));
        size *= static_cast<size_t>(extent);
      }
      for (size_t i = 0; i < size; ++i) tensor.data.push_back(normal(random));
      tensors[name] = std::move(tensor);
    };
    const auto matrix = [&](const std::string& name, int columns, int rows) {
      add(name, {columns, rows}, 0.0F, 1.5F / std::sqrt(static_cast<float>(columns)));
    };
    const auto norm = [&](const std::string& name, int size) { add(name, {size}, 1.0F, 0.2F); };
    add("token_embd.weight", {width, vocabulary}, 0.0F, 1.0F);
    norm("output_norm.weight", width);
    if (own_output) matrix("output.weight", width, vocabulary);
    for (int i = 0; i < num_layers; ++i) {
      const std::string prefix = "blk." + std::to_string(i) + ".";
      norm(prefix + "attn_norm.weight", width);
      matrix(prefix + "attn_q.weight", width, query_heads * key_dim);
      matrix(prefix + "attn_k.weight", width, kv_heads * key_dim);
      matrix(prefix + "attn_v.weight", width, kv_heads * value_dim);
      matrix(prefix + "attn_output.weight", query_heads * value_dim, width);
      if (bias) {
        add(prefix + "attn_q.bias", {query_heads * key_dim}, 0.0F, 0.5F);
        add(prefix + "attn_k.bias", {kv_heads * key_dim}, 0.0F, 0.5F);
        add(prefix + "attn_v.bias", {kv_heads * value_dim}, 0.0F, 0.5F);
      }
      if (qk_norm()) {
        norm(prefix + "attn_q_norm.weight", key_dim);
        norm(prefix + "attn_k_norm.weight", key_dim);
      }
      norm(prefix + "ffn_norm.weight", width);
      matrix(prefix + "ffn_gate.weight", width, feed_forward);
      matrix(prefix + "ffn_up.weight", width, feed_forward);
      matrix(prefix + "ffn_down.weight", feed_forward, width);
      if (gemma()) {
        norm(prefix + "post_attention_norm.weight", width);
        norm(prefix + "post_ffw_norm.weight", width);
      }
    }
    if (frequency_factors) {
      Tensor factors{{static_cast<uint64_t>(rope_dims / 2)}, {}};
      for (int i = 0; i < rope_dims / 2; ++i) factors.data.push_back(1.0F + 0.75F * static_cast<float>(i));
      tensors["rope_freqs.weight"] = factors;
    }
    return tensors;
  }

  GgufBuilder Metadata() const {
    GgufBuilder builder;
    const auto key = [&](const char* name) { return architecture + "." + name; };
    const auto count = [&](const char* name, int value) { builder.AddUint(key(name), static_cast<uint32_t>(value)); };
    builder.AddString("general.architecture", architecture);
    count("block_count", num_layers);
    count("context_length", context);
    count("embedding_length", width);
    count("feed_forward_length", feed_forward);
    count("attention.head_count", query_heads);
    count("attention.head_count_kv", kv_heads);
    count("attention.key_length", key_dim);
    count("attention.value_length", value_dim);
    count("rope.dimension_count", rope_dims);
    if (window != 0) count("attention.sliding_window", window);
    builder.AddFloat(key("rope.freq_base"), rope_base);
    builder.AddFloat(key("attention.layer_norm_rms_epsilon"), 1e-5F);
    if (rope_scale_factor != 1.0F) {
      builder.AddString(key("rope.scaling.type"), "linear");
      builder.AddFloat(key("rope.scaling.factor"), rope_scale_factor);
    }
    return builder;
  }

  std::vector<std::byte> Build() const {
    GgufBuilder builder = Metadata();
    for (const auto& [name, tensor] : Tensors()) builder.AddTensor(name, tensor.shape, tensor.data);
    return builder.Build();
  }
};

}  // namespace kvist
