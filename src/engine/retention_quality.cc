// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "engine/retention_quality.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <numeric>
#include <utility>

#include "base/seconds_since.h"
#include "engine/measured_steps.h"

namespace kvist {
namespace {

using Clock = std::chrono::steady_clock;
constexpr Form kBaseForm{Codec::kF32, Codec::kF32};

size_t Size(int64_t count) {
  return static_cast<size_t>(count);
}

// A cache a form, for the run.
class Caches {
 public:
  Caches(const Model& model, const CacheOptions& options) : model_(model), options_(options) {}

  Result<Cache*> Of(Form form) {
    for (const auto& [known, cache] : caches_)
      if (known == form) return cache.get();
    CacheOptions options = options_;
    options.form = form;
    KVIST_TRY(auto cache, Cache::Open(model_.geometry(), options));
    return caches_.emplace_back(form, std::move(cache)).second.get();
  }

 private:
  const Model& model_;
  const CacheOptions& options_;
  std::vector<std::pair<Form, std::unique_ptr<Cache>>> caches_;
};

std::vector<Form> FormsOf(std::span<const RetentionCase> cases) {
  std::vector<Form> forms;
  for (const RetentionCase& each : cases)
    if (std::ranges::find(forms, each.form) == forms.end()) forms.push_back(each.form);
  return forms;
}

Status ObserveAll(Sequence& sequence, std::span<const RetentionCase> cases) {
  for (const RetentionCase& each : cases) {
    if (NeedsObserving(each.policy)) KVIST_TRY_VOID(sequence.Observe(each.policy));
  }
  return {};
}

// The second pass that kvzip asks for; returns what it took.
Result<double> Repeat(Model& model, const RepeatPrompts& prompts, Sequence& sequence, MeasuredSteps& steps) {
  const auto began = Clock::now();
  KVIST_TRY_VOID(
      ObserveRepetition(model, prompts, sequence, [&](int64_t num_tokens) { return steps.Count(num_tokens); }));
  return SecondsSince(began);
}

bool WantsRepetition(std::span<const RetentionCase> cases, Form form) {
  return std::ranges::any_of(cases,
                             [=](const auto& each) { return each.form == form && NeedsRepetition(each.policy); });
}

Status Apply(const RetentionCase& what, int64_t num_prefix_tokens, Sequence& sequence) {
  KVIST_TRY_VOID(sequence.SelectPages({.num_tokens = what.page_tokens}));
  KVIST_TRY([[maybe_unused]] const RetentionReport report,
            sequence.Retain({.policy = what.policy, .shape = what.shape},
                            std::max<int64_t>(1, std::llround(what.keep * double(num_prefix_tokens)))));
  return {};
}

// Steps of several tokens give the same bits as single ones, but read all pages.
int64_t StepTokens(const RetentionCase& what) {
  return what.page_tokens > 0 ? 1 : MeasuredSteps::kScoredTokens;
}

Status CheckCases(std::span<const RetentionCase> cases) {
  if (cases.empty())
    return Fail(ErrorCode::kInvalidArgument, "there is nothing to measure: no policy, no number of tokens to read");
  for (const RetentionCase& each : cases) {
    KVIST_TRY_VOID((RetentionOptions{.policy = each.policy, .shape = each.shape}.Validate()));
    KVIST_TRY_VOID((PageSelection{.num_tokens = each.page_tokens}.Validate()));
    if (each.keep > 0 && each.keep <= 1) continue;
    return Fail(ErrorCode::kInvalidArgument,
                "a share of " + std::to_string(each.keep) + " to keep; it must be above 0 and at most 1");
  }
  return {};
}

// --- continuation ---

class Continuation {
 public:
  Continuation(Model& model, std::span<const RetentionCase> cases, const RetentionQualityOptions& options,
               const std::function<bool(int64_t, int64_t)>& progress)
      : model_(model),
        cases_(cases),
        options_(options),
        caches_(model, options_.cache),
        steps_(model, NumTokens(), progress),
        results_(cases.size()) {}

