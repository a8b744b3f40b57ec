// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "engine/stream_quality.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <numeric>
#include <string>
#include <utility>

#include "base/seconds_since.h"
#include "engine/measured_steps.h"
#include "engine/quality.h"

namespace kvist {
namespace {

// One way through the text.
class Run {
 public:
  Run(const StreamCase& what, std::span<const Token> text, std::optional<Token> bos, Cache& cache, MeasuredSteps& steps)
      : stream_(what.stream), text_(text), bos_(bos), cache_(cache), steps_(steps), sequence_(cache.Begin()) {
    quality_.what = what;
  }

  Result<StreamQuality> Measure(int num_parts) {
    const auto began = std::chrono::steady_clock::now();
    for (size_t begin = 0; begin < text_.size();) {
      KVIST_TRY_VOID(MakeRoom(begin));
      const auto room = static_cast<size_t>(quality_.what.stream.window_tokens - sequence_.num_tokens());
      const auto step = text_.subspan(begin, std::min(room, text_.size() - begin));
      KVIST_TRY_VOID(steps_.Score(sequence_, step,
                                  [&](size_t i, std::span<const float> logits) { Predicted(begin + i, logits); }));
      NotePeak();
      begin += step.size();
    }
    quality_.seconds = SecondsSince(began);
    Summarise(num_parts);
    return std::move(quality_);
  }

 private:
  Status MakeRoom(size_t begin) {
    const StreamOptions& options = quality_.what.stream;
    if (sequence_.num_tokens() < options.window_tokens) return {};
    ++quality_.num_slides;
    if (!quality_.what.recomputes) return stream_.MakeRoom(1, sequence_);
    std::vector<Token> last;
    if (bos_) last.push_back(*bos_);
    const auto overlap = text_.first(begin).last(static_cast<size_t>(options.overlap_tokens));
    last.insert(last.end(), overlap.begin(), overlap.end());
    quality_.num_recomputed_tokens += std::ssize(last);
    sequence_ = cache_.Begin();
    return steps_.Feed(sequence_, last);
  }

  void NotePeak() { quality_.peak_live_bytes = std::max(quality_.peak_live_bytes, cache_.stats().live_bytes); }

  // Logits after text_[i].
  void Predicted(size_t i, std::span<const float> logits) {
    if (i + 1 == text_.size()) return;
    losses_.push_back(LogSumExp(logits) - double{logits[static_cast<size_t>(text_[i + 1])]});
  }

  static double Perplexity(std::span<const double> losses) {
    return std::exp(std::reduce(losses.begin(), losses.end(), 0.0) / static_cast<double>(losses.size()));
  }

  void Summarise(int num_parts) {
    const std::span<const double> losses(losses_);
    const auto num = static_cast<size_t>(num_parts);
    for (size_t part = 0; part < num; ++part) {
      const size_t begin = losses.size() * part / num, end = losses.size() * (part + 1) / num;
      quality_.perplexities.push_back(Perplexity(losses.subspan(begin, end - begin)));
    }
    quality_.perplexity = Perplexity(losses);
  }

  Stream stream_;
  const std::span<const Token> text_;
  const std::optional<Token> bos_;
  Cache& cache_;
  MeasuredSteps& steps_;
  Sequence sequence_;
  std::vector<double> losses_;  // of text_[1], text_[2], ...
  StreamQuality quality_;
};

Status Check(const Model& model, std::span<const Token> text, std::span<const StreamCase> cases, int num_parts) {
  const auto invalid = [](const std::string& message) { return Fail(ErrorCode::kInvalidArgument, message); };
  if (cases.empty()) return invalid("there is no stream to measure");
  if (num_parts < 1 || std::ssize(text) < 2 * int64_t{num_parts}) {
    return invalid("a text of " + std::to_string(text.size()) + " tokens in " + std::to_string(num_parts) +
                   " parts; a part needs at least two");
  }
  for (const StreamCase& each : cases) {
    KVIST_TRY_VOID(each.stream.Validate(model.geometry(), model.context_length()));
  }
  return {};
}

}  // namespace

Result<std::vector<StreamQuality>> MeasureStreams(Model& model, std::span<const Token> text,
                                                  std::span<const StreamCase> cases,
                                                  const StreamQualityOptions& options,
                                                  const std::function<bool(int64_t, int64_t)>& progress) {
  KVIST_TRY_VOID(Check(model, text, cases, options.num_parts));
  MeasuredSteps steps(model, std::ssize(cases) * std::ssize(text), progress);
  std::vector<StreamQuality> qualities;
  for (const StreamCase& each : cases) {
    CacheOptions cache_options = options.cache;
    cache_options.form = each.form;
    KVIST_TRY(const auto cache, Cache::Open(model.geometry(), cache_options));
    KVIST_TRY(auto quality, Run(each, text, options.bos, *cache, steps).Measure(options.num_parts));
    qualities.push_back(std::move(quality));
  }
  return qualities;
}

}  // namespace kvist
