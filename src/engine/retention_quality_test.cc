// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "engine/retention_quality.h"

#include <doctest/doctest.h>

#include <memory>
#include <random>
#include <vector>

#include "model/tiny_model.h"

namespace kvist::retention_quality_test {
namespace {

constexpr Form kF32{Codec::kF32, Codec::kF32};

struct Rig {
  Rig() : file(TinyModel{.context = 512}.Build()) {
    auto gguf = GgufFile::Open(file.path());
    REQUIRE(gguf);
    auto opened = Model::Open(*gguf, {.num_threads = 1});
    REQUIRE(opened);
    model = *std::move(opened);
    std::mt19937 random(3);
    for (int i = 0; i < 700; ++i) text.push_back(Token(random() % 50));
  }
  TemporaryFile file;
  std::unique_ptr<Model> model;
  std::vector<Token> text;
};

const RetentionQualityOptions kOptions{
    .prefix_tokens = 256, .continuation_tokens = 40, .num_windows = 2, .repeat = {.first = {7, 8}, .next = {9}}};

TEST_CASE("retention quality: nothing given up loses nothing, and less costs more") {
  Rig rig;
  const std::vector<RetentionCase> cases = {{.form = kF32},
                                            {kF32, RetentionPolicy::kSnapKv, BudgetShape::kUniform, 1.0},
                                            {kF32, RetentionPolicy::kSnapKv, BudgetShape::kAdaptive, 0.8},
                                            {kF32, RetentionPolicy::kRandom, BudgetShape::kUniform, 0.4}};
  const auto report = MeasureRetention(*rig.model, rig.text, cases, kOptions, {});
  REQUIRE(report);
  REQUIRE(report->cases.size() == 4);
  for (const size_t i : {0, 1}) {
    CHECK(report->cases[i].kl.mean == 0.0);
    CHECK(report->cases[i].same_top == 1.0);
    CHECK(report->cases[i].perplexity == doctest::Approx(report->base_perplexity));
    CHECK(report->cases[i].recovered == doctest::Approx(1));
    CHECK(report->cases[i].held_tokens == 256);
  }
  CHECK(report->cases[2].kl.mean > 0);
  CHECK(report->cases[2].held_tokens == doctest::Approx(205));
  CHECK(report->cases[3].kl.mean > report->cases[2].kl.mean);
  CHECK(report->cases[3].held_tokens == doctest::Approx(102).epsilon(0.01));
  CHECK(report->cases[3].held_bytes <= 0.5 * report->cases[0].held_bytes);
}

TEST_CASE("retention quality: pages read by each token lose nothing when they are all, and more the fewer they are") {
  Rig rig;
  const std::vector<RetentionCase> cases = {{.form = kF32},
                                            {.form = kF32, .page_tokens = 512},
                                            {.form = kF32, .page_tokens = 192},
                                            {.form = kF32, .page_tokens = 96}};
  const auto report = MeasureRetention(*rig.model, rig.text, cases, kOptions, {});
  REQUIRE(report);
  for (const RetentionQuality& each : report->cases) CHECK(each.held_tokens == 256);
  CHECK(report->cases[0].kl.mean == 0.0);
  CHECK(report->cases[1].kl.mean == 0.0);
  CHECK(report->cases[2].kl.mean > 0);
  CHECK(report->cases[3].kl.mean > report->cases[2].kl.mean);
  CHECK(report->cases[0].read_tokens == 0);
  CHECK(report->cases[1].read_tokens == 296);
  CHECK(report->cases[3].read_tokens < report->cases[2].read_tokens);
}

TEST_CASE("repetition: a second pass notes what it needs, and leaves the sequence as it was") {
  Rig rig;
  auto cache = Cache::Open(rig.model->geometry(), {.form = kF32}).value();
  Sequence sequence = cache->Begin();
  const BatchItem item{.sequence = &sequence, .tokens = std::span(rig.text).first(300)};
  REQUIRE(rig.model->Forward(std::span(&item, 1)));
  const size_t bytes = sequence.num_held_bytes();
  int64_t num_fed = 0;
  const auto count = [&](int64_t num_tokens) { return (num_fed += num_tokens) > 0; };
  REQUIRE(ObserveRepetition(*rig.model, kOptions.repeat, sequence, count));
  // Chunks of 512 - 300 - 2 - 8 tokens; the second begins with the last 8 of the first.
  CHECK(num_fed == 2 + 202 + 1 + 8 + 98);
  CHECK(sequence.num_tokens() == 300);
  CHECK(sequence.num_held_bytes() == bytes);
  CHECK(cache->stats().live_bytes == bytes);
  REQUIRE(sequence.Retain({.policy = RetentionPolicy::kKvzip, .shape = BudgetShape::kGlobal}, 200));
  CHECK(sequence.num_held_tokens() == 200);

  Sequence stopped = cache->Begin();
  const BatchItem other{.sequence = &stopped, .tokens = std::span(rig.text).first(450)};
  REQUIRE(rig.model->Forward(std::span(&other, 1)));
  CHECK(ObserveRepetition(*rig.model, kOptions.repeat, stopped, {}).error().code == ErrorCode::kOutOfRange);
  REQUIRE(stopped.Truncate(100));
  const auto stop = ObserveRepetition(*rig.model, kOptions.repeat, stopped, [](int64_t) { return false; });
  CHECK(stop.error().code == ErrorCode::kCancelled);
  CHECK(stopped.num_tokens() == 100);
}

TEST_CASE("retention quality: what can't be measured is said") {
  Rig rig;
  const auto code = [&](std::vector<RetentionCase> cases, const RetentionQualityOptions& options) {
    const auto report = MeasureRetention(*rig.model, rig.text, cases, options, {});
    REQUIRE_FALSE(report);
    return report.error().code;
  };
  CHECK(code({}, kOptions) == ErrorCode::kInvalidArgument);
  CHECK(code({{kF32, RetentionPolicy::kKnorm, BudgetShape::kUniform, 0.0}}, kOptions) == ErrorCode::kInvalidArgument);
  CHECK(code({{kF32, RetentionPolicy::kKnorm, BudgetShape::kAdaptive, 0.5}}, kOptions) == ErrorCode::kInvalidArgument);
  auto options = kOptions;
  options.prefix_tokens = 500;
  CHECK(code({{.form = kF32}}, options) == ErrorCode::kInvalidArgument);  // the model's context
  options = kOptions;
  options.num_windows = 3;
  CHECK(code({{.form = kF32}}, options) == ErrorCode::kInvalidArgument);  // the text
  const auto stopped = MeasureRetention(*rig.model, rig.text, std::vector<RetentionCase>{{.form = kF32}}, kOptions,
                                        [](int64_t done, int64_t) { return done < 100; });
  CHECK(stopped.error().code == ErrorCode::kCancelled);
}

}  // namespace
}  // namespace kvist::retention_quality_test
