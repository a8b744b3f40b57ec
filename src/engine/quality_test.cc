// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "engine/quality.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <random>
#include <vector>

#include "model/tiny_model.h"

namespace kvist::quality_test {
namespace {

constexpr Form kF32{Codec::kF32, Codec::kF32};
constexpr Form kF16{Codec::kF16, Codec::kF16};
constexpr Form kBf16{Codec::kBf16, Codec::kBf16};

// Logits of these probabilities; `shift` changes nothing.
std::vector<float> Logits(const std::vector<double>& probabilities, double shift = 0) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p) + shift));
  return logits;
}

PredictionQuality Compare(const std::vector<float>& base, const std::vector<float>& form, Token next) {
  return ComparePrediction(base, LogSumExp(base), form, next);
}

TEST_CASE("the divergence of one prediction is what it is by hand") {
  const std::vector<double> base = {0.5, 0.25, 0.25};
  const std::vector<double> form = {0.25, 0.25, 0.5};
  for (const double shift : {0.0, -20.0, 500.0}) {  // e^500 is no float
    CAPTURE(shift);
    const PredictionQuality quality = Compare(Logits(base), Logits(form, shift), 2);
    CHECK(quality.kl == doctest::Approx(0.25 * std::log(2)).epsilon(1e-4));  // 1/2 ln 2 - 1/4 ln 2
    CHECK(quality.loss == doctest::Approx(std::log(2)).epsilon(1e-4));
    CHECK(quality.base_loss == doctest::Approx(std::log(4)).epsilon(1e-4));
    CHECK_FALSE(quality.same_top);
  }
  CHECK(Compare(Logits(base), Logits({0.7, 0.1, 0.2}), 0).same_top);
}

TEST_CASE("equal logits diverge by exactly nothing") {
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0, 8);
  std::vector<float> logits(1000);
  for (float& logit : logits) logit = normal(random);
  const PredictionQuality quality = Compare(logits, logits, 7);
  CHECK(quality.kl == 0.0);
  CHECK(quality.loss == quality.base_loss);
  CHECK(quality.same_top);
}

TEST_CASE("small divergences are not lost among large logits") {
  std::vector<float> base(10'000, 0.0F);
  base[3] = 12.0F;
  std::vector<float> form = base;
  form[5] += 1e-3F;  // moves p = 1 / (9999 + e^12) by a thousandth of it: KL = p / 2 * 1e-6, nearly
  const double p = 1 / (9999 + std::exp(12.0));
  CHECK(Compare(base, form, 3).kl == doctest::Approx(p * 0.5e-6).epsilon(1e-2));
}

TEST_CASE("logits that are no numbers are infinitely far, and unlikely tokens may be impossible") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  for (const std::vector<float>& form :
       {std::vector<float>{nan, 1, 2}, {1, 2, nan}, {nan, nan, nan}, {infinity, 1, 2}, {-infinity, 1, 2}}) {
    const PredictionQuality quality = Compare({3, 2, 1}, form, 1);
    CHECK(quality.kl == std::numeric_limits<double>::infinity());
    CHECK_FALSE(quality.same_top);
  }
  // What the base rules out, too, costs nothing.
  CHECK(Compare({3, 2, -infinity}, {3, 2, -infinity}, 1).kl == 0.0);
  CHECK(std::isnan(LogSumExp(std::vector<float>{nan, 1})));
}

// One prediction a KL; the losses differ by as much.
std::vector<PredictionQuality> Predictions(const std::vector<double>& kl) {
  std::vector<PredictionQuality> predictions;
  for (const double each : kl) predictions.push_back({.kl = each, .loss = 2 + each, .base_loss = 2, .same_top = true});
  return predictions;
}

TEST_CASE("mean, quantiles and errors of predictions") {
  std::vector<double> kl;
  for (int i = 0; i < 100; ++i) kl.push_back(i * 37 % 100);  // 0 to 99 in some order
  std::vector<PredictionQuality> predictions = Predictions(kl);
  predictions[10].same_top = predictions[20].same_top = false;
  const FormQuality quality = SummariseQuality(predictions, 1);
  CHECK(quality.num_tokens == 100);
  CHECK(quality.kl.mean == doctest::Approx(49.5));
  CHECK(quality.kl.standard_error == doctest::Approx(std::sqrt((100.0 * 100 - 1) / 12 * 100 / 99 / 100)));
  CHECK(quality.kl_median == doctest::Approx(49.5));
  CHECK(quality.kl_p99 == doctest::Approx(98.01));
  CHECK(quality.kl_max == 99);
  CHECK(quality.same_top == doctest::Approx(0.98));
}

