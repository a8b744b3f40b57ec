// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
//
// What may be changed of a sequence while it lives: whether it seals, and how it grows.
#include <doctest/doctest.h>

#include <memory>
#include <random>

#include "kvist/cache.h"
#include "tests/property/naive_cache.h"
#include "tier/tier_test_kit.h"

namespace kvist::sequence_settings_test {
namespace {

using testing::Last;
using testing::RandomStep;
using testing::RunRest;
using testing::RunStep;
using testing::SmallGeometry;
using testing::StepData;
using testing::StepOutput;

constexpr int64_t kTokens = 320, kSwitch = 200;
constexpr Form kQ4{Codec::kQ4, Codec::kQ4};

CacheOptions Options(Form form) {
  CacheOptions options{.form = form, .budget_bytes = size_t{64} << 20};
  options.sealing.recent_tokens = 32;
  return options;
}

struct Text {
  explicit Text(int window = 0) : geometry(SmallGeometry(window)) {
    for (LayerGeometry& layer : geometry.layers) layer.key_dim = layer.value_dim = 64;  // forms differ by whole pages
    std::mt19937 random(5);
    data = RandomStep(random, geometry, kTokens);
  }
  std::unique_ptr<Cache> Open(const CacheOptions& options) const { return Cache::Open(geometry, options).value(); }
  // Computes up to the token; outputs of what is new.
  StepOutput RunTo(int64_t end, Sequence& sequence) const {
    return RunRest(geometry, data.Part(geometry, 0, end), sequence);
  }

