// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "engine/retaining.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/generator.h"
#include "engine/scheduler.h"
#include "engine/tiny_engine.h"
#include "kvist/kv_size.h"

namespace kvist::retaining_test {
namespace {

const TinyModel kTiny{.context = 1000};

GenerateOptions Options(const std::string& retain, int64_t max_tokens) {
  GenerateOptions options{.max_tokens = max_tokens, .sampler = {}, .stops = {}};
  options.retain = ParseRetain(retain).value();
  return options;
}

std::unique_ptr<Cache> OpenCache(const Model& model, bool shares_prefixes = false, size_t budget_bytes = 0) {
  return Cache::Open(model.geometry(), {.form = {}, .budget_bytes = budget_bytes, .shares_prefixes = shares_prefixes})
      .value();
}

TEST_CASE("retaining: settings are read, written, and refused with what is wrong") {
  const auto settings = ParseRetain("snapkv:keep=0.25,shape=adaptive,margin=16,recent=40,sinks=2");
  REQUIRE(settings);
  CHECK(settings->options.policy == RetentionPolicy::kSnapKv);
  CHECK(settings->options.shape == BudgetShape::kAdaptive);
  CHECK(settings->share == 0.25);
  CHECK(settings->margin_tokens == 16);
  CHECK(settings->options.recent_tokens == 40);
  CHECK(settings->options.sink_tokens == 2);
  for (const char* spec : {"snapkv:keep=0.25,shape=adaptive,margin=16", "window:tokens=96,margin=7", "full", "kvzip"}) {
    CHECK(ParseRetain(RetainSpec(ParseRetain(spec).value())).value() == ParseRetain(spec).value());
  }
  CHECK(RetainSpec(ParseRetain("snapkv").value()) == "snapkv:keep=0.5,shape=uniform,recent=64,sinks=4");
  CHECK_FALSE(ParseRetain("full")->is_on());
  CHECK(ParseRetain("kvzip:keep=0.5")->options.shape == BudgetShape::kGlobal);
  CHECK(ParseRetain("kvzip:keep=0.5,shape=uniform")->options.shape == BudgetShape::kUniform);
  CHECK(ParseRetain("h2o:keep=0.5")->options.shape == BudgetShape::kUniform);
  const std::pair<const char*, const char*> wrong[] = {{"best", "snapkv"},
                                                       {"snapkv:keep=2", "0.01 to 1"},
                                                       {"snapkv:tokens=0", "whole number"},
                                                       {"snapkv:size=3", "margin"},
                                                       {"snapkv:keep", "key=value"},
                                                       {"knorm:shape=adaptive", "compared"},
                                                       {"snapkv:margin=", "margin"},
                                                       {"snapkv:keep=0.5x", "keep must"},
                                                       {"window:shape=round", "uniform"},
                                                       {"full:keep=0.5", "keeps every"},
                                                       {"window:shape=pyramid", "nothing"}};
  for (const auto& [spec, says] : wrong) {
    CAPTURE(spec);
    const auto refused = ParseRetain(spec);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == ErrorCode::kInvalidArgument);
    CHECK(refused.error().message.find(says) != std::string::npos);
  }
}

// The likeliest tokens after a prompt of which only the first and the last tokens are kept, step by step.
std::vector<Token> ByHand(TinyEngine& engine, Cache& cache, const std::vector<Token>& prompt, int64_t num_to_hold,
                          int64_t margin, int num_output) {
  Sequence sequence = cache.Begin();
  std::vector<Token> output, step = prompt;
  double held = 0;
  while (std::ssize(output) < num_output) {
    for (size_t begin = 0; begin < step.size(); begin += 128) {
      const auto piece = std::span(step).subspan(begin, std::min<size_t>(128, step.size() - begin));
      const BatchItem item{.sequence = &sequence, .tokens = piece};
      const auto logits = engine.model->Forward(std::span(&item, 1));
      REQUIRE(logits);
      if (begin + piece.size() == step.size())
        output.push_back(Token(std::ranges::max_element(*logits) - logits->begin()));
    }
    const bool is_prompt = output.size() == 1;
    if (is_prompt || sequence.num_held_tokens() >= std::max(double(num_to_hold), held) + double(margin)) {
      REQUIRE(sequence.Retain({.policy = RetentionPolicy::kWindow, .recent_tokens = 32}, num_to_hold));
      held = sequence.num_held_tokens();
    }
    step = {output.back()};
  }
  return output;
}

TEST_CASE("retaining: tokens go after the prompt and whenever the answer has grown by the margin") {
  TinyEngine engine(kTiny);
  const auto cache = OpenCache(*engine.model), other_cache = OpenCache(*engine.model);
  Generator generator(engine.model.get(), engine.tokenizer, cache.get());
  const std::vector<Token> prompt = SomeTokens(300, 1);
  const GenerateOptions options = Options("window:tokens=160,margin=32,recent=32", 120);
  const auto generation = generator.Generate(prompt, options, {});
  REQUIRE(generation);
  CHECK(generation->tokens == ByHand(engine, *other_cache, prompt, 160, 32, 120));
  CHECK(generation->retained.num_times == 4);
  CHECK(generation->retained.held_tokens < 160 + 32);  // whole blocks
  CHECK(generator.sequence().num_held_tokens() < 160 + 32 + 32);
  CHECK(generator.sequence().num_tokens() == 419);

  // Without a margin of one's own it is 128 for so few.
  Generator other_generator(engine.model.get(), engine.tokenizer, other_cache.get());
  const auto by_default = other_generator.Generate(prompt, Options("window:tokens=160,recent=32", 140), {});
  REQUIRE(by_default);
  CHECK(by_default->retained.num_times == 2);
  CHECK(MarginTokens(1024) == 256);

  // The next turn goes on with what is held.
  std::vector<Token> longer = prompt;
  longer.insert(longer.end(), generation->tokens.begin(), generation->tokens.end());
  const std::vector<Token> question = SomeTokens(20, 2);
  longer.insert(longer.end(), question.begin(), question.end());
  const auto next = generator.Generate(longer, options, {});
  REQUIRE(next);
  CHECK(next->stats.reused_tokens == 419);
  CHECK(generator.sequence().num_held_tokens() < 160 + 32 + 32);
  // One that parts from it in the middle is computed anew.
  longer[100] = longer[100] == 1 ? 2 : 1;
  const auto parted = generator.Generate(longer, options, {});
  REQUIRE(parted);
  CHECK(parted->stats.reused_tokens == 0);
  CHECK(parted->retained.num_times > 0);
}

TEST_CASE("retaining: every policy works in a generation, and sees what it has to see") {
  TinyEngine engine(kTiny);
  const auto cache = OpenCache(*engine.model, true);
  const std::vector<Token> prompt = SomeTokens(300, 1);
  Token first_token = -1;
  for (const RetentionPolicy policy : kAllRetentionPolicies) {
    CAPTURE(RetentionPolicyName(policy));
    const bool is_on = policy != RetentionPolicy::kFull;
    Generator generator(engine.model.get(), engine.tokenizer, cache.get());
    const std::string spec = RetentionPolicyName(policy) + std::string(is_on ? ":keep=0.5,margin=32" : "");
    const auto generation = generator.Generate(prompt, Options(spec, 40), {});
    REQUIRE_MESSAGE(generation, (generation ? "" : generation.error().message));
    if (policy == kAllRetentionPolicies[0]) first_token = generation->tokens[0];
    CHECK(generation->tokens[0] == first_token);  // it depends on the whole prompt, whatever is given up then
    CHECK(generation->retained.num_times == (is_on ? 2 : 0));
    CHECK(generator.sequence().num_held_tokens() <= (is_on ? 182 : 339));
    if (policy == RetentionPolicy::kH2o) CHECK(generation->stats.reused_tokens == 0);
    if (policy == RetentionPolicy::kSnapKv) CHECK(generation->stats.reused_tokens == 236);
    if (policy == RetentionPolicy::kKnorm) CHECK(generation->stats.reused_tokens == 299);
  }
}

TEST_CASE(
    "retaining: kvzip repeats a text when it is long enough, in little memory, and not when nobody waits for it") {
  TinyEngine engine(kTiny);
  const auto cache = OpenCache(*engine.model);
  {
    // The prompt fits; the answer outgrows what is to be held.
    Generator generator(engine.model.get(), engine.tokenizer, cache.get());
    const auto generation =
        generator.Generate(SomeTokens(60, 1), Options("kvzip:tokens=100,margin=16,recent=32", 120), {});
    REQUIRE_MESSAGE(generation, (generation ? "" : generation.error().message));
    CHECK(generation->retained.num_times > 1);
    CHECK(generator.sequence().num_held_tokens() < 150);
    // Until then it is the answer that nothing was given up for, the token of that step included.
    Generator whole(engine.model.get(), engine.tokenizer, cache.get());
    const auto full = whole.Generate(SomeTokens(60, 1), Options("full", 57), {});
    REQUIRE(full);
    CHECK(std::ranges::equal(full->tokens, std::span(generation->tokens).first(57)));
  }
  {
    // Room for 400 tokens and what is kept of them, but not for 400 tokens more.
    const size_t block_bytes = KvBlockBytes(engine.model->geometry(), Form{});
    const auto small = OpenCache(*engine.model, false, 19 * block_bytes);
    Generator generator(engine.model.get(), engine.tokenizer, small.get());
    const std::vector<Token> prompt = SomeTokens(400, 2);
    const auto generation = generator.Generate(prompt, Options("kvzip:keep=0.3,recent=32", 20), {});
    REQUIRE_MESSAGE(generation, (generation ? "" : generation.error().message));
    CHECK(generation->retained.num_times == 1);
    // And for none at all: nothing is given up.
    const auto tight = OpenCache(*engine.model, false, 14 * block_bytes);
    Generator other(engine.model.get(), engine.tokenizer, tight.get());
    const auto whole = other.Generate(prompt, Options("kvzip:keep=0.3,recent=32", 20), {});
    REQUIRE_MESSAGE(whole, (whole ? "" : whole.error().message));
    CHECK(whole->retained.num_times == 0);
    CHECK(whole->tokens.size() == 20);
  }
  {
    std::atomic<bool> is_cancelled = false;
    GenerateEvents events;
    events.cancel = &is_cancelled;
    events.on_prefill = [&](int64_t done, int64_t all) { is_cancelled = done == all; };
    Generator generator(engine.model.get(), engine.tokenizer, cache.get());
    const auto generation = generator.Generate(SomeTokens(400, 3), Options("kvzip:keep=0.3", 20), events);
    REQUIRE(generation);
    CHECK(generation->finish == FinishReason::kCancelled);
    CHECK(generation->retained.num_times == 0);
  }
}

TEST_CASE(
    "retaining: where the model's context has no room for kvzip's second pass, that is said before anything is "
    "computed") {
  TinyEngine engine(kTiny);
  const auto cache = OpenCache(*engine.model);
  Generator generator(engine.model.get(), engine.tokenizer, cache.get());
  const auto refused = generator.Generate(SomeTokens(950, 1), Options("kvzip:keep=0.5", 10), {});
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == ErrorCode::kOutOfRange);
  CHECK(refused.error().message.find("kvzip is for shorter texts") != std::string::npos);
  CHECK(generator.sequence().num_tokens() == 0);
  Scheduler scheduler(engine.model.get(), engine.tokenizer, cache.get(), {});
  const auto id = scheduler.Submit({.prompt = SomeTokens(950, 1), .options = Options("kvzip:keep=0.5", 10)});
  REQUIRE_FALSE(id);
  CHECK(id.error().code == ErrorCode::kOutOfRange);
  // An answer that outgrows both what is to be held and the room goes on.
  const auto goes_on = generator.Generate(SomeTokens(900, 1), Options("kvzip:tokens=920,margin=16", 80), {});
  REQUIRE_MESSAGE(goes_on, (goes_on ? "" : goes_on.error().message));
  CHECK(goes_on->tokens.size() == 80);
  CHECK(goes_on->retained.num_times == 0);
}