TEST_CASE("tokens of one window are one observation when there are several windows") {
  // Window means 1, 2 and 6: 3 on average, variance (4 + 1 + 9) / 2, error sqrt(7 / 3).
  const FormQuality quality = SummariseQuality(Predictions({0, 2, 2, 2, 4, 8}), 3);
  CHECK(quality.kl.mean == doctest::Approx(3));
  CHECK(quality.kl.standard_error == doctest::Approx(std::sqrt(7.0 / 3)));
}

TEST_CASE("the difference of ln perplexity has the error of the differences, not of the losses") {
  std::vector<PredictionQuality> predictions;
  for (int i = 0; i < 50; ++i) {
    const double base_loss = i % 10;  // what is hard to predict is so for both
    predictions.push_back({.kl = 0.1, .loss = base_loss + (i % 2 == 0 ? 0.03 : 0.01), .base_loss = base_loss});
  }
  const FormQuality quality = SummariseQuality(predictions, 1);
  CHECK(quality.perplexity == doctest::Approx(std::exp(4.5 + 0.02)));
  CHECK(quality.ln_perplexity_difference.mean == doctest::Approx(0.02));
  CHECK(quality.ln_perplexity_difference.standard_error == doctest::Approx(0.01 / std::sqrt(49.0)));
}

TEST_CASE("a broken form does not make other figures no numbers") {
  const double infinity = std::numeric_limits<double>::infinity();
  const FormQuality quality = SummariseQuality(Predictions({0, infinity, infinity, infinity}), 1);
  for (const double each : {quality.kl.mean, quality.kl.standard_error, quality.kl_median, quality.kl_p99,
                            quality.kl_max, quality.perplexity, quality.ln_perplexity_difference.mean}) {
    CHECK(each == infinity);
  }
  CHECK(SummariseQuality(Predictions({0.5}), 1).kl.standard_error == infinity);  // one observation says nothing of it
}

struct Rig {
  explicit Rig(const TinyModel& tiny) : file(tiny.Build()) {
    auto gguf = GgufFile::Open(file.path());
    REQUIRE(gguf);
    auto opened = Model::Open(*gguf, {.num_threads = 1});
    REQUIRE(opened);
    model = *std::move(opened);
  }

  std::vector<Token> Text(int num_tokens) const {
    std::mt19937 random(9);
    std::vector<Token> text;
    for (int i = 0; i < num_tokens; ++i) text.push_back(static_cast<Token>(random() % 50));
    return text;
  }

  QualityReport Measure(const std::vector<Token>& text, const std::vector<Form>& forms, const QualityOptions& options) {
    auto report = MeasureQuality(*model, text, forms, options);
    REQUIRE(report);
    return *std::move(report);
  }

  // Logits of all tokens, computed at once.
  std::vector<float> LogitsOf(std::span<const Token> tokens, Form form) {
    auto cache = Cache::Open(model->geometry(), {.form = form});
    REQUIRE(cache);
    Sequence sequence = (*cache)->Begin();
    const BatchItem item{&sequence, tokens, LogitsWanted::kAll};
    const auto logits = model->Forward(std::span(&item, 1));
    REQUIRE(logits);
    return {logits->begin(), logits->end()};
  }

  TemporaryFile file;
  std::unique_ptr<Model> model;
};

TEST_CASE("a form's quality is that of every prediction of the windows' second halves") {
  Rig rig({.key_dim = 16, .value_dim = 16, .rope_dims = 16, .context = 512});
  const int num_window = 300;
  const std::vector<Token> text = rig.Text(2 * num_window + 5);
  const QualityReport report =
      rig.Measure(text, {kF32, kF16, kBf16}, {.window_tokens = num_window, .num_windows = 2, .cache = {}});
  REQUIRE(report.forms.size() == 3);

  std::vector<PredictionQuality> predictions;
  double base_loss = 0;
  for (int window = 0; window < 2; ++window) {
    const auto tokens = std::span(text).subspan(static_cast<size_t>(window * num_window), num_window);
    const std::vector<float> base = rig.LogitsOf(tokens, kF32);
    const std::vector<float> form = rig.LogitsOf(tokens, kBf16);
    for (size_t i = num_window / 2; i + 1 < num_window; ++i) {
      const auto base_row = std::span(base).subspan(i * 50, 50);
      const auto form_row = std::span(form).subspan(i * 50, 50);
      predictions.push_back(ComparePrediction(base_row, LogSumExp(base_row), form_row, tokens[i + 1]));
      base_loss += predictions.back().base_loss;
    }
  }
  const FormQuality expected = SummariseQuality(predictions, 2);
  const FormQuality& bf16 = report.forms[2];
  CHECK(bf16.form == kBf16);
  CHECK(bf16.num_tokens == 2 * (num_window / 2 - 1));
  CHECK(bf16.kl.mean == expected.kl.mean);
  CHECK(bf16.kl.standard_error == expected.kl.standard_error);
  CHECK(bf16.kl_p99 == expected.kl_p99);
  CHECK(bf16.perplexity == expected.perplexity);
  CHECK(bf16.ln_perplexity_difference.mean == expected.ln_perplexity_difference.mean);
  CHECK(report.base_perplexity == doctest::Approx(std::exp(base_loss / static_cast<double>(predictions.size()))));

  CHECK(report.forms[0].kl_max == 0.0);
  CHECK(report.forms[0].same_top == 1.0);
  CHECK(report.forms[1].kl.mean > 0);
  CHECK(report.forms[1].kl.mean < bf16.kl.mean);
  CHECK(bf16.bits == 16);
  CHECK(bf16.total_bits == 16);
  CHECK(report.base_kv_bytes == 2 * bf16.kv_bytes);
}

