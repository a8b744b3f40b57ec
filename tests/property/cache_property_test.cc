// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "kvist/cache.h"
#include "tests/property/naive_cache.h"

// The whole cache beside a naive model through random operations. KVIST_SEED=n plays others, KVIST_OPERATIONS=n makes
// it longer.
namespace kvist::cache_property_test {
namespace {

using testing::NaiveBlocks;
using testing::NaiveSequence;
using testing::NumberFromEnvironment;
using testing::RandomStep;
using testing::SmallGeometry;
using testing::StepData;

constexpr double kTolerance = 2e-5;

class Player {
 public:
  Player(uint64_t seed, int window, Form form, size_t budget_bytes)
      : random_(unsigned(seed)),
        geometry_(SmallGeometry(window)),
        form_(form),
        budget_bytes_(budget_bytes),
        cache_(Cache::Open(geometry_, {form, budget_bytes, RandomGrowth()}).value()) {}

  void Play(uint64_t num_operations) {
    for (uint64_t operation = 0; operation < num_operations && num_failures_ == 0; ++operation) {
      CAPTURE(operation);
      PlayOne();
      CheckAll();
    }
    pairs_.clear();
    CheckAll();
    Expect("no live bytes without sequences", cache_->stats().live_bytes == 0);
    WaitUntilAllIsReturned();
    Expect("no committed bytes without sequences", cache_->stats().committed_bytes == 0);
    Expect("no resident bytes without sequences", cache_->ResidentBytes().value() == 0);
    CHECK(num_failures_ == 0);
    // What a long run must have met, or it shows nothing; a short one may miss some of it.
    if (num_operations < 10000) return;
    Expect("enough steps", num_steps_ > num_operations / 10 && num_compared_ > num_operations / 20);
    Expect("sequences of several splits", most_tokens_ > 2 * 16 * geometry_.block_tokens);
    Expect("the budget was met", num_refused_for_memory_ > 0);
  }

 private:
  static constexpr size_t kMostSequences = 8;

  struct Pair {
    Sequence real;
    NaiveSequence naive;
    std::vector<NaiveBlocks> blocks;  // [group]
  };

  // Named, so that a failure says which promise was broken.
  void Expect(const char* what, bool holds) {
    if (holds) return;
    ++num_failures_;
    FAIL_CHECK(std::string(what));
  }
  int64_t Below(int64_t limit) { return int64_t(random_() % uint64_t(limit)); }
  Pair& AnyPair() { return *pairs_[size_t(Below(int64_t(pairs_.size())))]; }

  void PlayOne() {
    const int64_t choice = Below(100);
    if (pairs_.empty() || (choice < 5 && pairs_.size() < kMostSequences)) return Begin();
    if (choice < 55) return Step();
    if (choice < 65) return AbandonedStep();
    if (choice < 75 && pairs_.size() < kMostSequences) return Fork();
    if (choice < 83) return Truncate();
    if (choice < 93) return Remove();
    if (choice < 99) return Misuse();
    End();
  }

  void Begin() {
    std::vector<NaiveBlocks> blocks;
    blocks.emplace_back(geometry_.block_tokens, 0);
    const int window = geometry_.layers[1].window;
    if (window > 0) blocks.emplace_back(geometry_.block_tokens, window);
    pairs_.push_back(std::make_unique<Pair>(Pair{cache_->Begin(), NaiveSequence(geometry_, form_), std::move(blocks)}));
  }

  int64_t StepTokens() { return Below(4) == 0 ? 1 + Below(90) : 1 + Below(4); }

  // True when there is room. What is expected of the blocks follows.
  bool Prepare(Pair& pair, const StepData& step) {
    const int64_t n = pair.naive.num_tokens();
    for (NaiveBlocks& blocks : pair.blocks) blocks.Remove(n, n + pair.real.num_prepared_tokens());
    const Status status = pair.real.Prepare(step.tokens);
    if (!status) {
      Expect("Prepare fails for memory only", status.error().code == ErrorCode::kOutOfMemory);
      ++num_refused_for_memory_;
      return false;
    }
    for (NaiveBlocks& blocks : pair.blocks) blocks.Grow(int64_t(step.tokens.size()));
    return true;
  }

  void Step() {
    Pair& pair = AnyPair();
    const StepData step = RandomStep(random_, geometry_, StepTokens());
    if (!Prepare(pair, step)) return;
    testing::AppendAll(step, pair.real);
    const bool compare = Below(3) == 0;
    const auto out = compare ? testing::AttendAll(geometry_, step, pair.real) : testing::StepOutput();
    Expect("committing", pair.real.Commit().has_value());
    pair.naive.Add(step);
    most_tokens_ = std::max(most_tokens_, pair.naive.num_tokens());
    for (NaiveBlocks& blocks : pair.blocks) blocks.Commit(pair.naive.num_tokens());
    ++num_steps_;
    if (!compare) return;
    const double error = pair.naive.WorstError(step, out, random_, step.tokens.size() > 4 ? 17 : 3);
    Expect("attention is that of the naive model", error < kTolerance);
    ++num_compared_;
  }

  // Left at any point before Commit.
  void AbandonedStep() {
    Pair& pair = AnyPair();
    const StepData step = RandomStep(random_, geometry_, StepTokens());
    if (!Prepare(pair, step)) return;
    if (Below(2) == 0) testing::AppendAll(step, pair.real);
    if (Below(3) == 0) testing::AttendAll(geometry_, step, pair.real);
  }

