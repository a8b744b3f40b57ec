// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "bench/scenario/load.h"

#include <doctest/doctest.h>

#include "engine/letters.h"
#include "kvist/kv_size.h"
#include "model/tiny_model.h"

namespace kvist::load_test {
namespace {

TEST_CASE("load: many times the budget is asked for, and everything is said") {
  const TinyModel tiny;
  const TemporaryFile file(tiny.Build());
  const auto gguf = GgufFile::Open(file.path());
  REQUIRE(gguf);
  const auto model = Model::Open(*gguf, {.num_threads = 1});
  REQUIRE(model);
  const auto tokenizer = Tokenizer::Open(LettersVocabulary(tiny.vocabulary, {}));
  REQUIRE(tokenizer);
  const CacheGeometry& geometry = (*model)->geometry();
  const size_t budget_bytes = 12 * KvBlockBytes(geometry, {});
  const auto cache = Cache::Open(geometry, {.form = {}, .budget_bytes = budget_bytes, .shares_prefixes = true});
  REQUIRE(cache);

  LoadOptions options{.num_requests = 10, .prompt_tokens = 80, .output_tokens = 30, .shared_share = 0.5};
  const auto result = RunLoad(**model, *tokenizer, **cache, options);
  REQUIRE(result);
  CHECK(result->wanted_bytes == 40 * KvBlockBytes(geometry, {}));
  CHECK(result->budget_bytes == budget_bytes);
  CHECK(result->peak_committed_bytes <= budget_bytes);
  CHECK(result->peak_resident_bytes > 0);
  CHECK(result->peak_resident_bytes <= result->peak_committed_bytes);
  CHECK(result->num_failed == 0);
  CHECK(result->output_tokens == 300);
  CHECK(result->scheduler.num_finished == 10);
  CHECK(result->scheduler.num_reused_tokens >= 9 * 32);
  CHECK(result->first_token_mean_s > 0);
  CHECK(result->first_token_mean_s < result->first_token_p95_s);
  CHECK(result->first_token_p95_s <= result->seconds);

  const auto stopped = RunLoad(**model, *tokenizer, **cache, options, [](int64_t, int64_t) { return false; });
  REQUIRE_FALSE(stopped);
  CHECK(stopped.error().code == ErrorCode::kCancelled);
  options.shared_share = 1.5;
  CHECK_FALSE(RunLoad(**model, *tokenizer, **cache, options));
}

}  // namespace
}  // namespace kvist::load_test