  CacheGeometry geometry;
  StepData data;
};

TEST_CASE("settings: a sequence that never seals is, in a cache of a quantised form, what it is in one of the open") {
  for (const int window : {0, 40}) {
    const Text text(window);
    const auto cache = text.Open(Options(kQ4)), exact_cache = text.Open(Options({}));
    Sequence sequence = cache->Begin(), exact = exact_cache->Begin(), sealing = cache->Begin();
    sequence.SetSealing(false);
    CHECK_FALSE(sequence.is_sealing());
    const StepOutput out = text.RunTo(kTokens, sequence);
    CHECK(out == text.RunTo(kTokens, exact));
    CHECK(sequence.num_held_bytes() == exact.num_held_bytes());
    CHECK(out != text.RunTo(kTokens, sealing));  // which the other one beside it does not disturb
    CHECK(sealing.num_held_bytes() < sequence.num_held_bytes());
  }
}

TEST_CASE("settings: sealing that begins in the middle is that of a cache where it begins there") {
  const Text text;
  CacheOptions late = Options(kQ4);
  late.sealing.begin_position = kSwitch;
  const auto cache = text.Open(Options(kQ4)), late_cache = text.Open(late);
  Sequence sequence = cache->Begin(), from_there = late_cache->Begin();
  sequence.SetSealing(false);
  CHECK(text.RunTo(kSwitch, sequence) == text.RunTo(kSwitch, from_there));
  sequence.SetSealing(true);
  CHECK(text.RunTo(kTokens, sequence) == text.RunTo(kTokens, from_there));
  CHECK(sequence.num_held_bytes() == from_there.num_held_bytes());
  CHECK(cache->stats().copied_bytes == 0);
}

TEST_CASE("settings: where sealing ends, what is sealed stays so and what comes stays open; a fork goes on alike") {
  const Text text;
  const auto cache = text.Open(Options(kQ4));
  Sequence sequence = cache->Begin();
  text.RunTo(kSwitch, sequence);
  const size_t bytes = sequence.num_held_bytes();
  sequence.SetSealing(false);
  CHECK(sequence.num_held_bytes() == bytes);
  Sequence fork = sequence.Fork();
  CHECK_FALSE(fork.is_sealing());
  const auto num_open_blocks = [&](int64_t num_tokens) { return (num_tokens + 15) / 16; };
  const StepOutput out = text.RunTo(kTokens, sequence);
  CHECK(text.RunTo(kTokens, fork) == out);
  const auto block_bytes = [&] {
    Sequence one = cache->Begin();
    text.RunTo(1, one);
    return one.num_held_bytes();
  }();
  CHECK(sequence.num_held_bytes() == bytes + size_t(num_open_blocks(kTokens) - num_open_blocks(kSwitch)) * block_bytes);
  sequence.SetSealing(true);  // and again: the open ones between are sealed, too
  StepData more = text.data.Part(text.geometry, kTokens - 1, kTokens);
  REQUIRE(RunStep(text.geometry, more, sequence));
  Sequence whole = cache->Begin();
  text.RunTo(kTokens, whole);
  REQUIRE(RunStep(text.geometry, more, whole));
  CHECK(sequence.num_held_bytes() == whole.num_held_bytes());
}

TEST_CASE("settings: sequences share with those that seal as they do, and one that has changed offers nothing more") {
  const Text text;
  CacheOptions options = Options(kQ4);
  options.shares_prefixes = true;
  const auto cache = text.Open(options);
  const auto shared_by = [&](bool is_sealing) {
    Sequence other = cache->Begin();
    other.SetSealing(is_sealing);
    return other.Reuse(text.data.tokens).shared_tokens;
  };
  Sequence exact = cache->Begin();
  exact.SetSealing(false);
  text.RunTo(kSwitch, exact);
  CHECK(shared_by(true) == 0);
  CHECK(shared_by(false) == kSwitch / 16 * 16);
  exact.SetSealing(true);
  text.RunTo(kTokens, exact);
  CHECK(shared_by(true) == 0);
  CHECK(shared_by(false) == kSwitch / 16 * 16);
  CHECK(exact.Reuse(text.data.tokens).shared_tokens == 0);
  Sequence other = cache->Begin();
  other.SetSealing(false);
  other.Reuse(text.data.tokens);
  const auto exact_cache = text.Open(Options({}));
  Sequence whole = exact_cache->Begin();
  const StepOutput rest = text.RunTo(kTokens, other);
  CHECK(Last(text.RunTo(kTokens, whole), kTokens, 100) == Last(rest, std::ssize(rest[0]) / 128, 100));
}

TEST_CASE("settings: sealing is each group's, and nothing where no form is quantised") {
  const Text text(40);
  CacheOptions options = Options({});
  options.shares_prefixes = true;
  options.layer_forms.assign(text.geometry.layers.size(), Form{});
  // The first group, that of the first layer, is the one that is not quantised.
  for (size_t i = 1; i < options.layer_forms.size(); ++i) {
    if (text.geometry.layers[i].window != text.geometry.layers[0].window) options.layer_forms[i] = kQ4;
  }
  const auto cache = text.Open(options);
  {
    Sequence sealing = cache->Begin();
    text.RunTo(kTokens, sealing);
  }
  Sequence open = cache->Begin();
  open.SetSealing(false);
  CHECK(open.Reuse(text.data.tokens).num_tokens() == 0);

  options.layer_forms.clear();
  const auto exact = text.Open(options);
  {
    Sequence sequence = exact->Begin();
    text.RunTo(kSwitch, sequence);
    sequence.SetSealing(false);
    text.RunTo(kTokens, sequence);
    CHECK_FALSE(sequence.is_approximate());
  }
  CHECK(exact->Begin().Reuse(text.data.tokens).num_tokens() > kSwitch + 16);
}

TEST_CASE("settings: a session of a sequence that does not seal comes back as one, exact") {
  const Text text;
  const TestFolder folder;
  CacheOptions options = Options(kQ4);
  options.shares_prefixes = true;
  options.model = {"test", {1, 2}};
  options.tiers = {"disk:" + folder.path() + ",size=64M"};
  {
    const auto cache = text.Open(options);
    Sequence exact = cache->Begin();
    exact.SetSealing(false);
    text.RunTo(kSwitch, exact);
    REQUIRE(cache->Save("exact", exact));
    Sequence sealing = cache->Begin();
    text.RunTo(kSwitch, sealing);
    REQUIRE(cache->Save("sealing", sealing));
  }
  const auto cache = text.Open(options);
  for (const bool is_sealing : {false, true}) {
    auto resumed = cache->Resume(is_sealing ? "sealing" : "exact");
    REQUIRE(resumed);
    CHECK(resumed->sequence.num_tokens() == kSwitch);
    CHECK(resumed->sequence.is_sealing() == is_sealing);
    const auto unsaved_cache = text.Open(Options(is_sealing ? kQ4 : Form{}));
    Sequence unsaved = unsaved_cache->Begin();
    text.RunTo(kSwitch, unsaved);
    CHECK(text.RunTo(kTokens, resumed->sequence) == text.RunTo(kTokens, unsaved));
  }
}

TEST_CASE("settings: growth changes in place, and changes nothing of what is computed") {
  const Text text;
  const auto cache = text.Open(Options({}));
  Sequence sequence = cache->Begin(), plain = cache->Begin();
  text.RunTo(64, sequence);
  text.RunTo(64, plain);
  CHECK(sequence.growth().capacity_tokens == 64);
  REQUIRE(sequence.SetGrowth(ParseGrowth("dynamic:initial=128,factor=2").value()));
  CHECK(sequence.growth().capacity_tokens == 128);
  CHECK(text.RunTo(150, sequence) == text.RunTo(150, plain));
  CHECK(sequence.growth().capacity_tokens == 256);
  const Status too_short = sequence.SetGrowth(ParseGrowth("static:max=100").value());
  REQUIRE_FALSE(too_short);
  CHECK(too_short.error().code == ErrorCode::kOutOfRange);
  CHECK(sequence.SetGrowth({.kind = GrowthKind::kDynamic, .factor = 9}).error().code == ErrorCode::kInvalidArgument);
  CHECK(sequence.growth().capacity_tokens == 256);
  REQUIRE(sequence.SetGrowth(ParseGrowth("static:max=160").value()));
  REQUIRE(sequence.SetGrowth(ParseGrowth("exact").value()));
  CHECK(text.RunTo(kTokens, sequence) == text.RunTo(kTokens, plain));
  REQUIRE(sequence.SetGrowth(ParseGrowth("static:max=330").value()));
  const Status past_it = sequence.Prepare(std::vector<Token>(11, 1));
  REQUIRE_FALSE(past_it);
  CHECK(past_it.error().code == ErrorCode::kOutOfRange);
}

}  // namespace
}  // namespace kvist::sequence_settings_test
