// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
// Texts of more tokens than the memory holds.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/generator.h"
#include "engine/scheduler.h"
#include "engine/tiny_engine.h"
#include "kvist/kv_size.h"
#include "tier/tier_test_kit.h"

namespace kvist::spill_test {
namespace {

constexpr int64_t kLongText = 1500;

struct Rig : TinyEngine {
  using TinyEngine::TinyEngine;

  // Room for everything, or hardly more than a spilled text needs.
  std::unique_ptr<Cache> OpenCache(bool has_tier, bool is_small) const {
    CacheOptions options{.form = {}, .budget_bytes = 0};
    const size_t least_bytes = SpilledKvBytes(model->geometry(), options, kLongText + 60, Generator::kPrefillTokens);
    if (is_small) options.budget_bytes = least_bytes + least_bytes / 10;
    CHECK(options.budget_bytes < KvBytes(model->geometry(), options, kLongText, 1));
    options.shares_prefixes = true;
    options.model = {"tiny", {1, 1}};
    if (has_tier) options.tiers = {"disk:" + folder.path() + ",size=64M"};
    auto opened = Cache::Open(model->geometry(), options);
    REQUIRE(opened);
    return *std::move(opened);
  }
  Generation Generate(Cache& cache, const std::vector<Token>& prompt, int64_t max_tokens,
                      const GenerateEvents& events = {}) const {
    auto generation = Generator(model.get(), tokenizer, &cache).Generate(prompt, Options(max_tokens), events);
    REQUIRE_MESSAGE(generation, (generation ? "" : generation.error().message));
    return *std::move(generation);
  }
  static GenerateOptions Options(int64_t max_tokens) {
    return {.max_tokens = max_tokens, .sampler = {.temperature = 2.0F, .seed = 3}, .stops = {}};
  }
  void DamageSegments() const {
    for (const auto& segment : folder.Files("segments"))
      FlipBit(segment, (std::filesystem::file_size(segment) - 5) * 8);
  }

  TestFolder folder;
};

std::vector<TinyModel> Models() {
  return {{.context = 2048}, {.architecture = "gemma3", .num_layers = 12, .context = 2048, .window = 64}};
}

TEST_CASE("engine spill: a text of more tokens than the memory holds is the same text") {
  for (const TinyModel& tiny : Models()) {
    CAPTURE(tiny.architecture);
    const Rig rig(tiny);
    const std::vector<Token> prompt = SomeTokens(kLongText, 1);
    const auto large = rig.OpenCache(false, false), small = rig.OpenCache(true, true),
               without = rig.OpenCache(false, true);
    const Generation expected = rig.Generate(*large, prompt, 40);
    CHECK(rig.Generate(*small, prompt, 40).tokens == expected.tokens);
    const CacheStats stats = small->stats();
    CHECK(stats.peak_committed_bytes <= small->options().budget_bytes);
    CHECK(stats.spill_bytes_read > 0);
    const auto refused =
        Generator(rig.model.get(), rig.tokenizer, without.get()).Generate(prompt, Rig::Options(40), {});
    REQUIRE_FALSE(refused);
    CHECK(refused.error().message.find("give it a disk tier for the rest") != std::string::npos);

    // In another process: most of it is not computed again, and most of that is not even read into memory.
    small->Flush();
    const auto later = rig.OpenCache(true, true);
    const Generation again = rig.Generate(*later, prompt, 40);
    CHECK(again.tokens == expected.tokens);
    if (tiny.window == 0) CHECK(again.reuse.spilled_tokens > 0);  // the other fits but for the next step
    CHECK(again.stats.computed_tokens < kLongText / 4);
  }
}

TEST_CASE("engine spill: what a disk has lost is computed again, in a prompt and in an answer") {
  for (const TinyModel& tiny : Models()) {
    for (const int64_t output_tokens : {1, 60}) {
      CAPTURE(tiny.architecture);
      CAPTURE(output_tokens);
      const Rig rig(tiny);
      const std::vector<Token> prompt = SomeTokens(kLongText, 2);
      const auto large = rig.OpenCache(false, false), small = rig.OpenCache(true, true);
      const Generation expected = rig.Generate(*large, prompt, output_tokens);
      int num_shown = 0;
      GenerateEvents events;
      events.on_prefill = [&](int64_t done, int64_t all) {
        if (output_tokens == 1 && done > all / 10 * 9 && num_shown++ == 0) rig.DamageSegments();
      };
      events.on_text = [&](std::string_view) {
        if (output_tokens > 1 && num_shown++ == 20) rig.DamageSegments();
        return true;
      };
      const Generation generation = rig.Generate(*small, prompt, output_tokens, events);
      CHECK(generation.tokens == expected.tokens);
      CHECK(generation.stats.computed_tokens > kLongText);
    }
  }
}

TEST_CASE("engine spill: a request for which no spilling makes room fails, and the next one runs") {
  const Rig rig({.context = 2048});
  const auto small = rig.OpenCache(true, true);
  Scheduler scheduler(rig.model.get(), rig.tokenizer, small.get(), {});
  Request too_large{.prompt = SomeTokens(50, 1), .options = Rig::Options(5)};
  too_large.options.sequence.growth = GrowthOptions{.kind = GrowthKind::kStatic, .max_tokens = 1'000'000};
  const RequestId failing = scheduler.Submit(std::move(too_large)).value();
  const RequestId fine = scheduler.Submit({.prompt = SomeTokens(50, 2), .options = Rig::Options(5)}).value();
  std::map<RequestId, bool> ended;
  for (int i = 0; i < 1000 && scheduler.has_work(); ++i) {
    for (auto& finished : scheduler.Step()) ended[finished.id] = finished.generation.has_value();
  }
  CHECK(ended == std::map<RequestId, bool>{{failing, false}, {fine, true}});
}

TEST_CASE("engine spill: one long request among others, none of which fails") {
  for (const TinyModel& tiny : Models()) {
    CAPTURE(tiny.architecture);
    const Rig rig(tiny);
    const auto large = rig.OpenCache(false, false), small = rig.OpenCache(true, true);
    Scheduler scheduler(rig.model.get(), rig.tokenizer, small.get(), {});
    std::vector<std::vector<Token>> prompts;
    for (uint32_t i = 0; i < 6; ++i) prompts.push_back(SomeTokens(i == 2 ? kLongText : 100, i));
    std::vector<RequestId> ids;
    for (const auto& prompt : prompts) {
      const auto id = scheduler.Submit({.prompt = prompt, .options = Rig::Options(30)});
      REQUIRE(id);
      ids.push_back(*id);
    }
    size_t num_finished = 0;
    for (int step = 0; scheduler.has_work(); ++step) {
      REQUIRE(step < 2000);
      if (step == 30) rig.DamageSegments();
      for (const Finished& each : scheduler.Step()) {
        REQUIRE_MESSAGE(each.generation, (each.generation ? "" : each.generation.error().message));
        const auto which = size_t(std::ranges::find(ids, each.id) - ids.begin());
        CHECK(each.generation->tokens == rig.Generate(*large, prompts[which], 30).tokens);
        ++num_finished;
      }
      const CacheStats stats = small->stats();
      CHECK(stats.committed_bytes + stats.staging_bytes <= small->options().budget_bytes);
    }
    CHECK(num_finished == prompts.size());
    CHECK(small->stats().spill_bytes_read > 0);
  }
}

}  // namespace
}  // namespace kvist::spill_test
