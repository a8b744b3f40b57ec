// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "bench/scenario/spilled.h"

#include <algorithm>
#include <barrier>
#include <chrono>
#include <memory>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "bench/micro/median.h"
#include "bench/scenario/fill.h"
#include "kvist/kv_size.h"

namespace kvist {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kFillTokens = 128;  // of a step of the prompt
constexpr size_t kBudgetParts = 4;

// A token's numbers, the same for every layer and token: they don't change the work.
struct Rows {
  explicit Rows(const CacheGeometry& geometry) {
    size_t num_in = 0, num_out = 0;
    for (const LayerGeometry& layer : geometry.layers) {
      num_in = std::max(num_in, size_t(layer.num_query_heads) * size_t(std::max(layer.key_dim, layer.value_dim)));
      num_out = std::max(num_out, size_t(layer.num_query_heads) * size_t(layer.value_dim));
    }
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (size_t i = 0; i < num_in; ++i) in.push_back(normal(random));
    out.resize(num_out);
  }
  std::vector<float> in, out;
};

struct SpilledContestant {
  std::unique_ptr<Cache> cache;
  Sequence sequence;
  std::vector<double> tokens_per_s;
};

class SpilledContest {
 public:
  SpilledContest(const SpilledBench& bench, std::span<const Token> tokens, const std::function<Status()>& keeps_going)
      : bench_(bench), tokens_(tokens), keeps_going_(keeps_going), fill_(bench.geometry), rows_(bench.geometry) {}

  Result<SpilledTiming> Run() {
    SpilledTiming timing;
    KVIST_TRY(timing.budget_bytes, BudgetBytes());
    KVIST_TRY(SpilledContestant in_memory, Fill(0));
    KVIST_TRY(SpilledContestant spilled, Fill(timing.budget_bytes));
    KVIST_TRY(SpilledContestant in_turn, Fill(timing.budget_bytes, false));
    std::vector<double> wait_ms;
    const uint64_t read_before = spilled.cache->stats().spill_bytes_read;
    for (int round = 0; round < bench_.num_rounds; ++round) {
      KVIST_TRY_VOID(Decode(in_memory));
      KVIST_TRY_VOID(Decode(in_turn));
      const double waited_before = spilled.cache->stats().spill_wait_s;
      KVIST_TRY_VOID(Decode(spilled));
      wait_ms.push_back((spilled.cache->stats().spill_wait_s - waited_before) * 1e3 / bench_.num_steps);
    }
    timing.tokens_per_s = Median(spilled.tokens_per_s);
    timing.in_turn_tokens_per_s = Median(in_turn.tokens_per_s);
    timing.memory_tokens_per_s = Median(in_memory.tokens_per_s);
    const uint64_t read_bytes = spilled.cache->stats().spill_bytes_read - read_before;
    timing.read_bytes = double(read_bytes) / (bench_.num_rounds * bench_.num_steps);
    timing.wait_ms = Median(wait_ms);
    timing.spilled_tokens = spilled.sequence.num_spilled_tokens();
    return timing;
  }

 private:
  CacheOptions Options(size_t budget_bytes, bool reads_ahead = true) const {
    CacheOptions options{.form = bench_.form, .budget_bytes = budget_bytes};
    options.reads_ahead = reads_ahead;
    options.shares_prefixes = true;
    options.model = bench_.identity;
    if (budget_bytes > 0) options.tiers = {bench_.disk_tier};
    return options;
  }

  Result<size_t> BudgetBytes() const {
    const int64_t num_tokens = std::ssize(tokens_) + bench_.num_rounds * bench_.num_steps;
    const size_t all_bytes = KvBytes(bench_.geometry, Options(0), num_tokens, kFillTokens);
    const size_t part_bytes = all_bytes / kBudgetParts;
    const size_t least_bytes = SpilledKvBytes(bench_.geometry, Options(part_bytes), num_tokens, kFillTokens);
    const size_t budget_bytes = std::max(part_bytes, least_bytes + least_bytes / 8);
    if (budget_bytes < all_bytes) return budget_bytes;
    return Fail(ErrorCode::kInvalidArgument,
                "a sequence of " + std::to_string(tokens_.size()) + " tokens is too short to be spilled: it needs " +
                    std::to_string(all_bytes) + " bytes, and a step at least " + std::to_string(least_bytes));
  }

  // Without a budget everything stays in memory.
  Result<SpilledContestant> Fill(size_t budget_bytes, bool reads_ahead = true) const {
    KVIST_TRY(auto cache, Cache::Open(bench_.geometry, Options(budget_bytes, reads_ahead)));
    Sequence sequence = cache->Begin();
    for (auto left = tokens_; !left.empty();) {
      const auto step = left.first(std::min<size_t>(kFillTokens, left.size()));
      KVIST_TRY_VOID(
          WithRoom(sequence, std::ssize(step), [&] { return fill_.Append(sequence, step, 0, keeps_going_); }));
      left = left.subspan(step.size());
    }
    return SpilledContestant{std::move(cache), std::move(sequence), {}};
  }

  // Does `act`, which changes nothing when it fails for lack of room; then spills and does it again.
  template <class Act>
  static Status WithRoom(Sequence& sequence, int64_t num_tokens, Act act) {
    const Status done = act();
    if (done || done.error().code != ErrorCode::kOutOfMemory) return done;
    KVIST_TRY_VOID(sequence.Spill(num_tokens));
    return act();
  }

  Status Decode(SpilledContestant& contestant) {
    const auto start = Clock::now();
    for (int i = 0; i < bench_.num_steps; ++i) {
      KVIST_TRY_VOID(keeps_going_());
      KVIST_TRY_VOID(Step(contestant.sequence));
    }
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    contestant.tokens_per_s.push_back(bench_.num_steps / seconds);
    return {};
  }

  Status Step(Sequence& sequence) {
    const Token token = 1;
    KVIST_TRY_VOID(WithRoom(sequence, 1, [&] { return sequence.Prepare({&token, 1}); }));
    std::barrier all_returned(bench_.num_threads);
    const auto work = [&](int index) {
      const Worker worker{index, bench_.num_threads};
      for (int layer = 0; layer < int(bench_.geometry.layers.size()); ++layer) {
        sequence.Append(layer, rows_.in.data(), rows_.in.data(), worker);
        all_returned.arrive_and_wait();
        sequence.Attend(layer, rows_.in.data(), rows_.out.data(), worker);
        all_returned.arrive_and_wait();
      }
    };
    {
      std::vector<std::jthread> others;
      for (int i = 1; i < bench_.num_threads; ++i) others.emplace_back(work, i);
      work(0);
    }
    return sequence.Commit();
  }

  const SpilledBench& bench_;
  const std::span<const Token> tokens_;
  const std::function<Status()>& keeps_going_;
  const RandomFill fill_;
  Rows rows_;
};

}  // namespace

Result<SpilledTiming> MeasureSpilled(const SpilledBench& bench, std::span<const Token> tokens,
                                     const std::function<Status()>& keeps_going) {
  return SpilledContest(bench, tokens, keeps_going).Run();
}

}  // namespace kvist