  Status RunWindow(std::vector<Token> window) {
    if (options_.bos) window[0] = *options_.bos;
    const std::span<const Token> prefix(window.data(), Size(options_.prefix_tokens));
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
                              .retain_s = of_case.retain_s / num_windows});
    }
    return report;
  }

 private:
  struct Running {
    std::vector<PredictionQuality> predictions;
    double held_tokens = 0, held_bytes = 0, retain_s = 0;
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
      base_losses_.push_back(base_log_sums_.back() - double(logits[Size(rest[i + 1])]));
    }));
    Sequence without = cache->Begin();
    return steps_.Score(without, rest, [&](size_t i, std::span<const float> logits) {
      if (i + 1 < rest.size()) no_prefix_losses_.push_back(LogSumExp(logits) - double(logits[Size(rest[i + 1])]));
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
    return steps_.Score(sequence, rest, compare, StepTokens(cases_[index]));
  }

  Model& model_;
  const std::span<const RetentionCase> cases_;
  const RetentionQualityOptions& options_;
  Caches caches_;
  MeasuredSteps steps_;
  std::vector<Running> results_;                 // [case]
  std::vector<std::vector<float>> base_logits_;  // of the window's continuation
  std::vector<double> base_log_sums_;
  std::vector<double> base_losses_, no_prefix_losses_;
  double prefill_s_ = 0, observed_prefill_s_ = 0, repetition_s_ = 0;
  int num_observed_ = 0;
};

// --- recall ---

// visit(token, logits) for each token of the answer, after the cue.
template <class Visit>
Status Ask(const Recall& recall, int64_t step_tokens, Sequence& sequence, MeasuredSteps& steps, Visit visit) {
  std::vector<Token> tokens = recall.cue;
  tokens.insert(tokens.end(), recall.answer.begin(), recall.answer.end() - 1);
  const auto of_answer = [&](size_t i, std::span<const float> logits) {
    if (i + 1 >= recall.cue.size()) visit(recall.answer[i + 1 - recall.cue.size()], logits);
  };
  return steps.Score(sequence, tokens, of_answer, step_tokens);
}

double LogProbability(Token token, std::span<const float> logits) {
  return double(logits[Size(token)]) - LogSumExp(logits);
}

Status AskFor(const Recall& recall, Sequence& sequence, MeasuredSteps& steps, RecallQuality& quality) {
  const int64_t step_tokens = StepTokens(quality.what);
  double num_right = 0, log_probability = 0;
  KVIST_TRY_VOID(Ask(recall, step_tokens, sequence, steps, [&](Token token, std::span<const float> logits) {
    num_right += std::ranges::max_element(logits) - logits.begin() == token ? 1 : 0;
    log_probability += LogProbability(token, logits);
  }));
  const auto num_tokens = static_cast<double>(recall.answer.size());
  quality.found += num_right == num_tokens ? 1 : 0;
  quality.right_tokens += num_right / num_tokens;
  quality.log_probability += log_probability / num_tokens;
  ++quality.num_asked;
  return {};
}

Status CheckRecalls(const Model& model, std::span<const Recall> recalls) {
  if (recalls.empty()) return Fail(ErrorCode::kInvalidArgument, "there is nothing to ask for");
  for (const Recall& each : recalls) {
    if (each.cue.empty() || each.answer.empty()) {
      return Fail(ErrorCode::kInvalidArgument, "what is asked for needs a cue and an answer");
    }
    const auto num_tokens = std::ssize(each.context) + std::ssize(each.cue) + std::ssize(each.answer) - 1;
    if (num_tokens <= model.context_length()) continue;
    return Fail(ErrorCode::kInvalidArgument, "a context and what is asked of it have " + std::to_string(num_tokens) +
                                                 " tokens; the model's context has " +
                                                 std::to_string(model.context_length()));
  }
  return {};
}

