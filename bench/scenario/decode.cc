// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "bench/scenario/decode.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "bench/micro/median.h"
#include "bench/scenario/fill.h"
#include "engine/generator.h"

namespace kvist {
namespace {

using Clock = std::chrono::steady_clock;

// Any will do: which tokens they are does not change the work.
Token AnyToken(int64_t position, const Model& model) {
  return static_cast<Token>(position * 7919 % model.num_vocabulary());
}

Status Decode(Model& model, std::vector<Sequence>& sequences, int num_tokens) {
  for (int i = 0; i < num_tokens; ++i) {
    const Token token = AnyToken(sequences[0].num_tokens(), model);
    std::vector<BatchItem> batch;
    for (Sequence& sequence : sequences) batch.push_back({&sequence, std::span(&token, 1), LogitsWanted::kLast});
    KVIST_TRY([[maybe_unused]] const auto logits, model.Forward(batch));
  }
  return {};
}

Status Prefill(Model& model, std::vector<Sequence>& sequences, int num_tokens) {
  Sequence& sequence = sequences[0];
  const int64_t end = sequence.num_tokens() + num_tokens;
  while (sequence.num_tokens() < end) {
    const int64_t begin = sequence.num_tokens();
    const int64_t piece_end = Generator::PrefillStepEnd(begin, end);
    std::vector<Token> tokens;
    for (int64_t i = begin; i < piece_end; ++i) tokens.push_back(AnyToken(i, model));
    const BatchItem item{&sequence, tokens, piece_end == end ? LogitsWanted::kLast : LogitsWanted::kNone};
    KVIST_TRY([[maybe_unused]] const auto logits, model.Forward(std::span(&item, 1)));
  }
  return {};
}

// A form and what is read, its filled sequences and how fast it was in each round.
struct DecodeContestant {
  Form form;
  int64_t page_tokens;
  std::shared_ptr<const Cache> cache;
  std::vector<Sequence> filled;
  std::vector<double> tokens_per_s;

  std::vector<Sequence> Forks() const {
    std::vector<Sequence> forks;
    for (const Sequence& sequence : filled) forks.push_back(sequence.Fork());
    return forks;
  }
};

// One depth after the other, at each of them the forms in turn.
class DecodeContest {
 public:
  // What is timed. Computes num_tokens tokens for each sequence.
  using Compute = Status (*)(Model& model, std::vector<Sequence>& sequences, int num_tokens);

  DecodeContest(Model& model, const SpeedBench& bench, const SpeedProgress& progress, Compute compute,
                int num_warm_tokens)
      : model_(model),
        bench_(bench),
        progress_(progress),
        compute_(compute),
        num_warm_tokens_(std::min(num_warm_tokens, bench.num_tokens)),
        random_(model.geometry()),
        num_runs_(std::ssize(bench.depths) * std::ssize(bench.forms) * std::ssize(bench.page_tokens) *
                  bench.num_rounds) {}

  Result<std::vector<SpeedTiming>> Run() {
    for (const int64_t depth : bench_.depths) KVIST_TRY_VOID(CheckDepth(depth));
    std::vector<SpeedTiming> timings;
    for (const int64_t depth : bench_.depths) {
      KVIST_TRY(std::vector<DecodeContestant> contestants, OpenAll(depth));
      for (int round = 0; round < bench_.num_rounds; ++round) {
        for (DecodeContestant& each : contestants) KVIST_TRY_VOID(RunOnce(each));
      }
      for (const DecodeContestant& each : contestants) {
        timings.push_back({each.form, each.page_tokens, depth, model_.num_threads(), Median(each.tokens_per_s),
                           each.cache->stats().live_bytes});
      }
    }
    return timings;
  }

 private:
  Status CheckDepth(int64_t depth) const {
    const bool selects_pages = std::ranges::max(bench_.page_tokens) > 0;
    const int64_t num_all = depth + bench_.num_tokens + (selects_pages ? num_warm_tokens_ : 0);
    if (num_all <= model_.context_length()) return {};
    return Fail(ErrorCode::kOutOfRange, "depth " + std::to_string(depth) + " and " + std::to_string(num_all - depth) +
                                            " tokens after it make " + std::to_string(num_all) +
                                            "; the model's context holds " + std::to_string(model_.context_length()));
  }

  Status KeepGoing() const {
    if (progress_(num_done_, num_runs_)) return {};
    return Fail(ErrorCode::kCancelled, "interrupted");
  }

  Result<std::vector<DecodeContestant>> OpenAll(int64_t depth) {
    std::vector<DecodeContestant> contestants;
    for (const Form form : bench_.forms) {
      KVIST_TRY(std::shared_ptr<Cache> cache, Cache::Open(model_.geometry(), {.form = form}));
      DecodeContestant filled{form, 0, cache, {}, {}};
      for (int i = 0; i < bench_.num_sequences; ++i) {
        filled.filled.push_back(cache->Begin());
        const std::vector<Token> tokens(static_cast<size_t>(depth), 0);
        KVIST_TRY_VOID(random_.Append(filled.filled.back(), tokens, i, [this] { return KeepGoing(); }));
      }
      for (const int64_t page_tokens : bench_.page_tokens) {
        contestants.push_back({form, page_tokens, cache, filled.Forks(), {}});
        KVIST_TRY_VOID(WarmUp(contestants.back()));
      }
    }
    return contestants;
  }

  Status WarmUp(DecodeContestant& contestant) {
    std::vector<Sequence> sequences = contestant.Forks();
    for (Sequence& sequence : sequences) {
      KVIST_TRY_VOID(sequence.SelectPages({.num_tokens = contestant.page_tokens}));
    }
    KVIST_TRY_VOID(compute_(model_, sequences, num_warm_tokens_));
    // Going through all keys for the first time would else be timed in every round.
    if (contestant.page_tokens > 0) contestant.filled = std::move(sequences);
    return {};
  }

  Status RunOnce(DecodeContestant& contestant) {
    KVIST_TRY_VOID(KeepGoing());
    std::vector<Sequence> sequences = contestant.Forks();
    const auto start = Clock::now();
    KVIST_TRY_VOID(compute_(model_, sequences, bench_.num_tokens));
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    contestant.tokens_per_s.push_back(bench_.num_tokens * static_cast<double>(sequences.size()) / seconds);
    ++num_done_;
    return {};
  }

  Model& model_;
  const SpeedBench& bench_;
  const SpeedProgress& progress_;
  const Compute compute_;
  const int num_warm_tokens_;  // before the first round: weights, threads and the graph's memory
  const RandomFill random_;
  const int64_t num_runs_;
  int64_t num_done_ = 0;
};

}  // namespace

Result<std::vector<SpeedTiming>> MeasureDecode(Model& model, const SpeedBench& bench, const SpeedProgress& progress) {
  return DecodeContest(model, bench, progress, Decode, 2).Run();
}

Result<std::vector<SpeedTiming>> MeasurePrefill(Model& model, const SpeedBench& bench, const SpeedProgress& progress) {
  SpeedBench of_one = bench;
  of_one.num_sequences = 1;
  return DecodeContest(model, of_one, progress, Prefill, static_cast<int>(Generator::kPrefillTokens)).Run();
}

}  // namespace kvist
