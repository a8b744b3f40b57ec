// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "kvist/cache.h"
#include "tests/property/naive_cache.h"

namespace kvist::sequence_test {
namespace {

using testing::AppendAll;
using testing::AttendAll;
using testing::EmptyOutput;
using testing::NaiveSequence;
using testing::RandomStep;
using testing::RunStep;
using testing::StepData;
using testing::StepOutput;

constexpr Form kF16{Codec::kF16, Codec::kF16};
constexpr double kTolerance = 2e-5;

LayerGeometry Layer(int window) {
  LayerGeometry layer;
  layer.num_query_heads = 4;
  layer.num_kv_heads = 2;
  layer.key_dim = layer.value_dim = 64;
  layer.window = window;
  layer.rope.dims = 64;
  return layer;
}

// One layer a window. A block of one layer takes four pages in f16.
CacheGeometry Geometry(const std::vector<int>& windows = {0}) {
  CacheGeometry geometry;
  for (const int window : windows) geometry.layers.push_back(Layer(window));
  return geometry;
}

std::unique_ptr<Cache> OpenCache(const CacheGeometry& geometry, size_t budget_bytes = 0) {
  auto cache = Cache::Open(geometry, {kF16, budget_bytes});
  REQUIRE(cache);
  return std::move(*cache);
}

constexpr size_t kBlockBytes = 2 * 32 * (64 + 64) * 2;  // KV heads, tokens, K and V, bytes

void CheckError(const Status& status, ErrorCode code) {
  REQUIRE(!status);
  CHECK(status.error().code == code);
  CHECK(status.error().message.size() > 10);
}

// A step, run and compared with the naive model.
void RunAndCheck(const CacheGeometry& geometry, std::mt19937& random, int64_t num_tokens, Sequence& sequence,
                 NaiveSequence& naive) {
  const StepData step = RandomStep(random, geometry, num_tokens);
  const auto out = RunStep(geometry, step, sequence);
  REQUIRE(out);
  naive.Add(step);
  CHECK(naive.WorstError(step, *out, random, num_tokens > 4 ? 23 : 1) < kTolerance);
  CHECK(std::ranges::equal(sequence.tokens(), naive.tokens()));
}

TEST_CASE("sequence: an empty one has no tokens and no block") {
  auto cache = OpenCache(Geometry());
  Sequence sequence = cache->Begin();
  CHECK(sequence.num_tokens() == 0);
  CHECK(sequence.tokens().empty());
  CHECK(cache->stats().num_sequences == 1);
  CHECK(cache->stats().num_live_blocks == 0);
  CHECK(sequence.Truncate(0));
  CHECK(sequence.Remove(0, 0));
  CheckError(sequence.Prepare({}), ErrorCode::kInvalidArgument);
  CheckError(sequence.Truncate(1), ErrorCode::kOutOfRange);
  CheckError(sequence.Truncate(-1), ErrorCode::kOutOfRange);
  CheckError(sequence.Remove(0, 1), ErrorCode::kOutOfRange);
  CheckError(sequence.Remove(-1, 0), ErrorCode::kOutOfRange);
  REQUIRE(sequence.Commit());
  CHECK(sequence.num_tokens() == 0);
  const Sequence fork = sequence.Fork();
  CHECK(cache->stats().num_sequences == 2);
}

TEST_CASE("sequence: tokens count only once they are committed") {
  std::mt19937 random(1);
  const CacheGeometry geometry = Geometry();
  auto cache = OpenCache(geometry);
  Sequence sequence = cache->Begin();
  const StepData step = RandomStep(random, geometry, 5);
  REQUIRE(sequence.Prepare(step.tokens));
  CHECK(sequence.num_tokens() == 0);
  CHECK(sequence.tokens().empty());
  CHECK(sequence.num_prepared_tokens() == 5);
  AppendAll(step, sequence);
  AttendAll(geometry, step, sequence);
  REQUIRE(sequence.Commit());
  CHECK(sequence.num_tokens() == 5);
  CHECK(sequence.num_prepared_tokens() == 0);
  CHECK(std::ranges::equal(sequence.tokens(), step.tokens));
  CheckError(sequence.Remove(3, 2), ErrorCode::kOutOfRange);
  CheckError(sequence.Remove(3, 6), ErrorCode::kOutOfRange);
  CheckError(sequence.Truncate(6), ErrorCode::kOutOfRange);
  CHECK(sequence.num_tokens() == 5);
}

TEST_CASE("sequence: a step without Commit is forgotten by the next, whatever was stored") {
  std::mt19937 random(2);
  const CacheGeometry geometry = Geometry({0, 40});
  auto cache = OpenCache(geometry);
  Sequence sequence = cache->Begin();
  NaiveSequence naive(geometry, kF16);
  RunAndCheck(geometry, random, 50, sequence, naive);
  for (const int64_t abandoned_tokens : {1, 3, 200}) {
    const StepData abandoned = RandomStep(random, geometry, abandoned_tokens);
    REQUIRE(sequence.Prepare(abandoned.tokens));
    AppendAll(abandoned, sequence);
    AttendAll(geometry, abandoned, sequence);
    RunAndCheck(geometry, random, 2, sequence, naive);
  }
  const size_t live_blocks = cache->stats().num_live_blocks;
  REQUIRE(sequence.Prepare(RandomStep(random, geometry, 500).tokens));
  CHECK(cache->stats().num_live_blocks > live_blocks);
  REQUIRE(sequence.Truncate(sequence.num_tokens()));
  CHECK(sequence.num_prepared_tokens() == 0);
  CHECK(cache->stats().num_live_blocks == live_blocks);
  REQUIRE(sequence.Prepare(RandomStep(random, geometry, 500).tokens));
  Sequence fork = sequence.Fork();
  CHECK(fork.num_prepared_tokens() == 0);
  CHECK(std::ranges::equal(fork.tokens(), naive.tokens()));
  NaiveSequence naive_fork = naive;
  RunAndCheck(geometry, random, 3, fork, naive_fork);
  RunAndCheck(geometry, random, 4, sequence, naive);
}

TEST_CASE("sequence: a step that lacks keys and values is not committed, and others are not given what it holds") {
  std::mt19937 random(3);
  const CacheGeometry geometry = Geometry({0, 40});
  for (const Form form : {kF16, Form{Codec::kQ4, Codec::kQ4}}) {
    const auto cache = Cache::Open(geometry, {.form = form, .sealing = {.recent_tokens = 0}, .shares_prefixes = true});
    REQUIRE(cache);
    Sequence sequence = (*cache)->Begin();
    REQUIRE(RunStep(geometry, RandomStep(random, geometry, 20), sequence));
    const StepData step = RandomStep(random, geometry, 100);
    const auto append = [&](int layer, Worker worker = {}) {
      sequence.Append(layer, step.keys[size_t(layer)].data(), step.values[size_t(layer)].data(), worker);
    };
    const auto refusal = [&] {
      CHECK_FALSE(sequence.CheckStep());
      const Status committed = sequence.Commit();
      CheckError(committed, ErrorCode::kFailedPrecondition);
      CHECK(sequence.num_tokens() == 20);
      return committed.error().message;
    };
    REQUIRE(sequence.Prepare(step.tokens));
    append(0);
    CHECK(refusal().find("layer 1;") != std::string::npos);
    append(1, {0, 2});
    CHECK(refusal().find("not all of 2 workers") != std::string::npos);
    append(1, {0, 2});
    CHECK(refusal().find("not all of 2 workers") != std::string::npos);
    append(1, {1, 2});
    append(1, {1, 2});  // the step is still under way
    AttendAll(geometry, step, sequence);
    CHECK(sequence.CheckStep());
    REQUIRE(sequence.Prepare(step.tokens));
    AttendAll(geometry, step, sequence);
    AppendAll(step, sequence);
    CHECK(refusal().find("before") != std::string::npos);
    std::vector<Token> prompt(sequence.tokens().begin(), sequence.tokens().end());
    prompt.insert(prompt.end(), step.tokens.begin(), step.tokens.end());
    CHECK((*cache)->Begin().Reuse(prompt).num_tokens() < 21);
    REQUIRE(RunStep(geometry, step, sequence));
    CHECK((*cache)->Begin().Reuse(prompt).num_tokens() >= 96);
    CHECK(sequence.Commit());  // of no step: nothing
  }
}

// Whether the process would have been stopped.
template <class Call>
bool IsFatal(Call call) {
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    signal(SIGABRT, SIG_DFL);  // the test's own handler would report it
    close(STDERR_FILENO);
    call();
    _exit(0);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

TEST_CASE("sequence: calls that can't fail stop the process where they must not be made") {
  std::mt19937 random(4);
  const CacheGeometry geometry = Geometry();
  auto cache = OpenCache(geometry);
  Sequence sequence = cache->Begin();
  const StepData step = RandomStep(random, geometry, 3);
  StepOutput out = EmptyOutput(geometry, 3);
  const auto append = [&](int layer, Worker worker = {}) {
    sequence.Append(layer, step.keys[0].data(), step.values[0].data(), worker);
  };
  const auto attend = [&](int layer) { sequence.Attend(layer, step.queries[0].data(), out[0].data()); };
  CHECK(IsFatal([&] { append(0); }));
  CHECK(IsFatal([&] { attend(0); }));
  REQUIRE(sequence.Prepare(step.tokens));
  for (const int layer : {-1, 1}) {
    CHECK(IsFatal([&] { append(layer); }));
    CHECK(IsFatal([&] { attend(layer); }));
    CHECK(IsFatal([&] { (void)sequence.HeldPositions(layer, 0); }));
  }
  CHECK(IsFatal([&] { append(0, {2, 2}); }));
  CHECK_FALSE(IsFatal([&] { append(0); }));
  AppendAll(step, sequence);
  REQUIRE(sequence.Commit());
  CHECK(IsFatal([&] { attend(0); }));
  CHECK(IsFatal([&] { (void)sequence.HeldPositions(0, 2); }));
  CHECK_FALSE(IsFatal([&] { (void)sequence.HeldPositions(0, 1); }));
  const std::vector<Token> other{step.tokens[0], step.tokens[1] + 1, 7, 8};
  CHECK(IsFatal([&] { (void)sequence.Reuse(other); }));
  CHECK(IsFatal([&] { (void)sequence.FindMoved(other); }));
  CHECK(IsFatal([&] { (void)sequence.ReuseMoved(other); }));
}

TEST_CASE("sequence: forks share all blocks and go their own ways") {
  std::mt19937 random(3);
  const CacheGeometry geometry = Geometry({0, 40});
  auto cache = OpenCache(geometry);
  for (const int64_t num_tokens : {1, 31, 32, 33, 80}) {
    CAPTURE(num_tokens);
    Sequence first = cache->Begin();
    NaiveSequence naive_first(geometry, kF16);
    RunAndCheck(geometry, random, num_tokens, first, naive_first);
    const CacheStats before = cache->stats();
    Sequence second = first.Fork();
    Sequence third = second.Fork();
    NaiveSequence naive_second = naive_first, naive_third = naive_first;
    CHECK(cache->stats().live_bytes == before.live_bytes);
    CHECK(cache->stats().cumulative_bytes == before.cumulative_bytes);

    RunAndCheck(geometry, random, 1, second, naive_second);
    RunAndCheck(geometry, random, 2, first, naive_first);
    RunAndCheck(geometry, random, 70, third, naive_third);
    RunAndCheck(geometry, random, 1, second, naive_second);
    RunAndCheck(geometry, random, 1, first, naive_first);
    const bool open_block = num_tokens % 32 != 0;
    // Two of the three copy their open blocks, one in each group; the last has them to itself.
    CHECK(cache->stats().copied_bytes - before.copied_bytes == (open_block ? 4 * kBlockBytes : 0));
  }
  CHECK(cache->stats().num_live_blocks == 0);
}

TEST_CASE("sequence: truncate keeps the front, whoever else uses the blocks") {
  std::mt19937 random(4);
  const CacheGeometry geometry = Geometry();
  auto cache = OpenCache(geometry);
  Sequence sequence = cache->Begin();
  NaiveSequence naive(geometry, kF16);
  RunAndCheck(geometry, random, 100, sequence, naive);
  Sequence fork = sequence.Fork();
  NaiveSequence naive_fork = naive;
  for (const int64_t kept : {99, 70, 64, 40, 1, 0}) {
    CAPTURE(kept);
    REQUIRE(fork.Truncate(kept));
    naive_fork.Truncate(kept);
    RunAndCheck(geometry, random, 3, fork, naive_fork);
    RunAndCheck(geometry, random, 1, sequence, naive);
    REQUIRE(fork.Truncate(kept));
    naive_fork.Truncate(kept);
  }
}

TEST_CASE("sequence: they live on when the cache is gone") {
  std::mt19937 random(5);
  const CacheGeometry geometry = Geometry();
  std::optional<Sequence> sequence;
  NaiveSequence naive(geometry, kF16);
  {
    auto cache = OpenCache(geometry);
    sequence = cache->Begin();
    RunAndCheck(geometry, random, 40, *sequence, naive);
  }
  RunAndCheck(geometry, random, 40, *sequence, naive);
  Sequence fork = sequence->Fork();
  sequence.reset();
  RunAndCheck(geometry, random, 1, fork, naive);
}

TEST_CASE("sequence: moving one moves it, and assigning releases what was there") {
  std::mt19937 random(6);
  const CacheGeometry geometry = Geometry();
  auto cache = OpenCache(geometry);
  Sequence first = cache->Begin(), second = cache->Begin();
  NaiveSequence naive_first(geometry, kF16), naive_second(geometry, kF16);
  RunAndCheck(geometry, random, 40, first, naive_first);
  RunAndCheck(geometry, random, 70, second, naive_second);
  first = std::move(second);
  CHECK(cache->stats().num_sequences == 1);
  CHECK(cache->stats().num_live_blocks == 3);
  RunAndCheck(geometry, random, 1, first, naive_second);
}

TEST_CASE("sequence: with the budget used up Prepare fails, and nothing has changed") {
  std::mt19937 random(7);
  const CacheGeometry geometry = Geometry();
  auto cache = OpenCache(geometry, 4 * kBlockBytes);
  Sequence sequence = cache->Begin(), other = cache->Begin();
  NaiveSequence naive(geometry, kF16), naive_other(geometry, kF16);
  RunAndCheck(geometry, random, 60, sequence, naive);
  RunAndCheck(geometry, random, 30, other, naive_other);
  const CacheStats before = cache->stats();
  for (const int64_t too_many : {5 + 32 + 32, 1000, 100000}) {
    const StepData step = RandomStep(random, Geometry(), 1);
    CheckError(sequence.Prepare(std::vector<Token>(size_t(too_many), 1)), ErrorCode::kOutOfMemory);
    CHECK(sequence.num_prepared_tokens() == 0);
    CHECK(std::ranges::equal(sequence.tokens(), naive.tokens()));
    const CacheStats after = cache->stats();
    CHECK(after.live_bytes == before.live_bytes);
    CHECK(after.num_live_blocks == before.num_live_blocks);
    CHECK(after.peak_live_bytes == before.peak_live_bytes);
    CHECK(after.committed_bytes <= 4 * kBlockBytes);
  }
  RunAndCheck(geometry, random, 4 + 32, sequence, naive);  // exactly what there is
  RunAndCheck(geometry, random, 2, other, naive_other);
  CheckError(other.Prepare(std::vector<Token>{1}), ErrorCode::kOutOfMemory);
  REQUIRE(sequence.Truncate(96));
  CHECK(other.num_tokens() == 32);
  REQUIRE(sequence.Truncate(64));
  naive.Truncate(64);
  RunAndCheck(geometry, random, 1, other, naive_other);
  CheckError(sequence.Prepare(std::vector<Token>{1}), ErrorCode::kOutOfMemory);
  CHECK(cache->stats().peak_committed_bytes == 4 * kBlockBytes);
}

// The first group could still copy its open block; the second could not.
TEST_CASE("sequence: Prepare that fails for one group takes nothing for another") {
  std::mt19937 random(8);
  const CacheGeometry geometry = Geometry({0, 1000});
  auto cache = OpenCache(geometry, 3 * kBlockBytes);
  Sequence sequence = cache->Begin();
  NaiveSequence naive(geometry, kF16);
  RunAndCheck(geometry, random, 20, sequence, naive);
  Sequence fork = sequence.Fork();
  NaiveSequence naive_fork = naive;
  const CacheStats before = cache->stats();
  CheckError(fork.Prepare(std::vector<Token>{1}), ErrorCode::kOutOfMemory);
  CHECK(cache->stats().live_bytes == before.live_bytes);
  CHECK(cache->stats().copied_bytes == before.copied_bytes);
  CheckError(sequence.Prepare(std::vector<Token>(13, 1)), ErrorCode::kOutOfMemory);
  CHECK(cache->stats().live_bytes == before.live_bytes);
  { const Sequence gone = std::move(sequence); }
  RunAndCheck(geometry, random, 12, fork, naive_fork);
}

TEST_CASE("sequence: spare blocks of one group make room for another") {
  const CacheGeometry geometry = Geometry({0, 64});
  constexpr size_t kBudgetBlocks = 200;
  auto cache = OpenCache(geometry, kBudgetBlocks * kBlockBytes);
  // The window's group drops its blocks at Commit and keeps some spare; the other must get at those.
  Sequence sequence = cache->Begin();
  std::mt19937 random(9);
  size_t num_steps = 0;
  while (true) {
    const auto out = RunStep(geometry, RandomStep(random, geometry, 32), sequence);
    if (!out) {
      CHECK(out.error().code == ErrorCode::kOutOfMemory);
      break;
    }
    ++num_steps;
    CHECK(cache->stats().committed_bytes <= kBudgetBlocks * kBlockBytes);
  }
  CHECK(num_steps == kBudgetBlocks - 3);  // the window holds two blocks and the one it would grow by
}

TEST_CASE("sequence: sliding-window layers keep their window only") {
  std::mt19937 random(10);
  for (const int window : {1, 2, 33, 100}) {
    CAPTURE(window);
    const CacheGeometry geometry = Geometry({window});
    auto cache = OpenCache(geometry);
    Sequence sequence = cache->Begin();
    NaiveSequence naive(geometry, kF16);
    size_t most_blocks = 0;
    for (int64_t n = 0; n < 5000;) {
      const int64_t step_tokens = n % 1000 == 0 ? 64 : 1 + int64_t(random() % 40);
      const StepData step = RandomStep(random, geometry, step_tokens);
      const auto out = RunStep(geometry, step, sequence);
      REQUIRE(out);
      naive.Add(step);
      if (random() % 10 == 0) CHECK(naive.WorstError(step, *out, random, 29) < kTolerance);
      most_blocks = std::max(most_blocks, cache->stats().num_live_blocks);
      n += step_tokens;
    }
    CHECK(sequence.num_tokens() >= 5000);
    CHECK(most_blocks <= size_t(window + 30) / 32 + 1);
    CHECK(most_blocks >= size_t(std::max(0, window - 1) + 31) / 32);
  }
}

TEST_CASE("sequence: Truncate and Remove refuse what a window has dropped, and change nothing then") {
  std::mt19937 random(11);
  const CacheGeometry geometry = Geometry({0, 64});
  auto cache = OpenCache(geometry);
  Sequence sequence = cache->Begin();
  NaiveSequence naive(geometry, kF16);
  RunAndCheck(geometry, random, 500, sequence, naive);
  const CacheStats before = cache->stats();
  // Blocks that end at or before 500 - 63 are gone: 416 is the first position left, so the query at 416 + 63 is fine.
  CheckError(sequence.Truncate(478), ErrorCode::kFailedPrecondition);
  CheckError(sequence.Truncate(1), ErrorCode::kFailedPrecondition);
  CheckError(sequence.Remove(470, 492), ErrorCode::kFailedPrecondition);
  CHECK(cache->stats().live_bytes == before.live_bytes);
  CHECK(sequence.num_tokens() == 500);
  RunAndCheck(geometry, random, 1, sequence, naive);
  REQUIRE(sequence.Truncate(479));
  naive.Truncate(479);
  RunAndCheck(geometry, random, 2, sequence, naive);
  REQUIRE(sequence.Remove(100, 300));  // outside the window: nothing it needs is missing
  naive.Remove(100, 300);
  RunAndCheck(geometry, random, 40, sequence, naive);
  REQUIRE(sequence.Remove(300, 301));
  naive.Remove(300, 301);
  RunAndCheck(geometry, random, 3, sequence, naive);
}

// A query at position 0 sees nothing before it, so nothing can be missing.
TEST_CASE("sequence: Truncate to nothing always works, and what comes after is as in a new sequence") {
  std::mt19937 random(12);
  for (const int window : {1, 2, 64}) {
    CAPTURE(window);
    CacheGeometry geometry = Geometry({window});
    geometry.block_tokens = 16;
    auto cache = OpenCache(geometry);
    Sequence used = cache->Begin(), fresh = cache->Begin(), removed = cache->Begin();
    REQUIRE(RunStep(geometry, RandomStep(random, geometry, 500), used));
    REQUIRE(RunStep(geometry, RandomStep(random, geometry, 500), removed));
    REQUIRE(used.Truncate(0));
    REQUIRE(removed.Remove(0, 500));
    CHECK(cache->stats().num_live_blocks == 0);
    const StepData step = RandomStep(random, geometry, 600);
    const auto wanted = RunStep(geometry, step, fresh);
    CHECK(*RunStep(geometry, step, used) == *wanted);
    CHECK(*RunStep(geometry, step, removed) == *wanted);
  }
}

TEST_CASE("sequence: a window of one token needs nothing before the query, so Truncate never refuses") {
  std::mt19937 random(13);
  const CacheGeometry geometry = Geometry({1});
  auto cache = OpenCache(geometry);
  Sequence sequence = cache->Begin();
  NaiveSequence naive(geometry, kF16);
  RunAndCheck(geometry, random, 100, sequence, naive);
  for (const int64_t kept : {99, 64, 10}) {
    REQUIRE(sequence.Truncate(kept));
    naive.Truncate(kept);
    RunAndCheck(geometry, random, 1, sequence, naive);
  }
}

TEST_CASE("sequence: threads with sequences of their own, forked from one, don't disturb each other") {
  const CacheGeometry geometry = Geometry({0, 40});
  auto cache = OpenCache(geometry);
  std::mt19937 random(14);
  Sequence root = cache->Begin();
  NaiveSequence naive_root(geometry, kF16);
  RunAndCheck(geometry, random, 45, root, naive_root);
  std::vector<Sequence> forks;
  for (int i = 0; i < 4; ++i) forks.push_back(root.Fork());
  { const Sequence gone = std::move(root); }
  std::vector<double> worst(forks.size(), 0.0);
  auto work = [&](size_t index) {
    std::mt19937 own_random{unsigned(index)};
    NaiveSequence naive = naive_root;
    Sequence sequence = std::move(forks[index]);
    for (int i = 0; i < 40; ++i) {
      const StepData step = RandomStep(own_random, geometry, 1 + int64_t(own_random() % 8));
      const auto out = RunStep(geometry, step, sequence);
      naive.Add(step);
      worst[index] = std::max(worst[index], out ? naive.WorstError(step, *out, own_random, 7) : 1e9);
      if (i % 10 == 9) sequence = sequence.Fork();
    }
  };
  std::vector<std::thread> threads;
  for (size_t i = 0; i < worst.size(); ++i) threads.emplace_back(work, i);
  for (std::thread& thread : threads) thread.join();
  for (const double error : worst) CHECK(error < kTolerance);
  CHECK(cache->stats().num_live_blocks == 0);
  CHECK(cache->stats().num_sequences == 0);
}

}  // namespace
}  // namespace kvist::sequence_test
