// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "bench/scenario/moved.h"

#include <doctest/doctest.h>

#include "engine/tiny_engine.h"

namespace kvist::moved_test {
namespace {

TEST_CASE("moved: a document behind another beginning is measured against computing it") {
  const TinyEngine tiny({.context = 500});
  const std::vector<Token> text = SomeTokens(1000, 1);
  MovedOptions options{.other_beginning_tokens = 70, .beginning_tokens = 41, .document_tokens = 150};
  options.continuation_tokens = 20;
  options.num_rounds = 3;
  options.recomputed_tokens = {0, 80};
  const auto report = MeasureMoved(*tiny.model, text, options);
  REQUIRE(report);
  REQUIRE(report->points.size() == 3);
  CHECK_FALSE(report->points[0].recomputed_tokens);
  for (const MovedPoint& point : report->points) {
    CHECK(point.quality.num_tokens == 60);
    CHECK(point.quality.kl.mean > 0);  // an approximation, and none of them the base
    CHECK(point.quality.kl.mean < 10);
    CHECK(point.document_ms > 0);
  }
  CHECK(report->points[1].quality.kl.mean < report->points[0].quality.kl.mean);
  CHECK(report->computed_document_ms > 0);

  const auto stopped = MeasureMoved(*tiny.model, text, options, [](int64_t, int64_t) { return false; });
  REQUIRE_FALSE(stopped);
  CHECK(stopped.error().code == ErrorCode::kCancelled);
  options.recomputed_tokens = {90};
  CHECK_FALSE(MeasureMoved(*tiny.model, text, options));
  options.recomputed_tokens = {0};
  options.num_rounds = 4;  // the text is too short
  CHECK_FALSE(MeasureMoved(*tiny.model, text, options));
}

}  // namespace
}  // namespace kvist::moved_test