TEST_CASE("coarser codecs lose more, and what is sealed after the fact loses less") {
  Rig rig({.key_dim = 64, .value_dim = 64, .rope_dims = 64, .context = 512});
  const std::vector<Token> text = rig.Text(2 * 384);
  std::vector<Form> forms = {kF16};
  for (const Codec codec : {Codec::kQ8, Codec::kQ5, Codec::kQ3}) forms.push_back({codec, codec});
  QualityOptions options{.window_tokens = 384, .num_windows = 2, .cache = {}};
  options.cache.sealing.recent_tokens = 32;
  const QualityReport online = rig.Measure(text, forms, options);
  for (size_t i = 1; i < forms.size(); ++i) {
    CAPTURE(i);
    const FormQuality& form = online.forms[i];
    CHECK(form.kl.mean > online.forms[i - 1].kl.mean);
    CHECK(form.bits < online.forms[i - 1].bits);
    CHECK(form.total_bits > form.bits);  // open blocks count
    CHECK(form.total_bits < 16);
  }
  options.after_the_fact = true;
  const QualityReport after = rig.Measure(text, forms, options);
  CHECK(after.forms[0].kl.mean == online.forms[0].kl.mean);
  CHECK(after.forms[3].kl.mean > after.forms[0].kl.mean);
  CHECK(after.forms[3].kl.mean < online.forms[3].kl.mean);
  CHECK(after.forms[3].kv_bytes == online.forms[3].kv_bytes);

  options.cache.sealing.recent_tokens = 384;  // nothing is ever sealed
  CHECK(rig.Measure(text, forms, options).forms[3].kl.mean == online.forms[0].kl.mean);
}

TEST_CASE("the beginning token stands for the first token of each window") {
  Rig rig({.context = 64});
  std::vector<Token> text = rig.Text(128);
  QualityOptions options{.window_tokens = 64, .num_windows = 2, .cache = {}, .bos = 1};
  text[0] = text[64] = 7;
  const QualityReport report = rig.Measure(text, {kBf16}, options);
  text[0] = text[64] = 1;
  options.bos.reset();
  const QualityReport same = rig.Measure(text, {kBf16}, options);
  CHECK(report.forms[0].kl.mean == same.forms[0].kl.mean);
  text[64] = 7;
  CHECK(report.forms[0].kl.mean != rig.Measure(text, {kBf16}, options).forms[0].kl.mean);
}

TEST_CASE("wrong options and short texts are refused, and progress can stop it") {
  Rig rig({.context = 64});
  const std::vector<Token> text = rig.Text(100);
  const auto code = [&](const std::vector<Form>& forms, const QualityOptions& options) -> std::optional<ErrorCode> {
    const auto report = MeasureQuality(*rig.model, text, forms, options);
    return report ? std::nullopt : std::optional(report.error().code);
  };
  CHECK(code({kF16}, {.window_tokens = 50, .num_windows = 2, .cache = {}}) == std::nullopt);
  const auto invalid = ErrorCode::kInvalidArgument;
  CHECK(code({kF16}, {.window_tokens = 51, .num_windows = 2, .cache = {}}) == invalid);
  CHECK(code({kF16}, {.window_tokens = 65, .num_windows = 1, .cache = {}}) == invalid);
  CHECK(code({kF16}, {.window_tokens = 3, .num_windows = 1, .cache = {}}) == invalid);
  CHECK(code({kF16}, {.window_tokens = 50, .num_windows = 0, .cache = {}}) == invalid);
  CHECK(code({}, {.window_tokens = 50, .num_windows = 1, .cache = {}}) == invalid);

  std::vector<int64_t> done;
  const auto stopped = MeasureQuality(*rig.model, text, std::vector{kF16}, {.window_tokens = 50, .num_windows = 2},
                                      [&](int64_t num_done, int64_t num_all) {
                                        CHECK(num_all == 200);  // the base's tokens, too
                                        done.push_back(num_done);
                                        return done.size() < 3;
                                      });
  REQUIRE_FALSE(stopped);
  CHECK(stopped.error().code == ErrorCode::kCancelled);
  CHECK(done == std::vector<int64_t>{0, 25, 50});
}

}  // namespace
}  // namespace kvist::quality_test
