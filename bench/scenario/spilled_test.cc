// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "bench/scenario/spilled.h"

#include <doctest/doctest.h>

#include <vector>

#include "tier/tier_test_kit.h"

namespace kvist::spilled_test {
namespace {

CacheGeometry SmallGeometry() {
  CacheGeometry geometry;
  geometry.layers.resize(2, {.num_query_heads = 4, .num_kv_heads = 2, .key_dim = 64, .value_dim = 64});
  return geometry;
}

std::vector<Token> Tokens(int64_t count) {
  std::vector<Token> tokens;
  for (int64_t i = 0; i < count; ++i) tokens.push_back(Token(i % 1000));
  return tokens;
}

TEST_CASE("spilled: a sequence in a quarter of its memory reads the rest at every step") {
  const TestFolder folder;
  SpilledBench bench{.geometry = SmallGeometry(),
                     .form = {},
                     .disk_tier = "disk:" + folder.path() + ",size=64M",
                     .identity = {"test", {1, 2}},
                     .num_threads = 2,
                     .num_rounds = 2,
                     .num_steps = 3};
  const auto timing = MeasureSpilled(bench, Tokens(8000), [] { return Status(); });
  REQUIRE_MESSAGE(timing, (timing ? "" : timing.error().message));
  const size_t token_bytes = bench.geometry.BytesPerToken({});
  CHECK(timing->budget_bytes >= 2000 * token_bytes);
  CHECK(timing->budget_bytes < 4000 * token_bytes);
  CHECK(timing->spilled_tokens > 4000);
  // What is left of the last step need not be read again.
  CHECK(timing->read_bytes > double(timing->spilled_tokens) * double(token_bytes) / 2);
  CHECK(timing->read_bytes <= double(timing->spilled_tokens) * double(token_bytes) * 1.5);
  CHECK(timing->tokens_per_s > 0);
  CHECK(timing->in_turn_tokens_per_s > 0);
  CHECK(timing->memory_tokens_per_s > 0);
  CHECK(timing->wait_ms >= 0);

  const auto stopped =
      MeasureSpilled(bench, Tokens(8000), [] { return Status(Fail(ErrorCode::kCancelled, "interrupted")); });
  REQUIRE_FALSE(stopped);
  CHECK(stopped.error().code == ErrorCode::kCancelled);
  const auto too_short = MeasureSpilled(bench, Tokens(100), [] { return Status(); });
  REQUIRE_FALSE(too_short);
  CHECK(too_short.error().code == ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace kvist::spilled_test
