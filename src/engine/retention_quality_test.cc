// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "engine/retention_quality.h"

#include <doctest/doctest.h>

#include <memory>
#include <random>
#include <vector>

#include "model/tiny_model.h"

namespace kvist {
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

const RetentionQualityOptions kOptions{.prefix_tokens = 256, .continuation_tokens = 40, .num_windows = 2};

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

TEST_CASE("retention quality: a passkey's digits are scored as they are without eviction") {
  Rig rig;
  Passkey passkey{.context = {rig.text.begin(), rig.text.begin() + 256}, .question = {1, 2, 3}, .digits = {4, 5, 6}};
  const std::vector<RetentionCase> cases = {{.form = kF32},
                                            {kF32, RetentionPolicy::kH2o, BudgetShape::kUniform, 1.0},
                                            {kF32, RetentionPolicy::kWindow, BudgetShape::kUniform, 0.4}};
  const auto found = MeasurePasskeys(*rig.model, std::span(&passkey, 1), cases, {}, {});
  REQUIRE(found);
  // By hand: one token at a time.
  auto cache = Cache::Open(rig.model->geometry(), {.form = kF32}).value();
  Sequence sequence = cache->Begin();
  std::vector<Token> before = passkey.context;
  before.insert(before.end(), passkey.question.begin(), passkey.question.end());
  double log_probability = 0;
  std::vector<Token> step = before;
  for (const Token digit : passkey.digits) {
    const BatchItem item{.sequence = &sequence, .tokens = step};
    const auto logits = rig.model->Forward(std::span(&item, 1));
    REQUIRE(logits);
    log_probability += double((*logits)[size_t(digit)]) - LogSumExp(*logits);
    step = {digit};
  }
  CHECK((*found)[0].log_probability == doctest::Approx(log_probability));
  CHECK((*found)[1].log_probability == (*found)[0].log_probability);
  CHECK((*found)[2].log_probability != (*found)[0].log_probability);
  CHECK((*found)[0].num_keys == 1);
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
}  // namespace kvist