  void Fork() {
    Pair& pair = AnyPair();
    const int64_t n = pair.naive.num_tokens(), prepared = pair.real.num_prepared_tokens();
    auto fork = std::make_unique<Pair>(Pair{pair.real.Fork(), pair.naive, pair.blocks});
    for (NaiveBlocks& blocks : fork->blocks) blocks.Remove(n, n + prepared);
    pairs_.push_back(std::move(fork));
  }

  void Truncate() {
    Pair& pair = AnyPair();
    const int64_t n = pair.naive.num_tokens(),
                  kept = Below(12) == 0 ? Below(n + 1) : std::max<int64_t>(0, n - Below(20));
    Cut(pair, kept, n, INT64_MAX, [&] { return pair.real.Truncate(kept); });
  }

  void Remove() {
    Pair& pair = AnyPair();
    const int64_t n = pair.naive.num_tokens(), begin = Below(n + 1), end = std::min(n, begin + 1 + Below(30));
    if (begin == end) return;
    Cut(pair, begin, end, begin, [&] { return pair.real.Remove(begin, end); });
  }

  // Tokens [begin, end) go, or the call is refused because a window needs what it has dropped.
  template <class Call>
  void Cut(Pair& pair, int64_t begin, int64_t end, int64_t gap, Call call) {
    const int64_t n = pair.naive.num_tokens(), prepared = pair.real.num_prepared_tokens();
    bool sees_all = true;
    for (const NaiveBlocks& blocks : pair.blocks) sees_all &= blocks.Sees(n - (end - begin), gap);
    const Status status = call();
    Expect("Truncate and Remove are refused when a window misses tokens, and only then",
           status.has_value() == sees_all);
    if (!status) {
      Expect("the error of a refusal", status.error().code == ErrorCode::kFailedPrecondition);
      return;
    }
    for (NaiveBlocks& blocks : pair.blocks) {
      blocks.Remove(n, n + prepared);
      blocks.Remove(begin, end);
    }
    pair.naive.Remove(begin, end);
    Expect("cutting forgets the step", pair.real.num_prepared_tokens() == 0);
  }

  // Calls that must fail and change nothing.
  void Misuse() {
    Pair& pair = AnyPair();
    const int64_t n = pair.naive.num_tokens();
    Expect("Truncate past the end", pair.real.Truncate(n + 1).error().code == ErrorCode::kOutOfRange);
    Expect("Truncate before the front", pair.real.Truncate(-1).error().code == ErrorCode::kOutOfRange);
    Expect("Remove past the end", pair.real.Remove(0, n + 1).error().code == ErrorCode::kOutOfRange);
    Expect("Prepare of nothing", pair.real.Prepare({}).error().code == ErrorCode::kInvalidArgument);
  }

  void End() {
    std::swap(pairs_[size_t(Below(int64_t(pairs_.size())))], pairs_.back());
    pairs_.pop_back();
  }

  // How memory is taken ahead must not change what is stored, nor break the budget.
  GrowthOptions RandomGrowth() {
    const char* specs[] = {"exact", "dynamic:initial=64,factor=1.2", "dynamic:factor=2", "predictive:margin=1",
                           "learned:confidence=0.5"};
    return ParseGrowth(specs[random_() % std::size(specs)]).value();
  }

  // Freed memory goes back to the system a little later.
  void WaitUntilAllIsReturned() const {
    for (int i = 0; i < 1000 && cache_->stats().committed_bytes > 0; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  }

  void CheckAll() {
    std::set<const int*> blocks;
    for (const auto& pair : pairs_) {
      Expect("number of tokens", pair->real.num_tokens() == pair->naive.num_tokens());
      Expect("tokens", std::ranges::equal(pair->real.tokens(), pair->naive.tokens()));
      for (const NaiveBlocks& of_group : pair->blocks)
        of_group.ForEachBlock([&](const int* block) { blocks.insert(block); });
    }
    const CacheStats stats = cache_->stats();
    Expect("number of sequences", stats.num_sequences == pairs_.size());
    Expect("live blocks are those the model expects", stats.num_live_blocks == blocks.size());
    Expect("live within committed", stats.live_bytes <= stats.committed_bytes);
    Expect("budget", stats.committed_bytes <= budget_bytes_);
    Expect("budget at the peak", stats.peak_committed_bytes <= budget_bytes_);
    Expect("peak of live bytes", stats.live_bytes <= stats.peak_live_bytes);
    Expect("peak of committed bytes", stats.peak_live_bytes <= stats.peak_committed_bytes);
  }

  std::mt19937 random_;
  const CacheGeometry geometry_;
  const Form form_;
  const size_t budget_bytes_;
  std::unique_ptr<Cache> cache_;
  std::vector<std::unique_ptr<Pair>> pairs_;
  int64_t most_tokens_ = 0;
  uint64_t num_steps_ = 0, num_compared_ = 0, num_refused_for_memory_ = 0;
  int num_failures_ = 0;  // stops at the first operation that goes wrong: what follows would only repeat it
};

TEST_CASE("cache: ten thousand random operations agree with the naive model") {
  const uint64_t seed = NumberFromEnvironment("KVIST_SEED", 20261125);
  const uint64_t num_operations = NumberFromEnvironment("KVIST_OPERATIONS", 10000);
  MESSAGE("repeat with KVIST_SEED=" << seed);
  Player(seed, 40, {Codec::kF16, Codec::kF16}, 300 * 4096).Play(num_operations);
  Player(seed + 1, 1, {Codec::kF32, Codec::kBf16}, 150 * 4096).Play(num_operations / 5);
  Player(seed + 2, 0, {Codec::kBf16, Codec::kF32}, 150 * 4096).Play(num_operations / 5);
}

}  // namespace
}  // namespace kvist::cache_property_test