int64_t NumRecallTokens(std::span<const Recall> recalls, std::span<const RetentionCase> cases) {
  int64_t num_tokens = 0;
  for (const Recall& each : recalls) {
    num_tokens += (std::ssize(cases) + 1) * (std::ssize(each.cue) + std::ssize(each.answer) - 1);
    for (const Form form : FormsOf(cases))
      num_tokens += std::ssize(each.context) * (WantsRepetition(cases, form) ? 2 : 1);
  }
  return num_tokens;
}

}  // namespace

Result<RetentionQualityReport> MeasureRetention(Model& model, std::span<const Token> text,
                                                std::span<const RetentionCase> cases,
                                                const RetentionQualityOptions& options,
                                                const std::function<bool(int64_t, int64_t)>& progress) {
  KVIST_TRY_VOID(CheckCases(cases));
  const auto invalid = [](const std::string& message) { return Fail(ErrorCode::kInvalidArgument, message); };
  const int64_t window_tokens = options.prefix_tokens + options.continuation_tokens;
  if (options.prefix_tokens < 256 || options.continuation_tokens < 2 || options.num_windows < 1) {
    return invalid("a prefix must have at least 256 tokens, what follows it 2, and there must be a window");
  }
  KVIST_TRY_VOID(CheckWindows(model, text, options.num_windows, window_tokens));
  Continuation continuation(model, cases, options, progress);
  for (int i = 0; i < options.num_windows; ++i) {
    const auto window = text.subspan(Size(i * window_tokens), Size(window_tokens));
    KVIST_TRY_VOID(continuation.RunWindow({window.begin(), window.end()}));
  }
  return continuation.Report(options.num_windows);
}

Result<RecallReport> MeasureRecall(Model& model, std::span<const Recall> recalls, std::span<const RetentionCase> cases,
                                   const RetentionQualityOptions& options,
                                   const std::function<bool(int64_t, int64_t)>& progress) {
  KVIST_TRY_VOID(CheckCases(cases));
  KVIST_TRY_VOID(CheckRecalls(model, recalls));
  Caches caches(model, options.cache);
  MeasuredSteps steps(model, NumRecallTokens(recalls, cases), progress);
  RecallReport report;
  for (const RetentionCase& each : cases) report.cases.push_back({.what = each});
  for (const Recall& recall : recalls) {
    KVIST_TRY(Cache* const base, caches.Of(kBaseForm));
    Sequence without = base->Begin();
    double log_probability = 0;
    KVIST_TRY_VOID(
        Ask(recall, MeasuredSteps::kScoredTokens, without, steps,
            [&](Token token, std::span<const float> logits) { log_probability += LogProbability(token, logits); }));
    report.no_context_log_probability += log_probability / double(recall.answer.size()) / double(recalls.size());
    for (const Form form : FormsOf(cases)) {
      KVIST_TRY(Cache* const cache, caches.Of(form));
      Sequence whole = cache->Begin();
      KVIST_TRY_VOID(ObserveAll(whole, cases));
      KVIST_TRY_VOID(steps.Feed(whole, recall.context));
      if (WantsRepetition(cases, form)) {
        KVIST_TRY([[maybe_unused]] const double seconds, Repeat(model, options.repeat, whole, steps));
      }
      for (size_t i = 0; i < cases.size(); ++i) {
        if (cases[i].form != form) continue;
        Sequence sequence = whole.Fork();
        KVIST_TRY_VOID(Apply(cases[i], std::ssize(recall.context), sequence));
        KVIST_TRY_VOID(AskFor(recall, sequence, steps, report.cases[i]));
      }
    }
  }
  for (RecallQuality& each : report.cases) {
    const auto count = static_cast<double>(each.num_asked);
    each.found /= count;
    each.right_tokens /= count;
    each.log_probability /= count;
  }
  return report;
}

}  // namespace kvist
