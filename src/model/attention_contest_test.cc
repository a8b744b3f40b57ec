// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "model/attention_contest.h"

#include <doctest/doctest.h>

#include <cmath>
#include <string>

namespace kvist::attention_contest_test {
namespace {

CacheGeometry OneLayer(int window) {
  CacheGeometry geometry;
  geometry.layers = {{.num_query_heads = 6, .num_kv_heads = 2, .key_dim = 64, .value_dim = 64, .window = window}};
  return geometry;
}

bool Sees(const LayerGeometry& layer, int64_t query, int64_t token) {
  return token <= query && (layer.window == 0 || query - token < layer.window);
}

TEST_CASE("attention contest: what a step sees is what counting finds") {
  for (const int window : {0, 1, 2, 9, 100}) {
    for (const int64_t stored : {0, 1, 8, 9, 30}) {
      for (const int64_t step : {1, 2, 9, 40}) {
        const AttentionTask task{OneLayer(window), stored, step, 1};
        const LayerGeometry& layer = task.geometry.layers[0];
        int64_t num_pairs = 0, first_token = task.num_tokens();
        for (int64_t query = stored; query < task.num_tokens(); ++query) {
          for (int64_t token = 0; token < task.num_tokens(); ++token) {
            if (!Sees(layer, query, token)) continue;
            ++num_pairs;
            first_token = std::min(first_token, token);
          }
        }
        CAPTURE(window);
        CAPTURE(stored);
        CAPTURE(step);
        CHECK(NumVisiblePairs(task, layer) == num_pairs);
        CHECK(FirstVisibleToken(task, layer) == first_token);
      }
    }
  }
}

TEST_CASE("attention contest: contestants read at least what the step sees, ours in whole blocks") {
  for (const int window : {0, 50}) {
    for (const int64_t stored : {0, 31, 600, 1500}) {
      for (const int64_t step : {1, 70}) {
        const AttentionTask task{OneLayer(window), stored, step, 1};
        const LayerGeometry& layer = task.geometry.layers[0];
        int64_t num_seen = 0;
        for (int64_t token = 0; token < task.num_tokens(); ++token) {
          bool is_seen = false;
          for (int64_t query = stored; query < task.num_tokens(); ++query) is_seen |= Sees(layer, query, token);
          num_seen += is_seen;
        }
        CAPTURE(window);
        CAPTURE(stored);
        CAPTURE(step);
        const size_t token_bytes = 2 * 128 * sizeof(uint16_t), block_bytes = 32 * token_bytes;
        const size_t seen_bytes = size_t(num_seen) * token_bytes;
        const auto ours = AttentionContestant::OpenKvist(task, {Codec::kF16, Codec::kF16});
        REQUIRE(ours.has_value());
        CHECK((*ours)->num_bytes_read() >= seen_bytes);
        CHECK((*ours)->num_bytes_read() < seen_bytes + 2 * block_bytes);
        CHECK((*ours)->num_bytes_read() % block_bytes == 0);
        const auto theirs = AttentionContestant::OpenGgml(task, "f16");
        REQUIRE(theirs.has_value());
        CHECK((*theirs)->num_bytes_read() == seen_bytes);
        CHECK(GgmlKvBytes(task, "f16") == seen_bytes);
        CHECK(GgmlKvBytes(task, "q8_0") == size_t(num_seen) * 2 * 128 / 32 * 34);
      }
    }
  }
}

TEST_CASE("attention contest: ours and ggml's compute the same") {
  for (const int window : {0, 50}) {
    for (const int64_t stored : {0, 40, 700}) {
      for (const int64_t step : {1, 65}) {
        const AttentionTask task{OneLayer(window), stored, step, 2};
        auto ours = AttentionContestant::OpenKvist(task, {Codec::kF32, Codec::kF32});
        auto theirs = AttentionContestant::OpenGgml(task, "f32");
        REQUIRE(ours.has_value());
        REQUIRE(theirs.has_value());
        CHECK((*ours)->RunOnce() > 0);
        CHECK((*theirs)->RunOnce() > 0);
        const std::vector<float> a = (*ours)->FirstLayerOutput(), b = (*theirs)->FirstLayerOutput();
        REQUIRE(a.size() == size_t(step) * 6 * 64);
        REQUIRE(b.size() == a.size());
        double largest_difference = 0, square_sum = 0;
        for (size_t i = 0; i < a.size(); ++i) {
          largest_difference = std::max(largest_difference, std::abs(double(a[i]) - b[i]));
          square_sum += double(a[i]) * a[i];
        }
        CAPTURE(window);
        CAPTURE(stored);
        CAPTURE(step);
        CHECK(largest_difference < 2e-3);  // ggml sums values in f16
        CHECK(std::sqrt(square_sum / double(a.size())) > 0.01);
      }
    }
  }
}

TEST_CASE("attention contest: an unknown type of ggml's is told with those that are known") {
  const AttentionTask task{OneLayer(0), 8, 1, 1};
  for (const Error& error : {AttentionContestant::OpenGgml(task, "q9").error(), GgmlKvBytes(task, "q9").error()}) {
    CHECK(error.code == ErrorCode::kInvalidArgument);
    CHECK(error.message.find("'q9'") != std::string::npos);
    CHECK(error.message.find("q4_0") != std::string::npos);
  }
}

}  // namespace
}  // namespace kvist::attention_contest_test
