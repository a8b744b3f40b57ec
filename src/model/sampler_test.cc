// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors

#include "model/sampler.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

namespace kvist::sampler_test {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

Sampler Make(SamplerOptions options) {
  return Sampler::Open(options).value();
}

// How often each token comes, as a share of many draws.
std::vector<double> Shares(SamplerOptions options, const std::vector<float>& logits,
                           const std::vector<Token>& history = {}) {
  constexpr int kDraws = 40000;
  Sampler sampler = Make(options);
  std::vector<double> shares(logits.size());
  for (int i = 0; i < kDraws; ++i) shares[sampler.Sample(logits, history)] += 1.0 / kDraws;
  return shares;
}

void CheckShares(const std::vector<double>& shares, const std::vector<double>& weights) {
  double total = 0;
  for (const double weight : weights) total += weight;
  for (size_t i = 0; i < shares.size(); ++i) {
    CAPTURE(i);
    const double expected = weights[i] / total;
    const double tolerance = 5 * std::sqrt(expected * (1 - expected) / 40000) + 1e-9;  // five standard deviations
    CHECK(shares[i] >= expected - tolerance);
    CHECK(shares[i] <= expected + tolerance);
  }
}

const std::vector<float> kLogits = {0.0f, std::log(2.0f), std::log(4.0f), std::log(3.0f)};  // weights 1, 2, 4, 3

TEST_CASE("sampler: greedy takes the best, of equal ones the lowest id, never NaN") {
  Sampler greedy = Make({});
  CHECK(greedy.Sample(std::vector<float>{1, 3, 2}, {}) == 1);
  CHECK(greedy.Sample(std::vector<float>{1, 3, 3}, {}) == 1);
  CHECK(greedy.Sample(std::vector<float>{kNan, -5, kNan, -7}, {}) == 1);
  CHECK(greedy.Sample(std::vector<float>{1, kInfinity, kInfinity}, {}) == 1);
  CHECK(greedy.Sample(std::vector<float>{kNan, -kInfinity}, {}) == -1);
  CHECK(greedy.Sample({}, {}) == -1);
}

TEST_CASE("sampler: draws follow the softmax") {
  CheckShares(Shares({.temperature = 1, .seed = 1}, kLogits), {1, 2, 4, 3});
  CheckShares(Shares({.temperature = 0.5f, .seed = 2}, kLogits), {1, 4, 16, 9});
  CheckShares(Shares({.temperature = 2, .seed = 3}, kLogits), {1, std::sqrt(2.0), 2, std::sqrt(3.0)});
  CheckShares(Shares({.temperature = 1, .seed = 4}, {kNan, 0, -kInfinity, 0}), {0, 1, 0, 1});
}

TEST_CASE("sampler: top-k, top-p and min-p cut the tail") {
  CheckShares(Shares({.temperature = 1, .top_k = 2, .seed = 1}, kLogits), {0, 0, 4, 3});
  CheckShares(Shares({.temperature = 1, .top_k = 100, .seed = 1}, kLogits), {1, 2, 4, 3});
  CheckShares(Shares({.temperature = 1, .top_p = 0.75f, .seed = 2}, kLogits), {0, 2, 4, 3});  // 4 + 3 are 0.7
  CheckShares(Shares({.temperature = 1, .top_p = 0.65f, .seed = 3}, kLogits), {0, 0, 4, 3});
  CheckShares(Shares({.temperature = 1, .top_p = 1e-6f, .seed = 3}, kLogits), {0, 0, 1, 0});
  CheckShares(Shares({.temperature = 1, .min_p = 0.6f, .seed = 4}, kLogits), {0, 0, 4, 3});
  CheckShares(Shares({.temperature = 1, .top_k = 3, .top_p = 0.7f, .min_p = 0.9f, .seed = 5}, kLogits), {0, 0, 1, 0});
  CheckShares(Shares({.temperature = 1, .top_k = 2, .seed = 6}, {5, 5, 5, 5}), {1, 1, 0, 0});  // ties: lowest ids
}

TEST_CASE("sampler: top-k of many tokens is the k best") {
  std::mt19937 random(7);
  std::vector<float> logits(20000);
  for (float& logit : logits) logit = static_cast<float>(random() % 1000) / 1000;
  std::vector<float> sorted = logits;
  std::sort(sorted.rbegin(), sorted.rend());
  Sampler sampler = Make({.temperature = 1, .top_k = 50});
  for (int i = 0; i < 200; ++i) CHECK(logits[sampler.Sample(logits, {})] >= sorted[49]);
}

TEST_CASE("sampler: the penalty divides positive logits, multiplies negative ones, once a token, in the window") {
  Sampler greedy = Make({.repetition_penalty = 2});
  const std::vector<float> logits = {4, 3, -1};
  CHECK(greedy.Sample(logits, std::vector<Token>{0}) == 1);
  CHECK(greedy.Sample(logits, std::vector<Token>{0, 1, 0, 1}) == 0);
  CHECK(greedy.Sample(std::vector<float>{-1, -1.5f}, std::vector<Token>{0}) == 1);
  CHECK(greedy.Sample(logits, std::vector<Token>{-1, 99}) == 0);  // ids of another vocabulary
  Sampler short_sighted = Make({.repetition_penalty = 2, .repetition_window = 1});
  CHECK(short_sighted.Sample(logits, std::vector<Token>{0, 2}) == 0);
  CHECK(short_sighted.Sample(logits, std::vector<Token>{2, 0}) == 1);
  CheckShares(Shares({.temperature = 1, .repetition_penalty = 2, .seed = 5}, {0, std::log(4.0f)}, {1, 1}), {1, 2});
}

TEST_CASE("sampler: one seed, one sequence") {
  std::vector<float> logits(500);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = std::sin(static_cast<float>(i));
  const SamplerOptions options{.temperature = 0.8f, .top_k = 40, .top_p = 0.9f, .seed = 42};
  Sampler a = Make(options), b = Make(options);
  SamplerOptions other_seed = options;
  other_seed.seed = 43;
  Sampler c = Make(other_seed);
  int different = 0;
  for (int i = 0; i < 100; ++i) {
    const Token token = a.Sample(logits, {});
    CHECK(token == b.Sample(logits, {}));
    different += token != c.Sample(logits, {});
  }
  CHECK(different > 50);
}

TEST_CASE("sampler: options out of range are named") {
  const std::pair<SamplerOptions, const char*> wrong[] = {
      {{.temperature = -1}, "temperature"},
      {{.temperature = kNan}, "temperature"},
      {{.top_k = -1}, "top-k"},
      {{.top_p = 0}, "top-p"},
      {{.top_p = 1.1f}, "top-p"},
      {{.min_p = 1}, "min-p"},
      {{.min_p = -0.1f}, "min-p"},
      {{.repetition_penalty = 0}, "repetition penalty"},
      {{.repetition_window = -1}, "repetition window"},
  };
  for (const auto& [options, name] : wrong) {
    const auto sampler = Sampler::Open(options);
    REQUIRE_FALSE(sampler.has_value());
    CHECK(sampler.error().code == ErrorCode::kInvalidArgument);
    CHECK(sampler.error().message.contains(name));
  }
}

TEST_CASE("stop matcher: holds back what could be a stop and lets go what isn't") {
  StopMatcher matcher({"STOP", "\n\n"});
  CHECK(matcher.Push("abc S") == "abc ");
  CHECK(matcher.Push("T") == "");
  CHECK(matcher.Push("ART\n") == "START");
  CHECK(matcher.Push("x") == "\nx");
  CHECK(matcher.Push("ySTO") == "y");
  CHECK(matcher.Push("P more") == "");
  CHECK(matcher.stopped());
  CHECK(matcher.Push("more") == "");
  CHECK(matcher.Finish() == "");

  StopMatcher unfinished({"STOP", ""});
  CHECK(unfinished.Push("aST") == "a");
  CHECK_FALSE(unfinished.stopped());
  CHECK(unfinished.Finish() == "ST");
  CHECK(StopMatcher({}).Push("all") == "all");
}

TEST_CASE("stop matcher: how the text is cut changes nothing") {
  std::mt19937 random(11);
  for (int round = 0; round < 2000; ++round) {
    std::vector<std::string> stops(1 + random() % 3);
    for (std::string& stop : stops) {
      for (size_t i = random() % 5; i-- > 0;) stop += "ab"[random() % 2];
    }
    std::string text;
    for (int i = 0; i < 12; ++i) text += "abc"[random() % 3];
    StopMatcher whole(stops), cut(stops);
    const std::string first = whole.Push(text);
    const std::string expected = first + whole.Finish();
    std::string shown;
    for (size_t at = 0; at < text.size();) {
      const size_t size = 1 + random() % 4;
      shown += cut.Push(std::string_view(text).substr(at, size));
      at += size;
    }
    shown += cut.Finish();
    CHECK(shown == expected);
    CHECK(cut.stopped() == whole.stopped());
  }
}

}  // namespace
}  // namespace kvist::sampler_test
