// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "engine/quality.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <memory>
#include <numeric>
#include <string>
#include <utility>

namespace kvist {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Tokens of a step: as many as a prompt is fed in, and few enough that the logits of all fit in memory.
constexpr int64_t kPieceTokens = 128;

// Of numbers that may be infinite. Independent ones: clusters of one.
Estimate MeanOfClusters(std::span<const double> numbers, size_t num_clusters) {
  const size_t cluster_size = numbers.size() / num_clusters;
  std::vector<double> means;
  for (size_t i = 0; i < num_clusters; ++i) {
    const auto cluster = numbers.subspan(i * cluster_size, cluster_size);
    means.push_back(std::reduce(cluster.begin(), cluster.end(), 0.0) / static_cast<double>(cluster_size));
  }
  const auto count = static_cast<double>(num_clusters);
  const double mean = std::reduce(means.begin(), means.end(), 0.0) / count;
  if (!std::isfinite(mean) || num_clusters < 2) return {mean, kInfinity};
  const double squares = std::transform_reduce(means.begin(), means.end(), 0.0, std::plus(),
                                               [&](double each) { return (each - mean) * (each - mean); });
  return {mean, std::sqrt(squares / (count - 1) / count)};
}

Estimate Mean(std::span<const double> numbers, int num_windows) {
  return MeanOfClusters(numbers, num_windows > 1 ? size_t(num_windows) : numbers.size());
}

// Linear between the two numbers it falls between.
double Quantile(std::span<const double> sorted, double share) {
  const double place = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(place);
  const double low = sorted[below];
  const double high = sorted[std::min(below + 1, sorted.size() - 1)];
  return low == high ? low : low + (place - static_cast<double>(below)) * (high - low);  // infinity less itself is none
}

size_t Top(std::span<const float> logits) {
  return size_t(std::ranges::max_element(logits) - logits.begin());
}

// The base or a form: its cache, and what it has predicted so far.
struct Contestant {
  Form form;
  std::unique_ptr<Cache> cache;
  Sequence sequence;
  std::vector<PredictionQuality> predictions;
  size_t kv_bytes = 0;  // at the end of the last window
};

class Contest {
 public:
  Contest(Model& model, std::span<const Token> text, const QualityOptions& options,
          const std::function<bool(int64_t, int64_t)>& progress)
      : model_(model), text_(text), options_(options), progress_(progress) {}

  Status Add(Form form) {
    KVIST_TRY(auto cache, Cache::Open(model_.geometry(), OptionsFor(form)));
    Sequence sequence = cache->Begin();
    contestants_.push_back({form, std::move(cache), std::move(sequence), {}, 0});
    return {};
  }

  Status Run() {
    for (int i = 0; i < options_.num_windows; ++i) {
      const auto window = text_.subspan(size_t(i * options_.window_tokens), size_t(options_.window_tokens));
      KVIST_TRY_VOID(RunWindow({window.begin(), window.end()}));
    }
    return {};
  }

  QualityReport Report() const {
    const CacheGeometry& geometry = model_.geometry();
    const Contestant& base = contestants_.front();
    QualityReport report{.base_perplexity = BasePerplexity(), .base_kv_bytes = base.kv_bytes, .forms = {}};
    for (const Contestant& each : std::span(contestants_).subspan(1)) {
      FormQuality quality = SummariseQuality(each.predictions, options_.num_windows);
      quality.form = each.form;
      quality.bits = geometry.BitsPerNumber(each.form);
      // The base holds the same tokens, in 32 bits a number.
      quality.total_bits = 32 * static_cast<double>(each.kv_bytes) / static_cast<double>(base.kv_bytes);
      quality.kv_bytes = each.kv_bytes;
      report.forms.push_back(quality);
    }
    return report;
  }

 private:
  CacheOptions OptionsFor(Form form) const {
    CacheOptions cache = options_.cache;
    cache.form = form;
    if (options_.after_the_fact) cache.sealing.begin_position = first_scored();
    return cache;
  }

