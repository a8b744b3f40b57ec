// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "engine/retention_quality.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/seconds_since.h"
#include "engine/measured_steps.h"

namespace kvist {
namespace {

using Clock = std::chrono::steady_clock;

// The ways through all windows.
class Windows {
 public:
  Windows(Model& model, std::span<const RetentionCase> cases, const RetentionQualityOptions& options,
          const std::function<bool(int64_t, int64_t)>& progress)
      : model_(model),
        cases_(cases),
        options_(options),
        caches_(model, options_.cache),
        steps_(model, NumTokens(), progress),
        results_(cases.size()) {}

  Status RunWindow(std::vector<Token> window) {
    if (options_.bos) window[0] = *options_.bos;
    const std::span<const Token> prefix(window.data(), size_t(options_.prefix_tokens));
    const auto rest = std::span<const Token>(window).subspan(prefix.size());
    KVIST_TRY_VOID(RunBase(prefix, rest));
    for (const Form form : FormsOf(cases_)) {
      KVIST_TRY(Cache* const cache, caches_.Of(form));
      Sequence whole = cache->Begin();
      KVIST_TRY_VOID(ObserveAll(whole, cases_));
      const auto began = Clock::now();
      KVIST_TRY_VOID(steps_.Feed(whole, prefix));
      observed_prefill_s_ += SecondsSince(began);
      ++num_observed_;
      if (WantsRepetition(cases_, form)) {
        KVIST_TRY(repetition_s_, Repeat(model_, options_.repeat, whole, steps_));
      }
      for (size_t i = 0; i < cases_.size(); ++i) {
        if (cases_[i].form == form) KVIST_TRY_VOID(RunCase(i, whole, rest));
      }
    }
    return {};
  }

  RetentionQualityReport Report(int num_windows) const {
    RetentionQualityReport report;
    report.base_perplexity = std::exp(Mean(base_losses_));
    report.no_prefix_perplexity = std::exp(Mean(no_prefix_losses_));
    report.prefill_s = prefill_s_ / num_windows;
    report.observed_prefill_s = observed_prefill_s_ / num_observed_;
    report.repetition_s = repetition_s_;
    for (size_t i = 0; i < cases_.size(); ++i) {
      const Running& of_case = results_[i];
      const FormQuality summary = SummariseQuality(of_case.predictions, num_windows);
      const double loss = std::log(summary.perplexity), none = Mean(no_prefix_losses_), full = Mean(base_losses_);
      report.cases.push_back({.what = cases_[i],
                              .kl = summary.kl,
                              .same_top = summary.same_top,
                              .perplexity = summary.perplexity,
                              .recovered = (none - loss) / (none - full),
                              .held_tokens = of_case.held_tokens / num_windows,
                              .held_bytes = of_case.held_bytes / num_windows,
                              .retain_s = of_case.retain_s / num_windows,
                              .read_tokens = of_case.read_tokens / num_windows});
    }
    return report;
  }

 private:
  struct Running {
    std::vector<PredictionQuality> predictions;
    double held_tokens = 0, held_bytes = 0, retain_s = 0, read_tokens = 0;
  };

  static double Mean(std::span<const double> numbers) {
    return std::reduce(numbers.begin(), numbers.end(), 0.0) / static_cast<double>(numbers.size());
  }
  int64_t NumTokens() const {
    int64_t of_forms = 0;
    for (const Form form : FormsOf(cases_))
      of_forms += options_.prefix_tokens * (WantsRepetition(cases_, form) ? 2 : 1);
    const int64_t of_cases = (std::ssize(cases_) + 2) * options_.continuation_tokens;
    return options_.num_windows * (options_.prefix_tokens + of_forms + of_cases);
  }

