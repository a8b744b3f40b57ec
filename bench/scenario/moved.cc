// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "bench/scenario/moved.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <utility>

namespace kvist {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kPieceTokens = 128;

size_t Size(int64_t count) {
  return static_cast<size_t>(count);
}
double MsSince(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

std::vector<Token> Join(std::span<const Token> one, std::span<const Token> other) {
  std::vector<Token> all(one.begin(), one.end());
  all.insert(all.end(), other.begin(), other.end());
  return all;
}

// One way to get at a document, and what it has predicted so far.
struct MovedContestant {
  std::optional<int64_t> recomputed_tokens;
  std::vector<PredictionQuality> predictions = {};
  double document_ms = 0;
};

class MovedContest {
 public:
  MovedContest(Model& model, std::span<const Token> text, const MovedOptions& options,
               const std::function<bool(int64_t, int64_t)>& progress)
      : model_(model), text_(text), options_(options), progress_(progress) {
    contestants_.push_back({});
    for (const int64_t recomputed : options.recomputed_tokens) contestants_.push_back({recomputed});
  }

  Status Run() {
    for (int i = 0; i < options_.num_rounds; ++i) {
      if (progress_ && !progress_(i, options_.num_rounds)) return Fail(ErrorCode::kCancelled, "interrupted");
      KVIST_TRY_VOID(RunRound(i));
    }
    return {};
  }

  MovedReport Report() const {
    const double num_rounds = options_.num_rounds;
    MovedReport report{.computed_document_ms = computed_document_ms_ / num_rounds, .points = {}};
    for (const MovedContestant& each : contestants_) {
      report.points.push_back({each.recomputed_tokens, SummariseQuality(each.predictions, options_.num_rounds),
                               each.document_ms / num_rounds});
    }
    return report;
  }

 private:
  // A round's caches are its own: what one has computed must not be found by another.
  Status RunRound(int round) {
    const int64_t beginnings = options_.other_beginning_tokens + options_.beginning_tokens;
    const int64_t round_tokens = beginnings + options_.document_tokens + options_.continuation_tokens;
    const auto all = text_.subspan(Size(round * round_tokens), Size(round_tokens));
    document_ = all.subspan(Size(beginnings), Size(options_.document_tokens));
    continuation_ = all.last(Size(options_.continuation_tokens));
    beginning_ = Beginning(all.subspan(Size(options_.other_beginning_tokens), Size(options_.beginning_tokens)));
    KVIST_TRY_VOID(Compute());
    const auto other_beginning = all.first(Size(options_.other_beginning_tokens));
    KVIST_TRY_VOID(WithoutBeginning());
    return Reuse(Beginning(other_beginning));
  }

  std::vector<Token> Beginning(std::span<const Token> tokens) const {
    return options_.bos ? Join(std::span(&*options_.bos, 1), tokens) : std::vector<Token>(tokens.begin(), tokens.end());
  }

  Result<std::unique_ptr<Cache>> OpenCache(bool reuses_moved_chunks) const {
    CacheOptions cache = options_.cache;
    cache.shares_prefixes = cache.reuses_moved_chunks = reuses_moved_chunks;
    cache.moved_chunks.recomputed_tokens = 0;  // they are computed here, so that one cache serves all contestants
    return Cache::Open(model_.geometry(), cache);
  }

  Status Compute() {
    KVIST_TRY(const auto cache, OpenCache(false));
    Sequence sequence = cache->Begin();
    KVIST_TRY_VOID(Feed(sequence, beginning_));
    const auto start = Clock::now();
    KVIST_TRY_VOID(Feed(sequence, document_.first(document_.size() - 1)));
    computed_document_ms_ += MsSince(start);
    KVIST_TRY(const auto logits, Predict(sequence));
    base_logits_.assign(logits.begin(), logits.end());
    return {};
  }

  Status WithoutBeginning() {
    KVIST_TRY(const auto cache, OpenCache(false));
    Sequence sequence = cache->Begin();
    const auto start = Clock::now();
    KVIST_TRY_VOID(Feed(sequence, Beginning(document_.first(document_.size() - 1))));
    contestants_[0].document_ms += MsSince(start);
    return Score(sequence, contestants_[0]);
  }

  Status Reuse(std::span<const Token> other_beginning) {
    KVIST_TRY(const auto cache, OpenCache(true));
    {
      Sequence stored = cache->Begin();
      KVIST_TRY_VOID(Feed(stored, other_beginning));
      KVIST_TRY_VOID(Feed(stored, document_));
    }
    Sequence begun = cache->Begin();
    KVIST_TRY_VOID(Feed(begun, beginning_));
    const std::vector<Token> prompt = Join(beginning_, document_);
    for (MovedContestant& each : std::span(contestants_).subspan(1)) {
      Sequence sequence = begun.Fork();
      const auto start = Clock::now();
      KVIST_TRY_VOID(Feed(sequence, document_.first(Size(*each.recomputed_tokens))));
      sequence.ReuseMoved(prompt, std::ssize(prompt) - 1);
      KVIST_CHECK(sequence.num_tokens() == std::ssize(prompt) - 1);  // it has just been stored
      each.document_ms += MsSince(start);
      KVIST_TRY_VOID(Score(sequence, each));
    }
    return {};
  }

  Status Score(Sequence& sequence, MovedContestant& contestant) {
    KVIST_TRY(const auto logits, Predict(sequence));
    for (size_t i = 0; i < continuation_.size(); ++i) {
      const auto base = Row(base_logits_, i);
      contestant.predictions.push_back(ComparePrediction(base, LogSumExp(base), Row(logits, i), continuation_[i]));
    }
    return {};
  }

  // The logits that predict the continuation, of the document's last token and all of it but its last.
  Result<std::span<const float>> Predict(Sequence& sequence) {
    const std::vector<Token> tokens = Join(document_.last(1), continuation_.first(continuation_.size() - 1));
    const BatchItem item{.sequence = &sequence, .tokens = tokens, .logits = LogitsWanted::kAll};
    return model_.Forward(std::span(&item, 1));
  }

  Status Feed(Sequence& sequence, std::span<const Token> tokens) {
    while (!tokens.empty()) {
      const auto piece = tokens.first(std::min(tokens.size(), Size(kPieceTokens)));
      tokens = tokens.subspan(piece.size());
      const BatchItem item{.sequence = &sequence, .tokens = piece, .logits = LogitsWanted::kNone};
      KVIST_TRY([[maybe_unused]] const auto none, model_.Forward(std::span(&item, 1)));
    }
    return {};
  }

  std::span<const float> Row(std::span<const float> logits, size_t row) const {
    return logits.subspan(row * Size(model_.num_vocabulary()), Size(model_.num_vocabulary()));
  }

  Model& model_;
  const std::span<const Token> text_;
  const MovedOptions& options_;
  const std::function<bool(int64_t, int64_t)>& progress_;
  std::vector<MovedContestant> contestants_;  // the one without a beginning first
  // Of the round:
  std::vector<Token> beginning_;
  std::span<const Token> document_, continuation_;
  std::vector<float> base_logits_;   // [continuation token, vocabulary]
  double computed_document_ms_ = 0;  // of all rounds
};

Status Check(const Model& model, std::span<const Token> text, const MovedOptions& options) {
  const auto invalid = [](const std::string& message) { return Fail(ErrorCode::kInvalidArgument, message); };
  if (options.num_rounds < 1 || options.continuation_tokens < 1 || options.recomputed_tokens.empty()) {
    return invalid("there is nothing to measure; give at least one round and one number of recomputed tokens");
  }
  if (std::min(options.beginning_tokens, options.other_beginning_tokens) < 1) return invalid("a beginning is empty");
  const int64_t most = std::ranges::max(options.recomputed_tokens), min_tokens = options.cache.moved_chunks.min_tokens;
  if (std::ranges::min(options.recomputed_tokens) < 0 || most + min_tokens >= options.document_tokens) {
    return invalid("a document of " + std::to_string(options.document_tokens) + " tokens is too short to recompute " +
                   std::to_string(most) + " of them and reuse " + std::to_string(min_tokens));
  }
  const int64_t beginning = std::max(options.beginning_tokens, options.other_beginning_tokens) + 1;
  const int64_t longest = beginning + options.document_tokens + options.continuation_tokens;
  if (longest > model.context_length()) {
    return invalid("rounds of " + std::to_string(longest) + " tokens; the model's context has " +
                   std::to_string(model.context_length()));
  }
  const int64_t all = options.num_rounds * (options.beginning_tokens + options.other_beginning_tokens +
                                            options.document_tokens + options.continuation_tokens);
  if (std::cmp_less_equal(all, text.size())) return {};
  return invalid("the text has " + std::to_string(text.size()) + " tokens, the rounds need " + std::to_string(all) +
                 "; give a longer text or fewer rounds");
}

}  // namespace

Result<MovedReport> MeasureMoved(Model& model, std::span<const Token> text, const MovedOptions& options,
                                 const std::function<bool(int64_t, int64_t)>& progress) {
  KVIST_TRY_VOID(Check(model, text, options));
  MovedContest contest(model, text, options, progress);
  KVIST_TRY_VOID(contest.Run());
  return contest.Report();
}

}  // namespace kvist
