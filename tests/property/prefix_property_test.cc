// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
// Sequences that share prefixes beside ones that compute everything: random prompts of a small tree, random operations,
// little memory. KVIST_SEED and KVIST_OPERATIONS play other and longer games.
#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kvist/cache.h"
#include "tests/property/naive_cache.h"

namespace kvist::prefix_property_test {
namespace {

using testing::EmptyOutput;
using testing::NumberFromEnvironment;
using testing::RandomStep;
using testing::RunStep;
using testing::SmallGeometry;
using testing::StepData;
using testing::StepOutput;

class Game {
 public:
  Game(uint64_t seed, int window, std::string tier)
      : random_(unsigned(seed)), geometry_(SmallGeometry(window)), has_tier_(!tier.empty()) {
    CacheOptions options{.form = {}, .budget_bytes = size_t{600} << 10};
    options.shares_prefixes = true;
    if (has_tier_) options.tiers = {tier};
    options.model = {"test", {1, seed + 1}};
    cache_ = Cache::Open(geometry_, options).value();
    cold_cache_ = Cache::Open(geometry_, {.form = {}, .budget_bytes = size_t{64} << 20}).value();
  }

  void Play(uint64_t num_operations) {
    for (uint64_t operation = 0; operation < num_operations; ++operation) {
      CAPTURE(operation);
      PlayOne();
      const CacheStats stats = cache_->stats();
      REQUIRE(stats.committed_bytes + stats.staging_bytes <= cache_->options().budget_bytes);
    }
    CHECK(num_shared_ > num_operations / 2);
    if (has_tier_) CHECK(num_loaded_ > 0);
    if (has_tier_) CHECK(num_spilled_ > num_operations / 10);
  }

 private:
  struct Running {
    Sequence warm, cold;
  };

  uint64_t Below(uint64_t limit) { return random_() % limit; }

  // Numbers that depend on the tokens up to each, as a model's do.
  StepData DataOf(const std::vector<Token>& before, const std::vector<Token>& tokens) {
    StepData data;
    uint64_t hash = 1469598103934665603u;
    const auto add = [&hash](Token token) { hash = (hash ^ uint64_t(token + 1)) * 1099511628211u; };
    for (const Token token : before) add(token);
    for (const Token token : tokens) {
      add(token);
      std::mt19937 of_token(unsigned(hash ^ (hash >> 32)));
      StepData one = RandomStep(of_token, geometry_, 1);
      one.tokens = {token};
      Append(data, one);
    }
    return data;
  }

  static void Append(StepData& data, const StepData& more) {
    if (data.keys.empty()) {
      data = more;
      return;
    }
    data.tokens.insert(data.tokens.end(), more.tokens.begin(), more.tokens.end());
    for (size_t i = 0; i < data.keys.size(); ++i) {
      data.keys[i].insert(data.keys[i].end(), more.keys[i].begin(), more.keys[i].end());
      data.values[i].insert(data.values[i].end(), more.values[i].begin(), more.values[i].end());
      data.queries[i].insert(data.queries[i].end(), more.queries[i].begin(), more.queries[i].end());
    }
  }

  // Words of 5 to 24 tokens, of which there are few, so that texts often begin alike.
  std::vector<Token> RandomTokens(int num_words) {
    std::vector<Token> tokens;
    for (int i = 0; i < num_words; ++i) {
      const auto word = Token(Below(3));
      for (Token j = 0; j < 5 + word * 9 + 1; ++j) tokens.push_back(word * 100 + j);
    }
    return tokens;
  }

  void PlayOne() {
    const uint64_t choice = Below(10);
    if (running_.empty() || (choice < 4 && running_.size() < 4)) return Begin();
    Running& one = *running_[Below(running_.size())];
    if (choice < 7) {
      Continue(one, RandomTokens(1));
      return;
    }
    if (choice < 8) return Cut(one);
    if (choice < 9 && has_tier_) return Spill(one);
    running_.erase(running_.begin() + std::ptrdiff_t(Below(running_.size())));
  }

