// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kvist/cache.h"
#include "tests/property/naive_cache.h"
#include "tier/tier_test_kit.h"

namespace kvist::spill_test {
namespace {

using testing::AppendAll;
using testing::AttendAll;
using testing::Last;
using testing::RandomStep;
using testing::RunRest;
using testing::RunStep;
using testing::RunStepOnThreads;
using testing::SmallGeometry;
using testing::StepData;
using testing::StepOutput;
namespace fs = std::filesystem;

constexpr size_t kBudget = size_t{320} << 10;
constexpr int64_t kTextTokens = 2600;  // 163 blocks of 4 KiB in the layers without a window

std::unique_ptr<Cache> OpenCache(const CacheGeometry& geometry, const TestFolder* folder, Form form = {},
                                 size_t budget_bytes = kBudget, bool reads_ahead = true) {
  CacheOptions options{.form = form, .budget_bytes = budget_bytes};
  options.reads_ahead = reads_ahead;
  options.shares_prefixes = true;
  options.model = {"test", {1, 2}};
  if (folder != nullptr) options.tiers = {"disk:" + folder->path() + ",size=64M"};
  return Cache::Open(geometry, options).value();
}

std::unique_ptr<Cache> OpenLarge(const CacheGeometry& geometry, Form form = {}) {
  return OpenCache(geometry, nullptr, form, size_t{64} << 20);
}

// The outputs of the data's tokens after the sequence's, which is spilled whenever there is no room.
StepOutput RunSpilling(const CacheGeometry& geometry, const StepData& data, Sequence& sequence,
                       int64_t step_tokens = 64, int num_threads = 1) {
  return RunRest(geometry, data, sequence, step_tokens, [&](const StepData& part) {
    auto out = RunStepOnThreads(geometry, part, sequence, num_threads);
    if (!out) {
      REQUIRE(out.error().code == ErrorCode::kOutOfMemory);
      REQUIRE(sequence.Spill(std::ssize(part.tokens)));
      out = RunStepOnThreads(geometry, part, sequence, num_threads);
    }
    REQUIRE(out);
    return *std::move(out);
  });
}

// A text, a sequence of it that has all the memory it wants, and one that has not.
struct Rig {
  Rig(unsigned seed, int window, Form form = {}, size_t budget_bytes = kBudget, bool reads_ahead = true)
      : random(seed),
        geometry(SmallGeometry(window)),
        text(RandomStep(random, geometry, kTextTokens)),
        large(OpenLarge(geometry, form)),
        cache(OpenCache(geometry, &folder, form, budget_bytes, reads_ahead)),
        whole(large->Begin()),
        spilled(cache->Begin()) {}

