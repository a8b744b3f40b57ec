// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "kvist/cache.h"
#include "kvist/error.h"
#include "model/model.h"

namespace kvist {

// What the predictions of other forms are compared with.
inline constexpr Form kBaseForm{Codec::kF32, Codec::kF32};

// What storing keys and values in a form does to a model's predictions, beside a base that loses nothing: keys and
// values in f32, same model, same kernels, same tokens.
//
// A text's tokens are cut into windows, each computed from its first token. What the model predicts for every token of
// a window's second half is compared with what it predicts with the base, over the whole vocabulary and in f64; so far
// llama-perplexity does the same.
struct QualityOptions {
  int64_t window_tokens = 2048;  // 4 to the model's context
  int num_windows = 3;
  // false: every token attends to what is stored, as when text is generated. true: the first half is computed with all
  // of it open and sealed then, so only the second half sees what sealing lost.
  bool after_the_fact = false;
  CacheOptions cache = {};  // of each form's cache; its form, and after the fact its begin_position, do not count
  // Stands for the first token of each window, for models that were trained to see it there.
  std::optional<Token> bos = {};
};

// kInvalidArgument when the text has not so many windows of so many tokens.
Status CheckTextLength(std::span<const Token> text, int num_windows, int64_t window_tokens);

// One prediction, made with a form and with the base.
struct PredictionQuality {
  double kl = 0;         // Kullback-Leibler divergence of the form's distribution from the base's, in nats
  double loss = 0;       // -ln of the probability of the token that came
  double base_loss = 0;  // the same for the base
  bool same_top = false;
};

// A mean and how sure it is.
struct Estimate {
  double mean = 0;
  double standard_error = 0;
};

// All predictions of one form. Of windows that are several, standard errors are those of the windows' means: tokens of
// one text are not independent.
struct FormQuality {
  Form form;
  int64_t num_tokens = 0;  // compared
  Estimate kl;
  double kl_median = 0;
  double kl_p99 = 0;
  double kl_max = 0;
  double same_top = 0;  // share of predictions whose likeliest token is the base's
  double perplexity = 0;
  Estimate ln_perplexity_difference;  // form less base; the error is that of the differences token by token
  double bits = 0;                    // that a number takes in a sealed block
  double total_bits = 0;              // that a number takes at the end of a window, open blocks included
  size_t kv_bytes = 0;                // live at the end of a window
};

struct QualityReport {
  double base_perplexity = 0;
  size_t base_kv_bytes = 0;  // live at the end of a window
  std::vector<FormQuality> forms;
};

// Feeds the first num_windows windows of a text to the base and to every form side by side, a piece at a time, so that
// no more than two pieces' logits are in memory. Takes the time of computing them (number of forms + 1) times.
// `progress` (may be empty) is called before each step with the tokens computed and all there are; false stops.
// A form whose logits are not numbers is infinitely far from the base.
// kInvalidArgument for options out of range, a text shorter than the windows or no form; kCorrupt when the base's own
// logits are not numbers; kCancelled when progress said so; else as Cache::Open and Model::Forward.
Result<QualityReport> MeasureQuality(Model& model, std::span<const Token> text, std::span<const Form> forms,
                                     const QualityOptions& options,
                                     const std::function<bool(int64_t, int64_t)>& progress = {});

// ln of the sum of e^logit. Not a number when a logit is none.
double LogSumExp(std::span<const float> logits);

// How far a form's logits of one prediction are from the base's. base_log_sum: LogSumExp(base). next: the token that
// came. Equal logits give a KL of exactly 0.
PredictionQuality ComparePrediction(std::span<const float> base, double base_log_sum, std::span<const float> form,
                                    Token next);

// Everything about a form that follows from its predictions; windows of equal size, one after the other.
FormQuality SummariseQuality(std::span<const PredictionQuality> predictions, int num_windows);

}  // namespace kvist
