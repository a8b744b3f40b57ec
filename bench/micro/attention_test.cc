// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "bench/micro/attention.h"

#include <doctest/doctest.h>

#include <string>

namespace kvist::attention_test {
namespace {

CacheGeometry TwoLayers() {
  CacheGeometry geometry;
  geometry.layers = {{.num_query_heads = 6, .num_kv_heads = 2, .key_dim = 64, .value_dim = 32},
                     {.num_query_heads = 4, .num_kv_heads = 1, .key_dim = 32, .value_dim = 64, .window = 7}};
  return geometry;
}

TEST_CASE("attention bench: operations are those of counting them one by one") {
  for (const int64_t stored : {0, 3, 6, 7, 40}) {
    for (const int64_t step : {1, 5, 20}) {
      const AttentionTask task{TwoLayers(), stored, step, 1};
      double key_ops = 0, value_ops = 0;
      for (const LayerGeometry& layer : task.geometry.layers) {
        for (int64_t query = stored; query < stored + step; ++query) {
          for (int64_t token = 0; token <= query; ++token) {
            if (layer.window > 0 && query - token >= layer.window) continue;
            key_ops += 2.0 * layer.num_query_heads * layer.key_dim;
            value_ops += 2.0 * layer.num_query_heads * layer.value_dim;
          }
        }
      }
      CAPTURE(stored);
      CAPTURE(step);
      for (const char* form : {"f32", "f16", "bf16", "f16/bf16"}) {
        const RooflineWork work = AttentionWork(task, form, 1000);
        CHECK(work.read_bytes == 1000);
        CHECK(work.float_ops == key_ops + value_ops);
        CHECK(work.int_ops == 0);
      }
      CHECK(AttentionWork(task, "q8_0", 0).int_ops == key_ops + value_ops);
      const RooflineWork mixed = AttentionWork(task, "q8/f16", 0);
      CHECK(mixed.int_ops == key_ops);
      CHECK(mixed.float_ops == value_ops);
    }
  }
}

AttentionBench LongBench() {
  return {.models = {"smollm2", "llama3-8b"},
          .forms = {"f16"},
          .ggml_types = {"f16"},
          .phases = {"decode"},
          .tokens = {1024, 131'072},
          .threads = {1}};
}

TEST_CASE("attention bench: what does not fit into memory is told, with the layers that do") {
  AttentionBench bench = LongBench();
  const size_t layer_bytes = size_t{131'072} * 8 * 256 * 2;  // of one contestant
  CHECK(CheckAttentionMemory(bench, 2 * 34 * layer_bytes).has_value());

  const Status refused = CheckAttentionMemory(bench, 2 * 16 * layer_bytes);
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == ErrorCode::kOutOfMemory);
  CHECK(refused.error().message.find("llama3-8b with 131072 tokens") != std::string::npos);
  const size_t found = refused.error().message.find("--layers ");
  REQUIRE(found != std::string::npos);
  bench.num_layers = std::stoi(refused.error().message.substr(found + 9));
  CHECK(bench.num_layers >= 14);
  CHECK(bench.num_layers < 17);
  CHECK(CheckAttentionMemory(bench, 2 * 16 * layer_bytes).has_value());
  bench.num_layers += 1;
  CHECK_FALSE(CheckAttentionMemory(bench, 2 * 16 * layer_bytes).has_value());

  const Status hopeless = CheckAttentionMemory(bench, size_t{64} << 20);
  REQUIRE_FALSE(hopeless.has_value());
  CHECK(hopeless.error().message.find("--layers") == std::string::npos);
}

TEST_CASE("attention bench: each case has each contestant's time and its share of the roofline") {
  const AttentionBench bench{.models = {"smollm2", "gemma3"},
                             .num_layers = 6,
                             .forms = {"f16", "bf16"},
                             .ggml_types = {"f16"},
                             .phases = {"decode", "prefill"},
                             .tokens = {40, 1100},
                             .threads = {1},
                             .num_rounds = 2};
  int num_calls = 0;
  const auto results = MeasureAttention(bench, [&](int done, int all) {
    ++num_calls;
    CHECK(all == 8);
    CHECK(done < all);
    return true;
  });
  REQUIRE(results.has_value());
  CHECK(num_calls == 8 * 3 * 3);  // each case once more than its rounds, to warm up
  REQUIRE(results->timings.size() == 24);
  REQUIRE(results->threads_to_roofline.size() == 1);
  const Roofline& roofline = results->threads_to_roofline.at(1);
  for (const AttentionTiming& timing : results->timings) {
    CHECK(timing.num_layers == 6);
    CHECK(timing.num_model_layers == (timing.model == "gemma3" ? 18 : 30));
    CHECK(timing.median_ms > 0);
    CHECK(timing.gb_per_s == doctest::Approx(timing.work.read_bytes / timing.median_ms / 1e6));
    CHECK(timing.roofline_share == doctest::Approx(LeastTime(roofline, timing.work).seconds * 1e3 / timing.median_ms));
  }
  CHECK(MeasureAttention(bench, [](int, int) { return false; }).error().code == ErrorCode::kCancelled);
}

TEST_CASE("attention bench: a Python that can't be run, or has no worker, is told") {
  const AttentionTask task{TwoLayers(), 8, 1, 1};
  CHECK(TorchAttention::Open({"/nowhere/python", "x"}, task, "f32").error().message.find("/nowhere/python") !=
        std::string::npos);
  CHECK(TorchAttention::Open({"false", "x"}, task, "f32").error().message.find("ended") != std::string::npos);
  CHECK(TorchAttention::Open({"cat", "-"}, task, "f64").error().message.find("f32, bf16, f16") != std::string::npos);
}

}  // namespace
}  // namespace kvist::attention_test
