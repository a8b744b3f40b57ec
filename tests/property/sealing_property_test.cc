// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "codec/block_layout.h"
#include "kvist/cache.h"
#include "tests/property/naive_cache.h"
#include "tests/property/naive_sealing.h"

// Two caches of one quantised form beside each other through the same random operations, the steps of the second cut
// into random parts; beside them a model of what is sealed, and one in f16. KVIST_SEED=n plays others,
// KVIST_OPERATIONS=n makes it longer.
namespace kvist::sealing_property_test {
namespace {

using testing::NaiveSealedSequence;
using testing::NaiveSequence;
using testing::NumberFromEnvironment;
using testing::RandomStep;
using testing::StepData;
using testing::StepOutput;

struct Game {
  std::vector<const char*> forms;  // of the three layers
  SealingOptions sealing;
  int window;  // of the second layer; 0: full attention
  const char* growth;
  size_t budget_pages;
  double loosely;  // how far an output may be from that of f16, which has normal numbers
};

// Of other value dims, which fill other vectors.
CacheGeometry SmallGeometry(int window) {
  CacheGeometry geometry = testing::SmallGeometry(window);
  for (LayerGeometry& layer : geometry.layers) layer.value_dim = 24;
  geometry.layers[2].value_dim = 16;
  return geometry;
}

class Player {
 public:
  Player(uint64_t seed, const Game& game)
      : random_(unsigned(seed)),
        geometry_(SmallGeometry(game.window)),
        game_(game),
        budget_bytes_(game.budget_pages * 4096) {
    CacheOptions options{.form = {}, .budget_bytes = budget_bytes_, .growth = ParseGrowth(game.growth).value()};
    for (const char* name : game.forms) options.layer_forms.push_back(ParseForm(name).value());
    options.sealing = game.sealing;
    for (auto* cache : {&whole_, &cut_}) *cache = Cache::Open(geometry_, options).value();
    block_bytes_ = {BlockBytes(LayOutOpenGroups(geometry_, options.layer_forms)),
                    BlockBytes(LayOutGroups(geometry_, options.layer_forms))};
  }

  void Play(uint64_t num_operations) {
    for (uint64_t operation = 0; operation < num_operations && num_failures_ == 0; ++operation) {
      CAPTURE(operation);
      PlayOne();
      CheckAll();
    }
    pairs_.clear();
    CheckAll();
    for (const Cache* cache : {whole_.get(), cut_.get()}) {
      WaitUntilAllIsReturned(*cache);
      Expect("no committed bytes without sequences", cache->stats().committed_bytes == 0);
    }
    CHECK(num_failures_ == 0);
    if (num_operations < 1000) return;  // a short game may miss some of what a long one must have met
    Expect("enough steps", num_steps_ > num_operations / 10);
    Expect("enough was compared", num_compared_ > num_operations / 20 && num_parts_ > num_steps_);
    Expect("blocks were sealed", most_sealed_ > 10);
    if (IsTight()) Expect("the budget was met", num_refused_ > 0);
  }

 private:
  static constexpr size_t kMostSequences = 6;

  struct Pair {
    Sequence whole, cut;
    NaiveSealedSequence sealed;
    NaiveSequence f16;
  };

  void Expect(const char* what, bool holds) {
    if (holds) return;
    ++num_failures_;
    FAIL_CHECK(std::string(what));
  }
  int64_t Below(int64_t limit) { return int64_t(random_() % uint64_t(limit)); }
  Pair& AnyPair() { return *pairs_[size_t(Below(int64_t(pairs_.size())))]; }
  // With nothing taken ahead it is known exactly what fits.
  bool IsTight() const { return std::string(game_.growth) == "exact"; }

  static std::vector<size_t> BlockBytes(const std::vector<BlockLayout>& groups) {
    std::vector<size_t> bytes;
    for (const BlockLayout& group : groups) bytes.push_back(group.block_bytes);
    return bytes;
  }

  void PlayOne() {
    const int64_t choice = Below(100);
    if (pairs_.empty() || (choice < 5 && pairs_.size() < kMostSequences)) return Begin();
    if (choice < 60) return Step();
    if (choice < 68) return AbandonedStep();
    if (choice < 76 && pairs_.size() < kMostSequences) return Fork();
    if (choice < 85) return Truncate();
    if (choice < 97) return Remove();
    End();
  }

  void Begin() {
    std::vector<Form> forms;
    for (const char* name : game_.forms) forms.push_back(ParseForm(name).value());
    pairs_.push_back(std::make_unique<Pair>(Pair{whole_->Begin(), cut_->Begin(),
                                                 NaiveSealedSequence(geometry_, forms, game_.sealing),
                                                 NaiveSequence(geometry_, {Codec::kF16, Codec::kF16})}));
  }

