// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "engine/recall_quality.h"

#include <algorithm>
#include <string>

#include "engine/measured_steps.h"
#include "engine/quality.h"

namespace kvist {
namespace {

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
  return double(logits[static_cast<size_t>(token)]) - LogSumExp(logits);
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

Result<RecallReport> MeasureRecall(Model& model, std::span<const Recall> recalls, std::span<const RetentionCase> cases,
                                   const RecallQualityOptions& options,
                                   const std::function<bool(int64_t, int64_t)>& progress) {
  KVIST_TRY_VOID(CheckCases(cases));
  KVIST_TRY_VOID(CheckRecalls(model, recalls));
  CachesByForm caches(model, options.cache);
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