  double BasePerplexity() const {
    std::vector<double> losses;  // every form's predictions hold the base's, too
    for (const PredictionQuality& each : contestants_[1].predictions) losses.push_back(each.base_loss);
    return std::exp(Mean(losses, options_.num_windows).mean);
  }

  int64_t first_scored() const { return options_.window_tokens / 2; }
  int64_t num_all_tokens() const {
    return options_.num_windows * options_.window_tokens * static_cast<int64_t>(contestants_.size());
  }

  Status RunWindow(std::vector<Token> tokens) {
    if (options_.bos) tokens[0] = *options_.bos;
    for (Contestant& each : contestants_) each.sequence = each.cache->Begin();
    int64_t end = 0;
    for (int64_t begin = 0; begin < options_.window_tokens; begin = end) {
      const bool is_scored = begin >= first_scored();
      end = std::min(begin + kPieceTokens, is_scored ? options_.window_tokens : first_scored());
      KVIST_TRY_VOID(is_scored ? ScorePiece(tokens, begin, end) : FeedPiece(tokens, begin, end));
    }
    for (Contestant& each : contestants_) each.kv_bytes = each.cache->stats().live_bytes;
    return {};
  }

  Status FeedPiece(std::span<const Token> window, int64_t begin, int64_t end) {
    for (Contestant& each : contestants_) {
      KVIST_TRY([[maybe_unused]] const auto none, Step(each, window, begin, end, LogitsWanted::kNone));
    }
    return {};
  }

  Status ScorePiece(std::span<const Token> window, int64_t begin, int64_t end) {
    Contestant& base = contestants_.front();
    KVIST_TRY(const auto base_logits, Step(base, window, begin, end, LogitsWanted::kAll));
    base_logits_.assign(base_logits.begin(), base_logits.end());
    // The window's last token predicts one that is not in it.
    const int64_t num_scored = std::min(end, options_.window_tokens - 1) - begin;
    base_log_sums_.clear();
    for (int64_t i = 0; i < num_scored; ++i) {
      base_log_sums_.push_back(LogSumExp(Row(base_logits_, i)));
      if (std::isfinite(base_log_sums_.back())) continue;
      return Fail(ErrorCode::kCorrupt,
                  "the model computes no numbers at token " + std::to_string(begin + i) +
                      " of a window, with keys and values in f32; its file is damaged, or can't be used with f32");
    }
    for (Contestant& each : std::span(contestants_).subspan(1)) {
      KVIST_TRY(const auto logits, Step(each, window, begin, end, LogitsWanted::kAll));
      for (int64_t i = 0; i < num_scored; ++i) {
        each.predictions.push_back(ComparePrediction(Row(base_logits_, i), base_log_sums_[size_t(i)], Row(logits, i),
                                                     window[size_t(begin + i + 1)]));
      }
    }
    return {};
  }

  Result<std::span<const float>> Step(Contestant& contestant, std::span<const Token> window, int64_t begin, int64_t end,
                                      LogitsWanted wanted) {
    if (progress_ && !progress_(num_computed_, num_all_tokens())) return Fail(ErrorCode::kCancelled, "interrupted");
    const BatchItem item{.sequence = &contestant.sequence,
                         .tokens = window.subspan(size_t(begin), size_t(end - begin)),
                         .logits = wanted};
    num_computed_ += end - begin;
    return model_.Forward(std::span(&item, 1));
  }

  std::span<const float> Row(std::span<const float> logits, int64_t row) const {
    return logits.subspan(size_t(row * model_.num_vocabulary()), size_t(model_.num_vocabulary()));
  }