  void Begin() {
    const std::vector<Token> prompt = RandomTokens(1 + int(Below(8)));
    auto one = std::make_unique<Running>(Running{cache_->Begin(), cold_cache_->Begin()});
    const ReuseReport report = one->warm.Reuse(prompt, std::ssize(prompt) - 1, has_tier_ && Below(2) == 0);
    num_shared_ += uint64_t(report.shared_tokens + report.spilled_tokens);
    for (const auto& from : report.loaded) num_loaded_ += uint64_t(from.tokens);
    REQUIRE(report.num_tokens() == one->warm.num_tokens());
    REQUIRE(std::ranges::equal(one->warm.tokens(), std::span(prompt).first(size_t(one->warm.num_tokens()))));
    const auto num_reused = std::ptrdiff_t(one->warm.num_tokens());
    const std::vector<Token> reused(prompt.begin(), prompt.begin() + num_reused);
    if (!reused.empty()) REQUIRE(RunStep(geometry_, DataOf({}, reused), one->cold));
    running_.push_back(std::move(one));
    Continue(*running_.back(), {prompt.begin() + num_reused, prompt.end()});
  }

  // False when there was no room, and the sequence has ended.
  bool Continue(Running& one, const std::vector<Token>& tokens) {
    const std::vector<Token> before(one.cold.tokens().begin(), one.cold.tokens().end());
    const StepData step = DataOf(before, tokens);
    auto warm = RunStep(geometry_, step, one.warm);
    if (!warm && one.warm.Spill(std::ssize(tokens))) warm = RunStep(geometry_, step, one.warm);
    if (!warm) {  // the others hold all of the memory: let go of one
      REQUIRE(warm.error().code == ErrorCode::kOutOfMemory);
      std::erase_if(running_, [&](const auto& each) { return each.get() == &one; });
      return false;
    }
    REQUIRE(*warm == RunStep(geometry_, step, one.cold).value());
    num_spilled_ += one.warm.num_spilled_tokens() > 0 ? 1 : 0;
    return true;
  }

  // Of a long text, as if so much room were wanted that some of it has to go.
  void Spill(Running& one) {
    if (one.warm.num_tokens() < 700 && !Continue(one, RandomTokens(50))) return;
    const Status status = one.warm.Spill(int64_t(Below(geometry_.layers[1].window > 0 ? 900 : 1900)));
    REQUIRE((status || status.error().code == ErrorCode::kOutOfMemory));
    for (int i = 0; i < 3 && Continue(one, RandomTokens(1)); ++i) {
    }
  }

  void Cut(Running& one) {
    const auto num_kept = int64_t(Below(uint64_t(one.warm.num_tokens() + 1)));
    const Status status = one.warm.Truncate(num_kept);
    if (!status && status.error().code == ErrorCode::kOutOfMemory) return;  // to have a spilled block back
    REQUIRE(status.has_value() == one.cold.Truncate(num_kept).has_value());
  }

  std::mt19937 random_;
  const CacheGeometry geometry_;
  const bool has_tier_;
  std::unique_ptr<Cache> cache_, cold_cache_;
  std::vector<std::unique_ptr<Running>> running_;
  uint64_t num_shared_ = 0, num_loaded_ = 0;
  uint64_t num_spilled_ = 0;  // steps of spilled sequences
};

TEST_CASE("prefixes: sharing changes no bit, whatever happens") {
  const uint64_t seed = NumberFromEnvironment("KVIST_SEED", 1);
  const uint64_t num_operations = NumberFromEnvironment("KVIST_OPERATIONS", 400);
  const auto folder = std::filesystem::temp_directory_path() / ("kvist-prefix-game-" + std::to_string(getpid()));
  for (const int window : {0, 24, 60}) {
    for (const bool has_tier : {false, true}) {
      CAPTURE(seed);
      CAPTURE(window);
      CAPTURE(has_tier);
      Game(seed, window, has_tier ? "disk:" + folder.string() + ",size=8M" : "").Play(num_operations);
      std::filesystem::remove_all(folder);
    }
  }
}

}  // namespace
}  // namespace kvist::prefix_property_test
