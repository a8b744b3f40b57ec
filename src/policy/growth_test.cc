// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "policy/growth.h"

#include <doctest/doctest.h>

#include <random>
#include <string>

namespace kvist::growth_test {
namespace {

std::string ErrorOf(const char* spec) {
  const auto options = ParseGrowth(spec);
  return options ? "" : options.error().message;
}

bool Says(const std::string& message, const char* words) {
  return message.find(words) != std::string::npos;
}

TEST_CASE("growth: specs are read and written") {
  const GrowthOptions dynamic = ParseGrowth("dynamic:initial=512,factor=1.25,max=8192").value();
  CHECK(dynamic.kind == GrowthKind::kDynamic);
  CHECK(dynamic.initial_tokens == 512);
  CHECK(dynamic.factor == 1.25);
  CHECK(dynamic.max_tokens == 8192);
  CHECK(GrowthSpec(dynamic) == "dynamic:initial=512,factor=1.25,max=8192");
  CHECK(ParseGrowth("exact").value() == GrowthOptions());
  CHECK(GrowthSpec(ParseGrowth("static:max=1048577").value()) == "static:max=1048577");
  for (const char* spec : {"exact", "static:max=100", "dynamic:factor=1.23456789", "dynamic",
                           "predictive:window=5,margin=0.5", "learned"}) {
    CAPTURE(spec);
    const GrowthOptions options = ParseGrowth(spec).value();
    CHECK(ParseGrowth(GrowthSpec(options)).value() == options);
  }
}

TEST_CASE("growth: what is wrong is said with what would be right") {
  CHECK(Says(ErrorOf("fast"), "exact, static, dynamic, predictive, learned"));
  CHECK(Says(ErrorOf(""), "exact, static"));
  CHECK(Says(ErrorOf("dynamic:factor=3"), "between 1.2 and 2"));
  CHECK(Says(ErrorOf("dynamic:factor=1.1"), "between 1.2 and 2"));
  CHECK(Says(ErrorOf("dynamic:window=3"), "initial, factor, max"));
  CHECK(Says(ErrorOf("exact:max=3"), "it takes none"));
  CHECK(Says(ErrorOf("exact:=5"), "it takes none"));
  CHECK(Says(ErrorOf("static:max=0"), "between 1 and 1073741824"));
  CHECK(Says(ErrorOf("dynamic:factor"), "key=value"));
  CHECK(Says(ErrorOf("dynamic:factor=x"), "needs a number"));
  CHECK(Says(ErrorOf("dynamic:initial=1.5"), "whole number"));
  CHECK(Says(ErrorOf("dynamic:initial=-1"), "between 0 and"));
  CHECK(Says(ErrorOf("dynamic:initial=1e300"), "whole number"));
  CHECK(Says(ErrorOf("predictive:window=1"), "between 2 and 1000"));
  CHECK(Says(ErrorOf("predictive:margin=nan"), "needs a number"));
  CHECK(Says(ErrorOf("learned:confidence=0.2"), "between 0.5 and 1"));
  CHECK(Says(ErrorOf("static"), "max must be between 1 and"));
}

TEST_CASE("growth: dynamic capacity grows by its factor, before it is used up, up to max") {
  const SurvivalCurve curve;
  GrowthPredictor predictor(ParseGrowth("dynamic:initial=100,factor=1.5,max=1000").value());
  CHECK(predictor.capacity() == 100);
  CHECK(predictor.Grow(50, 50, curve) == 100);
  CHECK(predictor.Grow(90, 40, curve) == 150);
  CHECK(predictor.Grow(700, 610, curve) == 700);    // more than a factor: what is needed
  CHECK(predictor.Grow(701, 1, curve) == 1000);     // 1,050 is past max
  CHECK(predictor.Grow(1200, 499, curve) == 1200);  // need is never refused
}

TEST_CASE("growth: predictive expects steps to go on as they did") {
  const SurvivalCurve curve;
  GrowthPredictor steady(ParseGrowth("predictive").value());
  int64_t total = 0;
  for (const int64_t step : {100, 120, 144, 173}) steady.Grow(total += step, step, curve);
  CHECK(steady.mean_growth() == doctest::Approx(1.2).epsilon(0.01));
  CHECK(steady.growth_variance() < 1e-3);
  CHECK(steady.capacity() == doctest::Approx(double(total) + 173 * 1.2 * 1.1).epsilon(0.01));

  GrowthPredictor unsteady(ParseGrowth("predictive:margin=0").value());
  total = 0;
  for (const int64_t step : {100, 100, 800}) unsteady.Grow(total += step, step, curve);
  CHECK(unsteady.growth_variance() > 1);
  CHECK(unsteady.capacity() == total + 960);  // 800 x 1.2, not x 4.5

  GrowthPredictor jumping(ParseGrowth("predictive:margin=0").value());
  jumping.Grow(1, 1, curve);
  CHECK(jumping.Grow(129, 128, curve) == 129 + 154);  // one ratio of 128 is no steady growth
}

TEST_CASE("growth: learned takes ahead what earlier sequences make likely, and nothing while it knows nothing") {
  SurvivalCurve curve;
  GrowthPredictor predictor(ParseGrowth("learned:confidence=0.9").value());
  CHECK(predictor.Grow(10, 10, curve) == 10);
  std::mt19937 random(3);
  for (int i = 0; i < 400; ++i) curve.AddLength(500 + int64_t(random() % 100));
  const int64_t capacity = predictor.Grow(20, 10, curve);
  CHECK(capacity >= 480);  // nine in ten get at least to 510; buckets are 4 % wide
  CHECK(capacity <= 530);
  CHECK(curve.LikelyLength(20, 0.5) >= 520);
  CHECK(curve.LikelyLength(20, 0.5) <= 575);
  CHECK(curve.LikelyLength(5000, 0.9) == 5000);        // none got so far
  for (int i = 0; i < 8000; ++i) curve.AddLength(50);  // the load has changed
  CHECK(curve.LikelyLength(20, 0.9) <= 52);
}

TEST_CASE("growth: capacity follows a cut only when it is more than twice what is needed") {
  const SurvivalCurve curve;
  GrowthPredictor predictor(ParseGrowth("dynamic:factor=2").value());
  predictor.Grow(1000, 1000, curve);
  const int64_t capacity = predictor.Grow(1001, 1, curve);
  CHECK(capacity == 2000);
  CHECK(predictor.Shrink(1001) == 2000);
  CHECK(predictor.Shrink(999) == 999);
  GrowthPredictor exact(ParseGrowth("exact").value());
  CHECK(exact.Grow(1000, 1000, curve) == 1000);
  CHECK(exact.Shrink(600) == 600);
  CHECK(exact.Grow(601, 1, curve) == 601);
  GrowthPredictor fixed(ParseGrowth("static:max=4096").value());
  CHECK(fixed.Grow(10, 10, curve) == 4096);
  CHECK(fixed.Shrink(0) == 4096);
}

}  // namespace
}  // namespace kvist::growth_test