  Model& model_;
  const std::span<const Token> text_;
  const QualityOptions& options_;
  const std::function<bool(int64_t, int64_t)>& progress_;
  std::vector<Contestant> contestants_;  // the base first
  std::vector<float> base_logits_;       // of a piece: [token, vocabulary]
  std::vector<double> base_log_sums_;
  int64_t num_computed_ = 0;
};

Status Check(const Model& model, std::span<const Token> text, std::span<const Form> forms,
             const QualityOptions& options) {
  const auto invalid = [](const std::string& message) { return Fail(ErrorCode::kInvalidArgument, message); };
  if (forms.empty()) return invalid("there is no form to measure");
  if (options.num_windows < 1) return invalid("the number of windows must be at least 1");
  if (options.window_tokens < 4 || options.window_tokens > model.context_length()) {
    return invalid("windows of " + std::to_string(options.window_tokens) +
                   " tokens; they must have 4 to the model's context of " + std::to_string(model.context_length()));
  }
  return CheckTextLength(text, options.num_windows, options.window_tokens);
}

}  // namespace

Status CheckTextLength(std::span<const Token> text, int num_windows, int64_t window_tokens) {
  if (std::cmp_greater_equal(text.size() / size_t(window_tokens), num_windows)) return {};
  return Fail(ErrorCode::kInvalidArgument, "the text has " + std::to_string(text.size()) + " tokens, not enough for " +
                                               std::to_string(num_windows) + " windows of " +
                                               std::to_string(window_tokens) +
                                               "; give a longer text, fewer windows or shorter ones");
}

double LogSumExp(std::span<const float> logits) {
  const double largest = std::ranges::max(logits);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - largest);
  return largest + std::log(sum);
}

PredictionQuality ComparePrediction(std::span<const float> base, double base_log_sum, std::span<const float> form,
                                    Token next) {
  const double log_sum = LogSumExp(form);
  double kl = log_sum - base_log_sum;
  for (size_t i = 0; i < base.size(); ++i) {
    const double p = std::exp(base[i] - base_log_sum);
    if (p > 0) kl += p * (static_cast<double>(base[i]) - form[i]);  // 0 times infinity would be no number
  }
  PredictionQuality quality{.kl = kl,
                            .loss = log_sum - form[size_t(next)],
                            .base_loss = base_log_sum - base[size_t(next)],
                            .same_top = Top(form) == Top(base)};
  if (std::isnan(kl)) quality.kl = quality.loss = kInfinity;  // no number must not hide
  if (!std::isfinite(quality.kl)) quality.same_top = false;
  return quality;
}

FormQuality SummariseQuality(std::span<const PredictionQuality> predictions, int num_windows) {
  std::vector<double> kl;
  std::vector<double> losses;
  std::vector<double> differences;
  int64_t num_same = 0;
  for (const PredictionQuality& each : predictions) {
    kl.push_back(each.kl);
    losses.push_back(each.loss);
    differences.push_back(each.loss - each.base_loss);
    num_same += each.same_top ? 1 : 0;
  }
  FormQuality quality;
  quality.num_tokens = std::ssize(predictions);
  quality.kl = Mean(kl, num_windows);
  quality.perplexity = std::exp(Mean(losses, num_windows).mean);
  quality.ln_perplexity_difference = Mean(differences, num_windows);
  quality.same_top = static_cast<double>(num_same) / static_cast<double>(predictions.size());
  std::ranges::sort(kl);
  quality.kl_median = Quantile(kl, 0.5);
  quality.kl_p99 = Quantile(kl, 0.99);
  quality.kl_max = kl.back();
  return quality;
}

Result<QualityReport> MeasureQuality(Model& model, std::span<const Token> text, std::span<const Form> forms,
                                     const QualityOptions& options,
                                     const std::function<bool(int64_t, int64_t)>& progress) {
  KVIST_TRY_VOID(Check(model, text, forms, options));
  Contest contest(model, text, options, progress);
  KVIST_TRY_VOID(contest.Add(kBaseForm));
  for (const Form form : forms) KVIST_TRY_VOID(contest.Add(form));
  KVIST_TRY_VOID(contest.Run());
  return contest.Report();
}

}  // namespace kvist