TEST_CASE("retaining: the scheduler gives up the same tokens, also of requests that it has to park") {
  TinyEngine engine(kTiny);
  for (const size_t budget_blocks : {0, 12}) {
    CAPTURE(budget_blocks);
    const size_t block_bytes = KvBlockBytes(engine.model->geometry(), Form{});
    const auto cache = OpenCache(*engine.model, true, budget_blocks * block_bytes);
    Scheduler scheduler(engine.model.get(), engine.tokenizer, cache.get(), {});
    std::vector<Request> requests;
    for (unsigned i = 0; i < 3; ++i) {
      requests.push_back({.prompt = SomeTokens(64 + i, 5 + i), .options = Options("snapkv:tokens=120,margin=20", 150)});
      if (i == 2) requests.back().options.retain = {};
      REQUIRE(scheduler.Submit(requests.back()));
    }
    std::vector<Finished> finished;
    for (int i = 0; i < 3000 && scheduler.has_work(); ++i) {
      for (Finished& each : scheduler.Step()) finished.push_back(std::move(each));
    }
    REQUIRE(finished.size() == 3);
    for (const Finished& each : finished) {
      REQUIRE(each.generation);
      CHECK(each.generation->tokens.size() == 150);
      CHECK((each.generation->retained.num_times > 0) == (each.id != 3));
      if (budget_blocks > 0) continue;  // one that was parked has chosen its tokens anew
      const auto alone_cache = OpenCache(*engine.model);
      const Request& request = requests[each.id - 1];
      const auto alone = Generator(engine.model.get(), engine.tokenizer, alone_cache.get())
                             .Generate(request.prompt, request.options, {});
      REQUIRE(alone);
      CHECK(each.generation->tokens == alone->tokens);
      CHECK(std::abs(each.generation->retained.num_times - alone->retained.num_times) <= 1);  // after the last token
    }
    CHECK((scheduler.stats().num_parked > 0) == (budget_blocks > 0));
  }
}

}  // namespace
}  // namespace kvist::retaining_test