  const TestFolder folder;
  std::mt19937 random;
  const CacheGeometry geometry;
  const StepData text;
  const std::unique_ptr<Cache> large, cache;
  Sequence whole, spilled;
};

TEST_CASE("spill: a sequence several times its memory gives the same bits, in its memory") {
  for (const Form form : {Form{}, Form{Codec::kF32, Codec::kF32}, Form{Codec::kQ4, Codec::kQ8}}) {
    for (const int window : {0, 40}) {
      CAPTURE(FormName(form));
      CAPTURE(window);
      Rig rig(1, window, form);
      auto& [folder, random, geometry, text, large, cache, whole, spilled] = rig;
      const StepOutput expected = RunSpilling(geometry, text, whole);
      CHECK(RunSpilling(geometry, text, spilled) == expected);
      CHECK(spilled.num_spilled_tokens() > kTextTokens / 2);
      CHECK(whole.num_spilled_tokens() == 0);
      const CacheStats stats = cache->stats();
      CHECK(large->stats().live_bytes > kBudget / 2 * 3);
      CHECK(stats.committed_bytes + stats.staging_bytes <= kBudget);
      CHECK(stats.peak_committed_bytes <= kBudget);
      CHECK(stats.staging_bytes > 0);
      CHECK(stats.spill_bytes_read > 10 * kBudget);
      CHECK(cache->ResidentBytes().value() <= kBudget);
    }
  }
}

TEST_CASE("spill: the same bits in steps of one token, or of many, with several threads") {
  for (const bool reads_ahead : {true, false}) {
    CAPTURE(reads_ahead);
    Rig rig(2, 30, {}, kBudget, reads_ahead);
    auto& [folder, random, geometry, text, large, cache, whole, spilled] = rig;
    const StepOutput expected = RunSpilling(geometry, text, whole);
    RunSpilling(geometry, text.Part(geometry, 0, 2300), spilled, 300, 3);
    for (const auto& [end, step_tokens, num_threads] : {std::tuple{2340, 1, 1}, {2380, 1, 3}, {2600, 50, 2}}) {
      const int64_t begin = spilled.num_tokens();
      const StepOutput out = RunSpilling(geometry, text.Part(geometry, 0, end), spilled, step_tokens, num_threads);
      StepOutput until_end = expected;
      for (auto& layer : until_end) layer.resize(layer.size() / size_t(kTextTokens) * size_t(end));
      CHECK(out == Last(until_end, end, end - begin));
    }
  }
}

TEST_CASE("spill: forks, cuts and removals of what is spilled give what they give in memory") {
  // Two sequences have to be in memory with what they read, and what they don't share.
  Rig rig(3, 0, {}, kBudget + (size_t{128} << 10));
  auto& [folder, random, geometry, text, large, cache, whole, spilled] = rig;
  RunSpilling(geometry, text, whole);
  RunSpilling(geometry, text, spilled);
  REQUIRE(spilled.Spill(600));
  const auto same_rest = [&](Sequence& a, Sequence& b, int64_t num_more) {
    StepData more = text.Part(geometry, 0, a.num_tokens());
    const StepData next = text.Part(geometry, 100, 100 + num_more);
    more.tokens.insert(more.tokens.end(), next.tokens.begin(), next.tokens.end());
    for (auto member : {&StepData::keys, &StepData::values, &StepData::queries}) {
      for (size_t i = 0; i < geometry.layers.size(); ++i) {
        (more.*member)[i].insert((more.*member)[i].end(), (next.*member)[i].begin(), (next.*member)[i].end());
      }
    }
    CHECK(RunSpilling(geometry, more, a) == RunSpilling(geometry, more, b));
  };
  {
    Sequence whole_fork = whole.Fork(), spilled_fork = spilled.Fork();
    same_rest(whole_fork, spilled_fork, 70);
    for (Sequence* sequence : {&whole_fork, &spilled_fork})
      REQUIRE(sequence->Truncate(1003));  // inside a spilled block
    same_rest(whole_fork, spilled_fork, 40);
  }
  for (Sequence* sequence : {&whole, &spilled}) REQUIRE(sequence->Remove(505, 1700));
  same_rest(whole, spilled, 30);
  for (Sequence* sequence : {&whole, &spilled}) REQUIRE(sequence->Truncate(480));
  CHECK(spilled.num_spilled_tokens() == 480);
  same_rest(whole, spilled, 30);
  for (Sequence* sequence : {&whole, &spilled}) REQUIRE(sequence->Truncate(0));
  same_rest(whole, spilled, 30);
  CHECK(cache->stats().staging_bytes == 0);
}

TEST_CASE("spill: what is spilled is part of the session, and resumed into as little memory") {
  const TestFolder folder;
  std::mt19937 random(4);
  const CacheGeometry geometry = SmallGeometry(30);
  const StepData text = RandomStep(random, geometry, kTextTokens);
  const auto large = OpenLarge(geometry);
  Sequence whole = large->Begin();
  const StepOutput expected = RunSpilling(geometry, text, whole);
  {
    const auto cache = OpenCache(geometry, &folder);
    Sequence sequence = cache->Begin();
    RunSpilling(geometry, text.Part(geometry, 0, 2500), sequence);
    REQUIRE(sequence.num_spilled_tokens() > 0);
    REQUIRE(cache->Save("long", sequence));
  }
  const auto cache = OpenCache(geometry, &folder);
  ResumedSession session = cache->Resume("long").value();
  CHECK(session.tokens.size() == 2500);
  CHECK(session.reuse.num_tokens() == 2500);
  CHECK(session.reuse.spilled_tokens > 1000);
  CHECK(session.reuse.spilled_tokens < 2300);  // not more of it than there is no room for
  Sequence& sequence = session.sequence;
  const int64_t num_left = kTextTokens - sequence.num_tokens();
  CHECK(RunSpilling(geometry, text, sequence) == Last(expected, kTextTokens, num_left));
  CHECK(cache->stats().peak_committed_bytes <= kBudget);
}

TEST_CASE("spill: blocks that were damaged on the disk are noticed, and computed again") {
  for (const int window : {0, 30}) {
    CAPTURE(window);
    Rig rig(5, window);
    auto& [folder, random, geometry, text, large, cache, whole, spilled] = rig;
    const StepOutput expected = RunSpilling(geometry, text, whole);
    RunSpilling(geometry, text.Part(geometry, 0, 2500), spilled);
    cache->Flush();
    for (const fs::path& segment : folder.Files("segments")) FlipBit(segment, (fs::file_size(segment) - 1) * 8);
    std::optional<Error> error;
    for (int64_t i = 0; i < 3 && !error; ++i) {  // the first layers may have been read before
      const int64_t at = spilled.num_tokens();
      const StepData one = text.Part(geometry, at, at + 1);
      REQUIRE(spilled.Prepare(one.tokens));
      AppendAll(one, spilled);
      AttendAll(geometry, one, spilled);
      const bool will_commit = spilled.CheckStep().has_value();
      const Status committed = spilled.Commit();
      CHECK(committed.has_value() == will_commit);
      if (!committed) error = committed.error();
    }
    REQUIRE(error);
    CHECK(error->code == ErrorCode::kCorrupt);
    CHECK(error->message.find("compute the sequence again from there") != std::string::npos);
    CHECK(spilled.num_tokens() < 2500);
    if (window > 0) CHECK(spilled.num_tokens() == 0);
    // Other segments are damaged, too: each is found when it is read, and only then.
    while (spilled.num_tokens() < kTextTokens) {
      const int64_t begin = spilled.num_tokens(), end = std::min(kTextTokens, (begin / 64 + 1) * 64);
      const auto out = RunStep(geometry, text.Part(geometry, begin, end), spilled);
      if (out) continue;
      if (out.error().code == ErrorCode::kOutOfMemory) REQUIRE(spilled.Spill(64));
    }
    REQUIRE(spilled.Truncate(spilled.num_tokens()));
    Sequence whole_fork = whole.Fork();
    const StepData next = RandomStep(random, geometry, 5);
    REQUIRE(spilled.Spill(8));
    CHECK(RunStep(geometry, next, spilled).value() == RunStep(geometry, next, whole_fork).value());
    CHECK(expected.size() == 3);
  }
}

TEST_CASE("spill: files that somebody removes are kept by who needs them") {
  Rig rig(6, 0);
  auto& [folder, random, geometry, text, large, cache, whole, spilled] = rig;
  const StepOutput expected = RunSpilling(geometry, text, whole);
  RunSpilling(geometry, text.Part(geometry, 0, 2500), spilled);
  for (const fs::path& segment : folder.Files("segments")) fs::remove(segment);
  CHECK(RunSpilling(geometry, text, spilled) == Last(expected, kTextTokens, 100));
  REQUIRE(cache->Save("saved", spilled));  // writes them again
  const auto other = OpenCache(geometry, &folder, {}, size_t{64} << 20);
  CHECK(other->Resume("saved")->sequence.num_tokens() == kTextTokens);
}

TEST_CASE("spill: errors say what is missing, and nothing is lost") {
  const TestFolder folder;
  std::mt19937 random(7);
  const CacheGeometry geometry = SmallGeometry(0);
  const StepData text = RandomStep(random, geometry, kTextTokens);
  const auto without = OpenCache(geometry, nullptr);
  Sequence sequence = without->Begin();
  CHECK(sequence.Spill(1).error().code == ErrorCode::kFailedPrecondition);
  const auto cache = OpenCache(geometry, &folder);
  sequence = cache->Begin();
  CHECK(sequence.Spill(100000).error().code == ErrorCode::kOutOfMemory);
  CHECK(sequence.Spill(1));  // there is room
  RunSpilling(geometry, text.Part(geometry, 0, 1600), sequence);
  CHECK(sequence.Spill(100000).error().code == ErrorCode::kOutOfMemory);
  CHECK(sequence.num_tokens() == 1600);
  Sequence whole = OpenLarge(geometry)->Begin();
  const StepOutput expected = RunSpilling(geometry, text, whole);
  CHECK(RunSpilling(geometry, text, sequence) == Last(expected, kTextTokens, 1000));
}

}  // namespace
}  // namespace kvist::spill_test