  StepData AnyStep() { return RandomStep(random_, geometry_, Below(4) == 0 ? 1 + Below(90) : 1 + Below(4)); }

  // Prepares the sequence of the first cache. False when there was no room; then no step is under way any more.
  bool Prepare(Pair& pair, const StepData& step) {
    NaiveSealedSequence trial = pair.sealed;
    trial.Prepare(step);
    const bool fits = LiveBytes(&pair, &trial) <= budget_bytes_;
    const Status status = pair.whole.Prepare(step.tokens);
    if (IsTight()) Expect("Prepare fails when a form has no room, and only then", status.has_value() == fits);
    if (status) {
      pair.sealed.Prepare(step);
      return true;
    }
    Expect("Prepare fails for memory only", status.error().code == ErrorCode::kOutOfMemory);
    pair.sealed.Forget();
    Expect("forgetting", pair.cut.Truncate(pair.cut.num_tokens()).has_value());
    ++num_refused_;
    return false;
  }

  void Step() {
    Pair& pair = AnyPair();
    const StepData step = AnyStep();
    if (!Prepare(pair, step)) return;
    testing::AppendAll(step, pair.whole);
    const StepOutput out = testing::AttendAll(geometry_, step, pair.whole);
    Expect("committing", pair.whole.Commit().has_value());
    Expect("the same bits in parts", RunInParts(step, pair.cut) == out);
    pair.f16.Add(step);
    ++num_steps_;
    if (Below(3) == 0) {
      const unsigned one_in = step.tokens.size() > 4 ? 17 : 3;
      Expect("attention is that of the model", pair.sealed.WorstError(step, out, random_, one_in) < 1);
      Expect("attention is not far from that in f16", pair.f16.WorstError(step, out, random_, one_in) < game_.loosely);
      ++num_compared_;
    }
    pair.sealed.Commit();
  }

  // What fits in one step fits in parts.
  StepOutput RunInParts(const StepData& step, Sequence& sequence) {
    StepOutput all(geometry_.layers.size());
    const auto num_tokens = int64_t(step.tokens.size());
    for (int64_t begin = 0, end = 0; begin < num_tokens; begin = end) {
      end = std::min(num_tokens, begin + 1 + Below(Below(2) == 0 ? 5 : 60));
      const auto out = testing::RunStep(geometry_, step.Part(geometry_, begin, end), sequence);
      Expect("room for a part of a step", out.has_value());
      if (!out) return {};
      for (size_t i = 0; i < all.size(); ++i) all[i].insert(all[i].end(), (*out)[i].begin(), (*out)[i].end());
      ++num_parts_;
    }
    return all;
  }

  // Left at any point before Commit, in both caches.
  void AbandonedStep() {
    Pair& pair = AnyPair();
    const StepData step = AnyStep();
    if (!Prepare(pair, step)) return;
    Expect("room in the other cache, too", pair.cut.Prepare(step.tokens).has_value());
    for (Sequence* sequence : {&pair.whole, &pair.cut}) {
      if (Below(2) == 0) testing::AppendAll(step, *sequence);
      if (Below(3) == 0) testing::AttendAll(geometry_, step, *sequence);
    }
  }

  void Fork() {
    Pair& pair = AnyPair();
    pairs_.push_back(
        std::make_unique<Pair>(Pair{pair.whole.Fork(), pair.cut.Fork(), NaiveSealedSequence(pair.sealed), pair.f16}));
  }

  void Truncate() {
    Pair& pair = AnyPair();
    const int64_t n = pair.f16.num_tokens(), kept = Below(8) == 0 ? Below(n + 1) : std::max<int64_t>(0, n - Below(40));
    Cut(pair, kept, n, INT64_MAX, [&](Sequence& sequence) { return sequence.Truncate(kept); });
  }

  void Remove() {
    Pair& pair = AnyPair();
    const int64_t n = pair.f16.num_tokens(), begin = Below(n + 1), end = std::min(n, begin + 1 + Below(40));
    if (begin == end) return;
    Cut(pair, begin, end, begin, [&](Sequence& sequence) { return sequence.Remove(begin, end); });
  }

  template <class Call>
  void Cut(Pair& pair, int64_t begin, int64_t end, int64_t gap, Call call) {
    const bool sees_all = pair.sealed.Sees(pair.f16.num_tokens() - (end - begin), gap);
    const bool done = call(pair.whole).has_value();
    Expect("refused when a window misses tokens, and only then", done == sees_all);
    Expect("refused by both", call(pair.cut).has_value() == done);
    if (!done) return;
    pair.sealed.Remove(begin, end);
    pair.f16.Remove(begin, end);
  }