  Status RunBase(std::span<const Token> prefix, std::span<const Token> rest) {
    KVIST_TRY(Cache* const cache, caches_.Of(kBaseForm));
    Sequence whole = cache->Begin();
    const auto began = Clock::now();
    KVIST_TRY_VOID(steps_.Feed(whole, prefix));
    prefill_s_ += SecondsSince(began);
    base_logits_.clear();
    KVIST_TRY_VOID(steps_.Score(whole, rest, [&](size_t i, std::span<const float> logits) {
      if (i + 1 == rest.size()) return;
      base_logits_.emplace_back(logits.begin(), logits.end());
      base_log_sums_.resize(base_logits_.size());
      base_log_sums_.back() = LogSumExp(logits);
      base_losses_.push_back(base_log_sums_.back() - double(logits[size_t(rest[i + 1])]));
    }));
    Sequence without = cache->Begin();
    return steps_.Score(without, rest, [&](size_t i, std::span<const float> logits) {
      if (i + 1 < rest.size()) no_prefix_losses_.push_back(LogSumExp(logits) - double(logits[size_t(rest[i + 1])]));
    });
  }

  Status RunCase(size_t index, const Sequence& whole, std::span<const Token> rest) {
    Running& of_case = results_[index];
    Sequence sequence = whole.Fork();
    const auto began = Clock::now();
    KVIST_TRY_VOID(Apply(cases_[index], options_.prefix_tokens, sequence));
    of_case.retain_s += SecondsSince(began);
    of_case.held_tokens += sequence.num_held_tokens();
    of_case.held_bytes += static_cast<double>(sequence.num_held_bytes());
    const auto compare = [&](size_t i, std::span<const float> logits) {
      if (i + 1 == rest.size()) return;
      of_case.predictions.push_back(ComparePrediction(base_logits_[i], base_log_sums_[i], logits, rest[i + 1]));
    };
    KVIST_TRY_VOID(steps_.Score(sequence, rest, compare, StepTokens(cases_[index])));
    if (cases_[index].page_tokens > 0) of_case.read_tokens += sequence.num_read_tokens();
    return {};
  }

  Model& model_;
  const std::span<const RetentionCase> cases_;
  const RetentionQualityOptions& options_;
  CachesByForm caches_;
  MeasuredSteps steps_;
  std::vector<Running> results_;                 // [case]
  std::vector<std::vector<float>> base_logits_;  // of the window's continuation
  std::vector<double> base_log_sums_;
  std::vector<double> base_losses_, no_prefix_losses_;
  double prefill_s_ = 0, observed_prefill_s_ = 0, repetition_s_ = 0;
  int num_observed_ = 0;
};

}  // namespace

Result<RetentionQualityReport> MeasureRetention(Model& model, std::span<const Token> text,
                                                std::span<const RetentionCase> cases,
                                                const RetentionQualityOptions& options,
                                                const std::function<bool(int64_t, int64_t)>& progress) {
  KVIST_TRY_VOID(CheckCases(cases));
  const auto invalid = [](const std::string& message) { return Fail(ErrorCode::kInvalidArgument, message); };
  const int64_t window_tokens = options.prefix_tokens + options.continuation_tokens;
  if (options.prefix_tokens < 256 || options.continuation_tokens < 2 || options.num_windows < 1) {
    return invalid("where tokens are given up or left out, a prefix (--context) has at least 256 tokens, here " +
                   std::to_string(options.prefix_tokens) + "; what follows it (--continuation) at least 2, here " +
                   std::to_string(options.continuation_tokens) + "; and there is a window (--windows), here " +
                   std::to_string(options.num_windows));
  }
  if (std::ranges::any_of(cases, [](const auto& each) { return NeedsRepetition(each.policy); })) {
    KVIST_TRY_VOID(CheckRoomToRepeat(model, options.repeat, options.prefix_tokens));
  }
  KVIST_TRY_VOID(CheckWindows(model, text, options.num_windows, window_tokens));
  Windows windows(model, cases, options, progress);
  for (int i = 0; i < options.num_windows; ++i) {
    const auto window = text.subspan(size_t(i * window_tokens), size_t(window_tokens));
    KVIST_TRY_VOID(windows.RunWindow({window.begin(), window.end()}));
  }
  return windows.Report(options.num_windows);
}

}  // namespace kvist
