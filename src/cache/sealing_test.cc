// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
// Quantised forms in the cache: what is sealed when, what queries see, and what it takes.
#include "kvist/sealing.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <limits>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/address_range.h"
#include "base/round_up.h"
#include "kernels/kernels.h"
#include "kvist/cache.h"
#include "tests/property/naive_sealing.h"

namespace kvist::sealing_test {
namespace {

using testing::AppendAll;
using testing::AppendZeros;
using testing::AttendAll;
using testing::EmptyOutput;
using testing::NaiveSealedSequence;
using testing::RandomStep;
using testing::RunStep;
using testing::RunStepOnThreads;
using testing::StepData;
using testing::StepOutput;

constexpr Codec kQuantisedCodecs[] = {Codec::kQ8, Codec::kQ6, Codec::kQ5, Codec::kQ4, Codec::kQ3, Codec::kQ2};
constexpr Form kQ4{Codec::kQ4, Codec::kQ4};

std::vector<Form> ManyForms() {
  std::vector<Form> forms;
  for (const Codec codec : kQuantisedCodecs) forms.push_back({codec, codec});
  for (const char* name : {"f16/q4", "q8/f16", "q6/q2", "q3/f32", "bf16/q8"}) forms.push_back(ParseForm(name).value());
  return forms;
}

LayerGeometry Layer(int rows_per_head, int num_kv_heads, int key_dim, int value_dim, int window) {
  LayerGeometry layer;
  layer.num_query_heads = rows_per_head * num_kv_heads;
  layer.num_kv_heads = num_kv_heads;
  layer.key_dim = key_dim;
  layer.value_dim = value_dim;
  layer.window = window;
  layer.rope.dims = 16;
  return layer;
}

struct Setting {
  CacheGeometry geometry;
  SealingOptions sealing;
};

// Layers of different shapes beside each other; windows smaller and larger than what stays open.
std::vector<Setting> ManySettings() {
  std::vector<Setting> settings = {
      {{16, {Layer(3, 1, 64, 64, 0), Layer(6, 1, 16, 128, 70)}}, {.recent_tokens = 20, .sink_tokens = 4}},
      {{16, {Layer(1, 2, 128, 72, 0), Layer(3, 1, 40, 16, 30)}}, {.recent_tokens = 48, .sink_tokens = 17}},
      {{32, {Layer(6, 1, 80, 64, 0), Layer(1, 2, 24, 24, 0)}}, {.recent_tokens = 0, .sink_tokens = 0}},
      {{32, {Layer(3, 2, 64, 96, 100)}}, {.recent_tokens = 1, .sink_tokens = 1, .begin_position = 75}},
      {{64, {Layer(1, 1, 16, 8, 0)}}, {.recent_tokens = 10, .sink_tokens = 0}},
  };
  settings[2].geometry.layers[0].attention_scale = 0.2f;
  return settings;
}

CacheOptions Options(Form form, const SealingOptions& sealing, size_t budget_bytes = 0, const char* growth = "exact") {
  return {.form = form, .budget_bytes = budget_bytes, .growth = ParseGrowth(growth).value(), .sealing = sealing};
}

std::unique_ptr<Cache> OpenCache(const CacheGeometry& geometry, const CacheOptions& options) {
  auto cache = Cache::Open(geometry, options);
  REQUIRE(cache);
  return std::move(*cache);
}
std::unique_ptr<Cache> OpenCache(const Setting& setting, Form form) {
  return OpenCache(setting.geometry, Options(form, setting.sealing));
}

NaiveSealedSequence Naive(const CacheGeometry& geometry, Form form, const SealingOptions& sealing) {
  return NaiveSealedSequence(geometry, std::vector<Form>(geometry.layers.size(), form), sealing);
}

size_t NumBlocks(const NaiveSealedSequence& naive) {
  std::set<const void*> blocks;
  naive.ForEachBlock([&](const void* block, size_t, bool) { blocks.insert(block); });
  return blocks.size();
}

// Runs a test for each instruction set that this machine has.
void OnEveryInstructionSet(const std::function<void()>& run) {
  const char* before = std::getenv("KVIST_ISA");
  const std::string wanted = before == nullptr ? "" : before;
  for (const Kernels* kernels : SupportedKernels()) {
    CAPTURE(kernels->name);
    setenv("KVIST_ISA", kernels->name, 1);
    run();
  }
  setenv("KVIST_ISA", wanted.c_str(), 1);
}

int64_t RandomTokens(std::mt19937& random) {
  return random() % 3 == 0 ? 1 + int64_t(random() % 90) : 1 + int64_t(random() % 5);
}

// --- what queries see ---

// Feeds random steps and compares outputs with the model's, all or some (one_in > 1); returns the largest error in
// units of what it may be.
double WorstErrorOf(std::mt19937& random, Sequence& sequence, NaiveSealedSequence& naive, const CacheGeometry& geometry,
                    int64_t num_tokens, unsigned one_in = 1) {
  double worst = 0;
  for (const int64_t end = sequence.num_tokens() + num_tokens; sequence.num_tokens() < end;) {
    const StepData step = RandomStep(random, geometry, std::min(RandomTokens(random), end - sequence.num_tokens()));
    const auto out = RunStep(geometry, step, sequence);
    REQUIRE(out);
    naive.Prepare(step);
    worst = std::max(worst, naive.WorstError(step, *out, random, one_in));
    naive.Commit();
  }
  return worst;
}

TEST_CASE("sealing: outputs are those of the stored numbers, each query seeing blocks in the form it should") {
  unsigned seed = 0;
  for (const Form form : ManyForms()) {
    for (const Setting& setting : ManySettings()) {
      CAPTURE(FormName(form));
      CAPTURE(seed);
      std::mt19937 random(++seed);
      auto cache = OpenCache(setting, form);
      Sequence sequence = cache->Begin();
      NaiveSealedSequence naive = Naive(setting.geometry, form, setting.sealing);
      CHECK(WorstErrorOf(random, sequence, naive, setting.geometry, 150, 3) < 1);
    }
  }
}

TEST_CASE("sealing: outputs are right on every instruction set") {
  OnEveryInstructionSet([] {
    unsigned seed = 100;
    for (const Form form : {Form{Codec::kQ8, Codec::kQ5}, Form{Codec::kQ6, Codec::kQ3}, kQ4}) {
      std::mt19937 random(++seed);
      const Setting setting = ManySettings()[seed % 2];
      auto cache = OpenCache(setting, form);
      Sequence sequence = cache->Begin();
      NaiveSealedSequence naive = Naive(setting.geometry, form, setting.sealing);
      CHECK(WorstErrorOf(random, sequence, naive, setting.geometry, 150) < 1);
    }
  });
}

// The tolerance must not hide what it is there to find: with a block open one query too long or too short, with a sink
// more or less, or with a block sealed by the second of several queries, the outputs must be too far off.
TEST_CASE("sealing: a query that saw the wrong form of one block would be noticed") {
  const CacheGeometry geometry{16, {Layer(3, 1, 64, 64, 0)}};
  const SealingOptions right{.recent_tokens = 20, .sink_tokens = 4, .begin_position = 70};
  for (const Form form : ManyForms()) {
    CAPTURE(FormName(form));
    for (const SealingOptions& wrong :
         {SealingOptions{19, 4, 70}, SealingOptions{21, 4, 70}, SealingOptions{20, 0, 70}, SealingOptions{20, 17, 70},
          SealingOptions{20, 4, 69}, SealingOptions{20, 4, 71}, SealingOptions{1000, 4, 70}}) {
      CAPTURE(wrong.recent_tokens);
      CAPTURE(wrong.sink_tokens);
      CAPTURE(wrong.begin_position);
      std::mt19937 random(7);
      auto cache = OpenCache(geometry, Options(form, right));
      Sequence sequence = cache->Begin();
      NaiveSealedSequence naive = Naive(geometry, form, wrong);
      CHECK(WorstErrorOf(random, sequence, naive, geometry, 150) > 2);
    }
  }
}

// --- the same bits, whatever the steps ---

constexpr int64_t kAllAtOnce = 1 << 20, kRandomPieces = 0;

// The outputs of the prompt from the sequence's end on, fed in pieces.
StepOutput RunInPieces(const CacheGeometry& geometry, const StepData& prompt, Sequence& sequence, int64_t piece_tokens,
                       int num_threads = 1, int64_t end = kAllAtOnce) {
  std::mt19937 random(5);
  StepOutput all(geometry.layers.size());
  end = std::min(end, int64_t(prompt.tokens.size()));
  while (sequence.num_tokens() < end) {
    const int64_t begin = sequence.num_tokens();
    const int64_t tokens = piece_tokens == kRandomPieces ? RandomTokens(random) : piece_tokens;
    const StepData piece = prompt.Part(geometry, begin, std::min(end, begin + tokens));
    const StepOutput out = RunStepOnThreads(geometry, piece, sequence, num_threads).value();
    for (size_t i = 0; i < all.size(); ++i) all[i].insert(all[i].end(), out[i].begin(), out[i].end());
  }
  return all;
}

// The last tokens' part of a prompt's outputs.
StepOutput Last(const CacheGeometry& geometry, const StepOutput& all, int64_t num_tokens) {
  StepOutput last;
  for (size_t i = 0; i < all.size(); ++i) {
    const int64_t n = num_tokens * geometry.layers[i].num_query_heads * geometry.layers[i].value_dim;
    last.emplace_back(all[i].end() - n, all[i].end());
  }
  return last;
}

TEST_CASE("sealing: the bits don't depend on the steps, on the number of threads, or on forks") {
  const std::vector<Setting> settings = ManySettings();
  OnEveryInstructionSet([&] {
    unsigned seed = 199;
    for (const char* name : {"q8/f16", "q6/q2", "f16/q3", "q4"}) {
      CAPTURE(name);
      std::mt19937 random(++seed);
      const auto& [geometry, sealing] = settings[seed % settings.size()];
      // Of 16-token blocks more than a split holds.
      const int64_t num_tokens = geometry.block_tokens == 16 ? 270 : 160;
      const StepData prompt = RandomStep(random, geometry, num_tokens);
      auto cache = OpenCache({geometry, sealing}, ParseForm(name).value());
      Sequence whole = cache->Begin();
      const StepOutput wanted = RunInPieces(geometry, prompt, whole, kAllAtOnce);
      for (const int64_t piece_tokens : {int64_t{1}, int64_t{7}, int64_t{64}, kRandomPieces}) {
        CAPTURE(piece_tokens);
        Sequence sequence = cache->Begin();
        CHECK(RunInPieces(geometry, prompt, sequence, piece_tokens) == wanted);
      }
      for (const int num_threads : {2, 3, 4}) {
        CAPTURE(num_threads);
        Sequence in_one = cache->Begin(), in_pieces = cache->Begin();
        CHECK(RunInPieces(geometry, prompt, in_one, kAllAtOnce, num_threads) == wanted);
        CHECK(RunInPieces(geometry, prompt, in_pieces, 29, num_threads) == wanted);
      }
      for (const int64_t forked_at : {16, 57, 120, 155}) {
        CAPTURE(forked_at);
        Sequence first = cache->Begin();
        RunInPieces(geometry, prompt, first, 33, 1, forked_at);
        // In the middle of a step of the first one, which then does another.
        const StepData step = prompt.Part(geometry, forked_at, num_tokens);
        REQUIRE(first.Prepare(step.tokens));
        AppendAll(step, first);
        Sequence second = first.Fork(), third = second.Fork();
        const StepOutput rest = Last(geometry, wanted, num_tokens - forked_at);
        CHECK(RunInPieces(geometry, prompt, second, kRandomPieces) == rest);
        CHECK(AttendAll(geometry, step, first) == rest);
        CHECK(RunInPieces(geometry, prompt, third, kAllAtOnce) == rest);
        CHECK(RunInPieces(geometry, prompt, first, 50) == rest);
      }
    }
  });
}

TEST_CASE("sealing: forks that seal the same blocks on different threads don't disturb each other") {
  const auto [geometry, sealing] = ManySettings()[0];
  auto cache = OpenCache(geometry, Options({Codec::kQ6, Codec::kQ4}, sealing));
  std::mt19937 random(3);
  Sequence root = cache->Begin();
  const StepData prompt = RandomStep(random, geometry, 150);
  RunInPieces(geometry, prompt, root, 41, 1, 41);  // two blocks are still open that will be sealed
  std::vector<Sequence> forks;
  for (int i = 0; i < 4; ++i) forks.push_back(root.Fork());
  const StepOutput wanted = RunInPieces(geometry, prompt, root, kAllAtOnce);
  std::vector<StepOutput> got(forks.size());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < forks.size(); ++i)
    threads.emplace_back([&, i] {
      const Sequence held = forks[i].Fork();
      got[i] = RunInPieces(geometry, prompt, forks[i], int64_t(i) * 3 + 1);
    });
  for (std::thread& thread : threads) thread.join();
  for (const StepOutput& out : got) CHECK(out == wanted);
}

// --- what it takes ---

// Makes a sequence longer where it is only counted what it holds.
bool Lengthen(const Cache& cache, Sequence& sequence, int64_t num_tokens) {
  if (!sequence.Prepare(std::vector<Token>(size_t(num_tokens), 1))) return false;
  AppendZeros(cache.geometry(), sequence);
  REQUIRE(sequence.Commit());
  return true;
}

struct BlockCounts {
  int64_t open = 0, sealed = 0;
};
// Of one sequence without a window, after so many tokens.
BlockCounts Expected(int64_t num_tokens, int64_t block_tokens, const SealingOptions& sealing) {
  const int64_t num_blocks = (num_tokens + block_tokens - 1) / block_tokens;
  const int64_t first_after_sinks = (sealing.sink_tokens + block_tokens - 1) / block_tokens;
  const int64_t end_of_old = std::max<int64_t>(0, num_tokens - sealing.recent_tokens) / block_tokens;
  const bool has_begun = num_tokens > sealing.begin_position;
  const int64_t num_sealed = has_begun ? std::max<int64_t>(0, end_of_old - first_after_sinks) : 0;
  return {num_blocks - num_sealed, num_sealed};
}

size_t BlockBytes(const CacheGeometry& geometry, Form form) {
  return RoundUp(geometry.BytesPerToken(form) * size_t(geometry.block_tokens), PageBytes());
}
size_t Bytes(const CacheGeometry& geometry, Form form, BlockCounts counts) {
  return size_t(counts.open) * BlockBytes(geometry, OpenForm(form)) +
         size_t(counts.sealed) * BlockBytes(geometry, form);
}

// Many lanes, so that whole pages waste little.
CacheGeometry LargeGeometry() {
  return {32, std::vector<LayerGeometry>(8, Layer(1, 4, 64, 64, 0))};
}

// What was freed goes back to the system a little later.
void WaitForSpareToGo(const Cache& cache) {
  for (int i = 0; i < 2000; ++i) {
    const CacheStats stats = cache.stats();
    if ((stats.committed_bytes - stats.live_bytes) * 64 <= stats.live_bytes) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

TEST_CASE("sealing: of a text the sinks, the newest tokens and the unfinished block are open, the rest is sealed") {
  const CacheGeometry geometry{16, {Layer(1, 2, 64, 64, 0)}};
  for (const SealingOptions& sealing :
       {SealingOptions{}, SealingOptions{0, 0, 0}, SealingOptions{1, 1, 0}, SealingOptions{33, 17, 0},
        SealingOptions{16, 4, 100}, SealingOptions{1000, 4, 0}, SealingOptions{16, 1000, 0}}) {
    CAPTURE(sealing.recent_tokens);
    CAPTURE(sealing.sink_tokens);
    for (const int64_t step_tokens : {1, 3, 16, 50, 300}) {
      CAPTURE(step_tokens);
      auto cache = OpenCache(geometry, Options(kQ4, sealing));
      Sequence sequence = cache->Begin();
      while (sequence.num_tokens() < 300) {
        REQUIRE(Lengthen(*cache, sequence, step_tokens));
        const BlockCounts expected = Expected(sequence.num_tokens(), 16, sealing);
        REQUIRE(cache->stats().live_bytes == Bytes(geometry, kQ4, expected));
        REQUIRE(cache->stats().num_live_blocks == size_t(expected.open + expected.sealed));
      }
      CHECK(cache->stats().copied_bytes == 0);
    }
  }
}

TEST_CASE("sealing: a long text takes the bytes a token of its form") {
  const CacheGeometry geometry = LargeGeometry();
  for (const Form form : ManyForms()) {
    if (form.k == Codec::kBf16 || form.v == Codec::kF32) continue;  // larger, and nothing new
    CAPTURE(FormName(form));
    auto cache = OpenCache(geometry, Options(form, {}));
    Sequence sequence = cache->Begin();
    REQUIRE(Lengthen(*cache, sequence, 512));
    const size_t before = cache->stats().live_bytes;
    REQUIRE(Lengthen(*cache, sequence, 1024));
    const double added = double(cache->stats().live_bytes - before) / 1024;
    CHECK(added >= double(geometry.BytesPerToken(form)));
    CHECK(added < double(geometry.BytesPerToken(form) + PageBytes() / 32));  // whole pages a block
    CHECK(cache->stats().live_bytes == Bytes(geometry, form, Expected(1536, 32, {})));

    WaitForSpareToGo(*cache);
    const auto live = double(cache->stats().live_bytes), resident = double(cache->ResidentBytes().value());
    CHECK(resident >= 0.98 * live);
    CHECK(resident <= 1.02 * live);
  }
}

// Steps take time, in which what was freed may be given back; but what will be wanted has to be there again.
void WaitForMemory(const Cache& cache, size_t bytes) {
  for (int i = 0; i < 100 && cache.stats().committed_bytes < bytes; ++i)
    std::this_thread::sleep_for(std::chrono::microseconds(200));
}

TEST_CASE("sealing: a static sequence takes all its memory at the start, in both forms") {
  const CacheGeometry geometry = LargeGeometry();
  for (const SealingOptions& sealing : {SealingOptions{}, SealingOptions{128, 0, 0}, SealingOptions{0, 0, 0},
                                        SealingOptions{100, 33, 0}, SealingOptions{16, 4, 200}}) {
    CAPTURE(sealing.recent_tokens);
    CAPTURE(sealing.sink_tokens);
    auto cache = OpenCache(geometry, Options(kQ4, sealing, 0, "static:max=640"));
    Sequence sequence = cache->Begin();
    REQUIRE(Lengthen(*cache, sequence, 1));
    const CacheStats at_start = cache->stats();
    CHECK(cache->ResidentBytes().value() == at_start.committed_bytes);
    CHECK(at_start.committed_bytes < 640 * geometry.BytesPerToken(OpenForm(kQ4)) * 2 / 3);
    while (sequence.num_tokens() < 640) {
      REQUIRE(Lengthen(*cache, sequence, 1));
      if (sequence.num_tokens() % 32 != 0) continue;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      WaitForMemory(*cache, at_start.committed_bytes);
    }
    const CacheStats stats = cache->stats();
    CHECK(stats.live_bytes == Bytes(geometry, kQ4, Expected(640, 32, sealing)));
    CHECK(stats.peak_live_bytes <= at_start.committed_bytes);
    CHECK(stats.num_stalls == 0);
    CHECK(sequence.growth().num_resizes == 0);
    const Status refused = sequence.Prepare(std::vector<Token>{1});
    REQUIRE(!refused);
    CHECK(refused.error().code == ErrorCode::kOutOfRange);
  }
}

TEST_CASE("sealing: before sealing begins, memory is taken ahead for open blocks") {
  const CacheGeometry geometry = LargeGeometry();
  auto cache = OpenCache(geometry, Options(kQ4, {.begin_position = 10000}, 0, "static:max=640"));
  Sequence sequence = cache->Begin();
  REQUIRE(Lengthen(*cache, sequence, 1));
  CHECK(cache->stats().committed_bytes == 640 * geometry.BytesPerToken(OpenForm(kQ4)));
  while (sequence.num_tokens() < 640) REQUIRE(Lengthen(*cache, sequence, 1));
  CHECK(cache->stats().num_stalls == 0);
  CHECK(sequence.growth().num_resizes == 0);
}

TEST_CASE("sealing: any number of recent tokens is fine, the largest, too") {
  const CacheGeometry geometry{32, {Layer(1, 2, 64, 64, 0)}};
  constexpr int kMost = std::numeric_limits<int>::max();
  const size_t open_bytes = BlockBytes(geometry, OpenForm(kQ4));
  for (const SealingOptions& sealing : {SealingOptions{kMost, 4, 0}, SealingOptions{4, kMost, 0},
                                        SealingOptions{kMost, kMost, std::numeric_limits<int64_t>::max()}}) {
    CAPTURE(sealing.recent_tokens);
    auto cache = OpenCache(geometry, Options(kQ4, sealing, 64 * open_bytes, "static:max=320"));
    Sequence sequence = cache->Begin();
    REQUIRE(Lengthen(*cache, sequence, 1));
    while (sequence.num_tokens() < 320) REQUIRE(Lengthen(*cache, sequence, 1));
    CHECK(cache->stats().live_bytes == 10 * open_bytes);
    CHECK(cache->stats().peak_committed_bytes <= 11 * open_bytes);
  }
}

// --- a budget that is short, steps left, tokens cut ---

TEST_CASE("sealing: a step for which one of the forms has no room leaves everything as it was") {
  const CacheGeometry geometry{16, {Layer(1, 2, 64, 64, 0), Layer(1, 1, 64, 64, 40)}};
  const SealingOptions sealing{.recent_tokens = 20, .sink_tokens = 4};
  const Form form{Codec::kQ8, Codec::kQ4};
  std::mt19937 random(1);
  const StepData prompt = RandomStep(random, geometry, 150);
  auto unlimited = OpenCache(geometry, Options(form, sealing));
  Sequence undisturbed = unlimited->Begin();
  const StepOutput wanted = RunInPieces(geometry, prompt, undisturbed, kAllAtOnce);

  int num_refused = 0;
  for (const int64_t step_tokens : {1, 30, 100}) {
    CAPTURE(step_tokens);
    auto cache = OpenCache(geometry, Options(form, sealing, 60 * PageBytes()));
    Sequence sequence = cache->Begin();
    std::vector<Sequence> others;  // they fill the budget, and go one by one until the step fits
    StepOutput all(geometry.layers.size());
    while (sequence.num_tokens() < 150) {
      const int64_t begin = sequence.num_tokens();
      const StepData step = prompt.Part(geometry, begin, std::min<int64_t>(150, begin + step_tokens));
      for (others.push_back(cache->Begin()); Lengthen(*cache, others.back(), 1);) others.push_back(cache->Begin());
      while (true) {
        const CacheStats before = cache->stats();
        const Status status = sequence.Prepare(step.tokens);
        if (status) break;
        REQUIRE(status.error().code == ErrorCode::kOutOfMemory);
        REQUIRE(!others.empty());
        REQUIRE(sequence.num_tokens() == begin);
        REQUIRE(sequence.num_prepared_tokens() == 0);
        REQUIRE(cache->stats().live_bytes == before.live_bytes);
        REQUIRE(cache->stats().num_live_blocks == before.num_live_blocks);
        REQUIRE(cache->stats().peak_live_bytes == before.peak_live_bytes);
        ++num_refused;
        others.pop_back();
      }
      AppendAll(step, sequence);
      const StepOutput out = AttendAll(geometry, step, sequence);
      REQUIRE(sequence.Commit());
      for (size_t i = 0; i < all.size(); ++i) all[i].insert(all[i].end(), out[i].begin(), out[i].end());
      REQUIRE(cache->stats().peak_committed_bytes <= 60 * PageBytes());
    }
    CHECK(all == wanted);
  }
  CHECK(num_refused > 20);
}

TEST_CASE("sealing: a step that is left seals nothing") {
  const auto [geometry, sealing] = ManySettings()[0];
  const Form form{Codec::kQ4, Codec::kQ6};
  std::mt19937 random(2);
  const StepData prompt = RandomStep(random, geometry, 160);
  auto cache = OpenCache(geometry, Options(form, sealing));
  Sequence undisturbed = cache->Begin(), sequence = cache->Begin();
  const StepOutput wanted = RunInPieces(geometry, prompt, undisturbed, kAllAtOnce);
  const size_t without_it = cache->stats().live_bytes;
  StepOutput all(geometry.layers.size());
  for (const int64_t end : {30, 33, 70, 71, 110, 160}) {
    const size_t before = cache->stats().live_bytes;
    for (int how_far = 0; how_far < 3; ++how_far) {
      const StepData left = RandomStep(random, geometry, 1 + 60 * how_far);
      REQUIRE(sequence.Prepare(left.tokens));
      CHECK((how_far == 0 || cache->stats().live_bytes > before));
      if (how_far > 0) AppendAll(left, sequence);
      if (how_far > 1) AttendAll(geometry, left, sequence);
      if (how_far == 2) {
        REQUIRE(sequence.Truncate(sequence.num_tokens()));
        CHECK(cache->stats().live_bytes == before);
      }
    }
    const StepOutput out = RunInPieces(geometry, prompt, sequence, kAllAtOnce, 1, end);
    for (size_t i = 0; i < all.size(); ++i) all[i].insert(all[i].end(), out[i].begin(), out[i].end());
  }
  CHECK(all == wanted);
  CHECK(cache->stats().live_bytes == 2 * without_it);
}

TEST_CASE("sealing: forks share sealed blocks, and an append copies none of them") {
  const CacheGeometry geometry{16, {Layer(1, 2, 64, 64, 0)}};
  const SealingOptions sealing{.recent_tokens = 16, .sink_tokens = 4};
  auto cache = OpenCache(geometry, Options(kQ4, sealing));
  Sequence sequence = cache->Begin();
  REQUIRE(Lengthen(*cache, sequence, 100));
  const size_t alone = cache->stats().live_bytes;
  CHECK(alone == Bytes(geometry, kQ4, {3, 4}));
  {
    Sequence fork = sequence.Fork();
    CHECK(cache->stats().live_bytes == alone);
    REQUIRE(Lengthen(*cache, fork, 1));
    CHECK(cache->stats().live_bytes == alone + BlockBytes(geometry, OpenForm(kQ4)));
    CHECK(cache->stats().copied_bytes == BlockBytes(geometry, OpenForm(kQ4)));
    REQUIRE(
        Lengthen(*cache, fork, 50));  // it seals blocks 5 to 7 for itself; the open block 5 belongs to the other still
    CHECK(cache->stats().live_bytes == alone + Bytes(geometry, kQ4, {2, 3}));
    const Sequence gone = std::move(sequence);
  }
  CHECK(cache->stats().live_bytes == 0);
}

// What is sealed stays so: then queries see it sealed that otherwise would not.
TEST_CASE("sealing: after truncating, removing and forking the rest goes on with what is stored") {
  unsigned seed = 300;
  for (const Form form : {Form{Codec::kQ8, Codec::kQ5}, Form{Codec::kQ4, Codec::kF16}}) {
    for (const SealingOptions& sealing :
         {SealingOptions{20, 4, 0}, SealingOptions{0, 0, 0}, SealingOptions{8, 20, 40}}) {
      CAPTURE(FormName(form));
      CAPTURE(sealing.recent_tokens);
      const CacheGeometry geometry{16, {Layer(3, 1, 64, 32, 0), Layer(1, 2, 16, 24, 0)}};
      std::mt19937 random(++seed);
      auto cache = OpenCache(geometry, Options(form, sealing));
      Sequence sequence = cache->Begin();
      NaiveSealedSequence naive = Naive(geometry, form, sealing);
      auto check_blocks = [&] { CHECK(cache->stats().num_live_blocks == NumBlocks(naive)); };
      CHECK(WorstErrorOf(random, sequence, naive, geometry, 110) < 1);
      for (const auto& [begin, end] : std::vector<std::pair<int64_t, int64_t>>{
               {90, 110}, {50, 95}, {3, 4}, {20, 37}, {0, 1}, {10, 60}, {33, 34}, {16, 80}, {0, 60}}) {
        CAPTURE(begin);
        REQUIRE(sequence.Remove(begin, end));
        naive.Remove(begin, end);
        check_blocks();
        CHECK(WorstErrorOf(random, sequence, naive, geometry, 5, 3) < 1);
        const int64_t kept = sequence.num_tokens() - int64_t(random() % 4);
        REQUIRE(sequence.Truncate(kept));
        naive.Truncate(kept);
        check_blocks();
        CHECK(WorstErrorOf(random, sequence, naive, geometry, 32, 3) < 1);
        check_blocks();
        sequence = sequence.Fork();
      }
      REQUIRE(sequence.Truncate(0));
      CHECK(cache->stats().num_live_blocks == 0);
    }
  }
}

// --- options ---

TEST_CASE("sealing: each layer may have a form of its own") {
  const CacheGeometry geometry{16,
                               {Layer(3, 1, 64, 64, 0), Layer(3, 1, 64, 64, 0), Layer(1, 2, 32, 40, 30),
                                Layer(1, 2, 32, 40, 30), Layer(1, 1, 16, 16, 50), Layer(3, 1, 64, 64, 0)}};
  const SealingOptions sealing{.recent_tokens = 10, .sink_tokens = 4};
  std::vector<Form> forms;
  for (const char* name : {"q8", "q2", "f32/q4", "bf16", "f16", "f32"}) forms.push_back(ParseForm(name).value());
  std::mt19937 random(1);
  CacheOptions options = Options(kQ4, sealing);
  options.layer_forms = forms;
  auto cache = OpenCache(geometry, options);
  CHECK(cache->options().layer_forms == forms);
  Sequence sequence = cache->Begin();
  NaiveSealedSequence naive(geometry, forms, sealing);
  CHECK(WorstErrorOf(random, sequence, naive, geometry, 150) < 1);
  CHECK(cache->stats().num_live_blocks == NumBlocks(naive));
}

TEST_CASE("sealing: equal forms for all layers are that form") {
  const auto [geometry, sealing] = ManySettings()[0];
  std::mt19937 random(2);
  const StepData prompt = RandomStep(random, geometry, 130);
  auto plain = OpenCache(geometry, Options(kQ4, sealing));
  CacheOptions options = Options({}, sealing);
  options.layer_forms.assign(geometry.layers.size(), kQ4);
  auto by_layer = OpenCache(geometry, options);
  Sequence first = plain->Begin(), second = by_layer->Begin();
  CHECK(RunInPieces(geometry, prompt, first, kRandomPieces) == RunInPieces(geometry, prompt, second, kRandomPieces));
  CHECK(plain->stats().live_bytes == by_layer->stats().live_bytes);
}

TEST_CASE("sealing: where no layer is quantised nothing is sealed, and no address space is taken for it") {
  const CacheGeometry geometry{16, {Layer(1, 2, 64, 64, 0)}};
  const size_t budget_bytes = 100 * BlockBytes(geometry, {});
  auto cache = OpenCache(geometry, Options({}, {.recent_tokens = 0, .sink_tokens = 0}, budget_bytes));
  CHECK(cache->stats().reserved_bytes == budget_bytes);
  Sequence sequence = cache->Begin();
  REQUIRE(Lengthen(*cache, sequence, 160));
  CHECK(cache->stats().cumulative_bytes == 10 * BlockBytes(geometry, {}));
}

TEST_CASE("sealing: a wrong number of forms and negative numbers of tokens are refused") {
  const CacheGeometry geometry{16, {Layer(1, 1, 64, 64, 0), Layer(1, 1, 64, 64, 0)}};
  auto refused = [&](const CacheOptions& options, const char* named) {
    const auto cache = Cache::Open(geometry, options);
    REQUIRE(!cache);
    CHECK(cache.error().code == ErrorCode::kInvalidArgument);
    CHECK(cache.error().message.find(named) != std::string::npos);
  };
  CacheOptions options = Options(kQ4, {});
  for (const size_t count : {1, 3}) {
    options.layer_forms.assign(count, kQ4);
    refused(options, "layer_forms");
    refused(options, "2 layers");
  }
  refused(Options(kQ4, {.recent_tokens = -1}), "-1");
  refused(Options(kQ4, {.sink_tokens = -2}), "-2");
  refused(Options(kQ4, {.begin_position = -3}), "-3");
  refused(Options({}, {.recent_tokens = -1}), "recent");
}

// --- numbers that are none ---

constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();

// A number of layer 0's KV head 0 is replaced, in one token's channel 5; blocks have 16 tokens.
struct Damage {
  bool is_key;
  float number;
  int64_t token;
};

// Whether the output is as it should be in place of `wanted`, that of the undamaged text.
bool IsDamagedRight(const CacheGeometry& geometry, Form form, const SealingOptions& sealing, const Damage& damage,
                    const StepOutput& out, const StepOutput& wanted) {
  const LayerGeometry& layer = geometry.layers[0];
  const bool is_quantised = IsQuantised(damage.is_key ? form.k : form.v);
  const int64_t block_end = (damage.token / 16 + 1) * 16;
  bool is_right = out[1] == wanted[1];
  for (size_t i = 0; i < out[0].size(); ++i) {
    const int channel = int(i) % layer.value_dim, head = int(i) / layer.value_dim % layer.num_query_heads;
    const int64_t query = int64_t(i) / (layer.value_dim * layer.num_query_heads);
    const int64_t first_seen = layer.window > 0 ? query - layer.window + 1 : 0;
    const bool is_sealed = is_quantised && query >= block_end - 1 + sealing.recent_tokens;
    const bool is_of_head = head < layer.num_query_heads / layer.num_kv_heads;
    const float x = out[0][i];
    if (is_of_head && is_sealed && first_seen < block_end) {
      is_right &= std::isnan(x);  // the whole block is damaged
    } else if (is_of_head && !is_sealed && query >= damage.token && first_seen <= damage.token &&
               (damage.is_key || channel == 5)) {
      const bool may_weigh_nothing = damage.is_key && !std::isnan(damage.number);  // its score may be -infinity
      is_right &= !std::isfinite(x) || may_weigh_nothing;
    } else {
      is_right &= x == wanted[0][i];
    }
  }
  return is_right;
}

TEST_CASE("sealing: a number that is not finite shows in what sees it, and nowhere else") {
  struct Case {
    int window, recent_tokens;
    int64_t damaged_token, num_tokens;
  };
  // The last three: where the block, or the token, is all that a query sees of a split of 16 blocks, or at all.
  for (const Case& c : {Case{0, 16, 20, 110}, Case{30, 16, 20, 110}, Case{50, 16, 20, 110}, Case{40, 16, 250, 300},
                        Case{40, 64, 255, 300}, Case{8, 0, 20, 50}}) {
    const CacheGeometry geometry{16, {Layer(2, 2, 64, 32, c.window), Layer(1, 1, 16, 16, c.window)}};
    const LayerGeometry& layer = geometry.layers[0];
    const SealingOptions sealing{.recent_tokens = c.recent_tokens, .sink_tokens = 0};
    std::mt19937 random(1);
    const StepData clean = RandomStep(random, geometry, c.num_tokens);
    for (const std::string name : {"q8", "q4", "f16/q3", "q5/f16"}) {
      const Form form = ParseForm(name).value();
      auto cache = OpenCache(geometry, Options(form, sealing));
      Sequence undamaged = cache->Begin();
      const StepOutput wanted = RunInPieces(geometry, clean, undamaged, kAllAtOnce);
      for (const Damage& damage : {Damage{true, kNan, c.damaged_token}, Damage{false, kNan, c.damaged_token},
                                   Damage{true, kInfinity, c.damaged_token}, Damage{false, -1e6f, c.damaged_token}}) {
        CAPTURE(c.window);
        CAPTURE(c.damaged_token);
        CAPTURE(name);
        CAPTURE(damage.is_key);
        CAPTURE(damage.number);
        StepData damaged = clean;
        const int dim = damage.is_key ? layer.key_dim : layer.value_dim;
        std::vector<float>& numbers = (damage.is_key ? damaged.keys : damaged.values)[0];
        numbers[size_t(damage.token * layer.num_kv_heads * dim + 5)] = damage.number;
        for (const int64_t piece_tokens : {int64_t{1}, int64_t{13}, kAllAtOnce}) {
          CAPTURE(piece_tokens);
          Sequence sequence = cache->Begin();
          const StepOutput out = RunInPieces(geometry, damaged, sequence, piece_tokens);
          CHECK(IsDamagedRight(geometry, form, sealing, damage, out, wanted));
        }
      }
    }
  }
}

TEST_CASE("sealing: a damaged token that is removed before its block is sealed damages nothing") {
  const CacheGeometry geometry{16, {Layer(2, 2, 64, 32, 0)}};
  const SealingOptions sealing{.recent_tokens = 16, .sink_tokens = 0};
  std::mt19937 random(1);
  auto cache = OpenCache(geometry, Options(kQ4, sealing));
  Sequence sequence = cache->Begin();
  NaiveSealedSequence naive = Naive(geometry, kQ4, sealing);
  StepData damaged = RandomStep(random, geometry, 30);
  for (auto* numbers : {&damaged.keys, &damaged.values}) {
    const auto per_token = int64_t((*numbers)[0].size() / 30);
    std::fill_n((*numbers)[0].begin() + 20 * per_token, per_token, kNan);
  }
  REQUIRE(RunStep(geometry, damaged, sequence));
  naive.Prepare(damaged);
  naive.Commit();
  REQUIRE(sequence.Remove(20, 21));
  naive.Remove(20, 21);
  CHECK(WorstErrorOf(random, sequence, naive, geometry, 80) < 1);
}

}  // namespace
}  // namespace kvist::sealing_test
