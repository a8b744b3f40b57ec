// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "engine/page_quality.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "engine/measured_steps.h"

namespace kvist {
namespace {

size_t Size(int64_t count) {
  return static_cast<size_t>(count);
}

class PageContest {
 public:
  PageContest(Model& model, std::span<const int64_t> page_tokens, const PageQualityOptions& options,
              const std::function<bool(int64_t, int64_t)>& progress, int64_t num_forms)
      : model_(model),
        page_tokens_(page_tokens),
        options_(options),
        steps_(model,
               num_forms * options.num_windows *
                   (options.prefix_tokens + (std::ssize(page_tokens) + 1) * options.continuation_tokens),
               progress) {}

  // Of one form, over all windows.
  Result<std::vector<PageQuality>> Measure(Form form, std::span<const Token> text) {
    CacheOptions cache_options = options_.cache;
    cache_options.form = form;
    KVIST_TRY(const auto cache, Cache::Open(model_.geometry(), cache_options));
    predictions_.assign(page_tokens_.size() + 1, {});
    const int64_t window_tokens = options_.prefix_tokens + options_.continuation_tokens;
    for (int i = 0; i < options_.num_windows; ++i) {
      const auto window = text.subspan(Size(i * window_tokens), Size(window_tokens));
      KVIST_TRY_VOID(RunWindow(*cache, {window.begin(), window.end()}));
    }
    std::vector<PageQuality> qualities;
    for (size_t i = 0; i < predictions_.size(); ++i) {
      const FormQuality summary = SummariseQuality(predictions_[i], options_.num_windows);
      qualities.push_back({.form = form,
                           .page_tokens = i == 0 ? 0 : page_tokens_[i - 1],
                           .kl = summary.kl,
                           .same_top = summary.same_top,
                           .perplexity = summary.perplexity});
    }
    return qualities;
  }

 private:
  Status RunWindow(Cache& cache, std::vector<Token> window) {
    if (options_.bos) window[0] = *options_.bos;
    const std::span<const Token> prefix(window.data(), Size(options_.prefix_tokens));
    const auto rest = std::span<const Token>(window).subspan(prefix.size());
    Sequence whole = cache.Begin();
    KVIST_TRY_VOID(steps_.Feed(whole, prefix));
    base_logits_.clear();
    base_log_sums_.clear();
    Sequence dense = whole.Fork();
    // Steps of several tokens give the same bits as one at a time.
    KVIST_TRY_VOID(steps_.Score(dense, rest, [&](size_t i, std::span<const float> logits) {
      base_logits_.emplace_back(logits.begin(), logits.end());
      base_log_sums_.push_back(LogSumExp(logits));
      Compare(0, i, rest, logits);
    }));
    for (size_t run = 1; run < predictions_.size(); ++run) {
      Sequence sequence = whole.Fork();
      KVIST_TRY_VOID(sequence.SelectPages({.num_tokens = page_tokens_[run - 1]}));
      KVIST_TRY_VOID(steps_.Score(
          sequence, rest, [&](size_t i, std::span<const float> logits) { Compare(run, i, rest, logits); }, 1));
    }
    return {};
  }

  void Compare(size_t run, size_t i, std::span<const Token> rest, std::span<const float> logits) {
    if (i + 1 == rest.size()) return;  // what comes after the last token is not in the window
    predictions_[run].push_back(ComparePrediction(base_logits_[i], base_log_sums_[i], logits, rest[i + 1]));
  }

  Model& model_;
  const std::span<const int64_t> page_tokens_;
  const PageQualityOptions& options_;
  MeasuredSteps steps_;
  std::vector<std::vector<PredictionQuality>> predictions_;  // [run] the base's first
  std::vector<std::vector<float>> base_logits_;              // of the window's continuation
  std::vector<double> base_log_sums_;
};

}  // namespace

Result<std::vector<PageQuality>> MeasurePages(Model& model, std::span<const Token> text, std::span<const Form> forms,
                                              std::span<const int64_t> page_tokens, const PageQualityOptions& options,
                                              const std::function<bool(int64_t, int64_t)>& progress) {
  const auto invalid = [](const std::string& message) { return Fail(ErrorCode::kInvalidArgument, message); };
  if (forms.empty() || page_tokens.empty()) return invalid("there is no form or number of tokens to measure");
  if (std::ranges::min(page_tokens) < 1) return invalid("a step must read at least one token");
  if (options.prefix_tokens < 1 || options.continuation_tokens < 2 || options.num_windows < 1) {
    return invalid("a prefix must have a token, what follows it 2, and there must be a window");
  }
  const int64_t window_tokens = options.prefix_tokens + options.continuation_tokens;
  KVIST_TRY_VOID(CheckWindows(model, text, options.num_windows, window_tokens));
  PageContest contest(model, page_tokens, options, progress, std::ssize(forms));
  std::vector<PageQuality> qualities;
  for (const Form form : forms) {
    KVIST_TRY(const auto of_form, contest.Measure(form, text));
    qualities.insert(qualities.end(), of_form.begin(), of_form.end());
  }
  return qualities;
}

}  // namespace kvist
