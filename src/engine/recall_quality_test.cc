// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "engine/recall_quality.h"

#include <doctest/doctest.h>

#include <vector>

#include "engine/quality.h"
#include "engine/tiny_engine.h"

namespace kvist::recall_quality_test {
namespace {

constexpr Form kF32{Codec::kF32, Codec::kF32};

const RecallQualityOptions kOptions{.repeat = {.first = {7, 8}, .next = {9}}};

TEST_CASE("recall quality: an answer is scored as it is without eviction") {
  TinyEngine rig(TinyModel{.context = 512});
  const std::vector<Token> text = SomeTokens(700, 3);
  const Recall recall{.context = {text.begin(), text.begin() + 256}, .cue = {1, 2, 3}, .answer = {4, 5, 6}};
  const std::vector<RetentionCase> cases = {{.form = kF32},
                                            {kF32, RetentionPolicy::kH2o, BudgetShape::kUniform, 1.0},
                                            {kF32, RetentionPolicy::kWindow, BudgetShape::kUniform, 0.4},
                                            {kF32, RetentionPolicy::kKvzip, BudgetShape::kGlobal, 1.0},
                                            {kF32, RetentionPolicy::kKvzip, BudgetShape::kGlobal, 0.6}};
  const auto found = MeasureRecall(*rig.model, std::span(&recall, 1), cases, kOptions, {});
  REQUIRE(found);
  // By hand: one token at a time.
  auto cache = Cache::Open(rig.model->geometry(), {.form = kF32}).value();
  Sequence sequence = cache->Begin();
  std::vector<Token> before = recall.context;
  before.insert(before.end(), recall.cue.begin(), recall.cue.end());
  double log_probability = 0;
  std::vector<Token> step = before;
  for (const Token token : recall.answer) {
    const BatchItem item{.sequence = &sequence, .tokens = step};
    const auto logits = rig.model->Forward(std::span(&item, 1));
    REQUIRE(logits);
    log_probability += double((*logits)[size_t(token)]) - LogSumExp(*logits);
    step = {token};
  }
  CHECK(found->cases[0].log_probability == doctest::Approx(log_probability / 3));
  CHECK(found->cases[1].log_probability == found->cases[0].log_probability);
  CHECK(found->cases[2].log_probability != found->cases[0].log_probability);
  CHECK(found->cases[3].log_probability == found->cases[0].log_probability);
  CHECK(found->cases[4].log_probability != found->cases[0].log_probability);
  CHECK(found->cases[0].num_asked == 1);
}

TEST_CASE("recall quality: what can't be asked is said") {
  TinyEngine rig(TinyModel{.context = 512});
  const std::vector<Token> text = SomeTokens(700, 3);
  const std::vector<RetentionCase> cases = {{.form = kF32}};
  const auto code = [&](const Recall& recall) {
    const auto report = MeasureRecall(*rig.model, std::span(&recall, 1), cases, kOptions, {});
    REQUIRE_FALSE(report);
    return report.error().code;
  };
  const std::vector<Token> context(text.begin(), text.begin() + 100);
  CHECK(code({.context = context, .cue = {}, .answer = {1}}) == ErrorCode::kInvalidArgument);
  CHECK(code({.context = context, .cue = {1}, .answer = {}}) == ErrorCode::kInvalidArgument);
  CHECK(code({.context = text, .cue = {1}, .answer = {1}}) == ErrorCode::kInvalidArgument);
  CHECK(MeasureRecall(*rig.model, {}, cases, kOptions, {}).error().code == ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace kvist::recall_quality_test