  void End() {
    std::swap(pairs_[size_t(Below(int64_t(pairs_.size())))], pairs_.back());
    pairs_.pop_back();
  }

  // Bytes of every block in use, in all or with one sequence's model in place of another.
  std::map<const void*, size_t> LiveBlocks(const Pair* replaced = nullptr,
                                           const NaiveSealedSequence* replacement = nullptr) const {
    std::map<const void*, size_t> block_to_bytes;
    for (const auto& pair : pairs_) {
      const NaiveSealedSequence& sequence = pair.get() == replaced ? *replacement : pair->sealed;
      sequence.ForEachBlock([&](const void* block, size_t group, bool is_sealed) {
        block_to_bytes[block] = block_bytes_[is_sealed][group];
      });
    }
    return block_to_bytes;
  }
  size_t LiveBytes(const Pair* replaced = nullptr, const NaiveSealedSequence* replacement = nullptr) const {
    size_t sum = 0;
    for (const auto& [block, bytes] : LiveBlocks(replaced, replacement)) sum += bytes;
    return sum;
  }
  size_t NumSealedBlocks() const {
    size_t count = 0;
    for (const auto& pair : pairs_)
      pair->sealed.ForEachBlock([&](const void*, size_t, bool is_sealed) { count += is_sealed; });
    return count;
  }

  void CheckAll() {
    for (const auto& pair : pairs_) {
      for (const Sequence* sequence : {&pair->whole, &pair->cut})
        Expect("tokens", std::ranges::equal(sequence->tokens(), pair->f16.tokens()));
    }
    most_sealed_ = std::max(most_sealed_, NumSealedBlocks());
    for (const Cache* cache : {whole_.get(), cut_.get()}) {
      const CacheStats stats = cache->stats();
      Expect("number of sequences", stats.num_sequences == pairs_.size());
      Expect("live blocks are those the model expects", stats.num_live_blocks == LiveBlocks().size());
      Expect("live bytes are those the model expects", stats.live_bytes == LiveBytes());
      Expect("budget", stats.peak_committed_bytes <= budget_bytes_);
      Expect("peak of live bytes", stats.live_bytes <= stats.peak_live_bytes);
      Expect("peak of committed bytes", stats.peak_live_bytes <= stats.peak_committed_bytes);
    }
  }

  // Freed memory goes back to the system a little later.
  static void WaitUntilAllIsReturned(const Cache& cache) {
    for (int i = 0; i < 1000 && cache.stats().committed_bytes > 0; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }

  std::mt19937 random_;
  const CacheGeometry geometry_;
  const Game game_;
  const size_t budget_bytes_;
  std::vector<std::vector<size_t>> block_bytes_;  // [is_sealed][group]
  std::unique_ptr<Cache> whole_, cut_;
  std::vector<std::unique_ptr<Pair>> pairs_;
  uint64_t num_steps_ = 0, num_parts_ = 0, num_compared_ = 0, num_refused_ = 0;
  size_t most_sealed_ = 0;
  int num_failures_ = 0;  // stops at the first operation that goes wrong
};

TEST_CASE("sealing: random operations in whole steps and in parts agree, and with the models") {
  const uint64_t seed = NumberFromEnvironment("KVIST_SEED", 20261125);
  const uint64_t num_operations = NumberFromEnvironment("KVIST_OPERATIONS", 10000);
  MESSAGE("repeat with KVIST_SEED=" << seed);
  const Game games[] = {
      {{"q8", "q8", "q8"}, {.recent_tokens = 20, .sink_tokens = 4}, 40, "exact", 120, 0.06},
      {{"q4", "q6/q3", "q5/f16"}, {.recent_tokens = 0, .sink_tokens = 0}, 0, "predictive:margin=1", 100000, 1},
      {{"f16/q5", "f16", "q6"}, {.recent_tokens = 16, .sink_tokens = 17}, 70, "dynamic:factor=2", 100000, 0.3},
      {{"f32", "q2/bf16", "q4"}, {.recent_tokens = 7, .sink_tokens = 1, .begin_position = 60}, 33, "exact", 60, 2.5},
  };
  uint64_t game_seed = seed;
  for (const Game& game : games) {
    CAPTURE(std::string(game.forms[0]));
    Player(game_seed++, game).Play(num_operations / 10);
  }
}

}  // namespace
}  // namespace kvist::sealing_property_test
