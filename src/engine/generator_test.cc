// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "engine/generator.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "engine/tiny_engine.h"
#include "kvist/kv_size.h"

namespace kvist::generator_test {
namespace {

struct Rig : TinyEngine {
  explicit Rig(const TinyModel& tiny, size_t budget_bytes = 0, std::optional<Token> end = {}) : TinyEngine(tiny, end) {
    auto store = Cache::Open(model->geometry(), {.form = {}, .budget_bytes = budget_bytes});
    REQUIRE(store);
    cache = *std::move(store);
    Begin();
  }
  void Begin() { generator.emplace(model.get(), tokenizer, cache.get()); }

  Generation Generate(const std::vector<Token>& prompt, const GenerateOptions& options,
                      const GenerateEvents& events = {}) {
    auto generation = generator->Generate(prompt, options, events);
    REQUIRE(generation);
    return *std::move(generation);
  }
  // The same without anything to reuse.
  Generation GenerateAnew(const std::vector<Token>& prompt, const GenerateOptions& options) {
    Begin();
    return Generate(prompt, options);
  }

  std::unique_ptr<Cache> cache;
  std::optional<Generator> generator;
};

GenerateOptions Options(int64_t max_tokens) {
  return {.max_tokens = max_tokens, .sampler = {}, .stops = {}};
}

TEST_CASE("a generation counts and shows what it does") {
  Rig rig({});
  std::string shown;
  GenerateEvents events;
  events.on_text = [&](std::string_view text) {
    shown += text;
    return true;
  };
  const Generation generation = rig.Generate(SomeTokens(40, 1), Options(5), events);
  CHECK(generation.tokens.size() == 5);
  CHECK(generation.text.size() == 5);
  CHECK(generation.text == rig.tokenizer->Decode(generation.tokens));
  CHECK(shown == generation.text);
  CHECK(generation.finish == FinishReason::kLength);
  CHECK(generation.stats.prompt_tokens == 40);
  CHECK(generation.stats.reused_tokens == 0);
  CHECK(generation.stats.computed_tokens == 40);
  CHECK(generation.stats.output_tokens == 5);
  CHECK(generation.stats.decode_steps == 4);  // the prompt gives the first
  CHECK(rig.generator->sequence().num_tokens() == 44);
}

TEST_CASE("long prompts are computed in pieces that end at multiples") {
  Rig rig({.context = 2000});
  std::vector<int64_t> begins;
  GenerateEvents events;
  events.on_prefill = [&](int64_t done, int64_t all) {
    CHECK(all == 400);
    begins.push_back(done);
  };
  rig.Generate(SomeTokens(100, 1), Options(0));
  const std::vector<Token> prompt = Join(SomeTokens(100, 1), SomeTokens(300, 2));
  const Generation warm = rig.Generate(prompt, Options(4), events);
  CHECK(begins == std::vector<int64_t>{100, 128, 256, 384, 400});
  CHECK(warm.stats.reused_tokens == 100);
  CHECK(warm.tokens == rig.GenerateAnew(prompt, Options(4)).tokens);
}

TEST_CASE("the next turn computes only what is new") {
  Rig rig({});
  const std::vector<Token> first = SomeTokens(20, 1);
  const Generation answer = rig.Generate(first, Options(10));
  const std::vector<Token> second = Join(Join(first, answer.tokens), SomeTokens(7, 2));
  const Generation next = rig.Generate(second, Options(10));
  CHECK(next.stats.reused_tokens == 29);  // the last token of an answer was never computed
  CHECK(next.stats.computed_tokens == 8);
  CHECK(next.tokens == rig.GenerateAnew(second, Options(10)).tokens);
}

TEST_CASE("a prompt that parts from the last one keeps what they share") {
  Rig rig({});
  rig.Generate(SomeTokens(50, 1), Options(10));
  std::vector<Token> other = SomeTokens(50, 1);
  other[33] = other[33] % 49 + 1;
  const Generation next = rig.Generate(other, Options(10));
  CHECK(next.stats.reused_tokens == 33);
  CHECK(next.tokens == rig.GenerateAnew(other, Options(10)).tokens);
  // The same prompt again: its last token is computed, for its logits.
  const Generation again = rig.Generate(other, Options(10));
  CHECK(again.stats.computed_tokens == 1);
  CHECK(again.tokens == next.tokens);
}

TEST_CASE("what follows where two prompts part is there for others, in a quantised form, too") {
  const TinyEngine tiny({});
  CacheOptions options{.form = ParseForm("q4").value()};
  options.sealing = {.recent_tokens = 16, .sink_tokens = 0};
  options.shares_prefixes = true;
  const auto cache = Cache::Open(tiny.model->geometry(), options).value();
  const std::vector<Token> first = SomeTokens(150, 1);
  std::vector<Token> second = SomeTokens(190, 1);
  second[41] = second[41] % 49 + 1;  // in the middle of a sealed block
  Generator generator(tiny.model.get(), tiny.tokenizer, cache.get());
  REQUIRE(generator.Generate(first, Options(2), {}));
  REQUIRE(generator.Generate(second, Options(2), {}));
  Generator another(tiny.model.get(), tiny.tokenizer, cache.get());
  const auto generation = another.Generate(second, Options(2), {});
  REQUIRE(generation);
  CHECK(generation->reuse.shared_tokens >= 160);
}

TEST_CASE("layers with a sliding window that have dropped too much begin anew") {
  Rig rig({.architecture = "gemma3", .num_layers = 7, .window = 8});
  rig.Generate(SomeTokens(100, 1), Options(2));
  const std::vector<Token> begin = SomeTokens(50, 1);
  const Generation next = rig.Generate(begin, Options(6));
  CHECK(next.stats.reused_tokens == 0);
  CHECK(next.tokens == rig.GenerateAnew(begin, Options(6)).tokens);
}

TEST_CASE("no tokens wanted: the prompt is computed and kept") {
  Rig rig({});
  const Generation generation = rig.Generate(SomeTokens(40, 1), Options(0));
  CHECK(generation.finish == FinishReason::kLength);
  CHECK(generation.text.empty());
  CHECK(rig.generator->sequence().num_tokens() == 40);
}

TEST_CASE("the model's own end is no part of the text") {
  GenerateOptions options = Options(30);
  options.sampler = {.temperature = 3.0F, .seed = 5};
  const std::vector<Token> tokens = Rig({}).Generate(SomeTokens(10, 1), options).tokens;
  const auto end = std::ranges::find_if(tokens, [&](Token token) { return token != tokens[0]; });
  REQUIRE(end != tokens.end());
  const Generation generation = Rig({}, 0, *end).Generate(SomeTokens(10, 1), options);
  CHECK(generation.finish == FinishReason::kEnd);
  CHECK(generation.tokens == std::vector<Token>(tokens.begin(), end));
}

TEST_CASE("a generation ends with the context") {
  Rig rig({.context = 40});
  const Generation generation = rig.Generate(SomeTokens(38, 1), Options(10));
  CHECK(generation.finish == FinishReason::kContext);
  CHECK(generation.tokens.size() == 3);  // two that are computed, and what follows them
  CHECK(rig.Generate(SomeTokens(40, 2), Options(10)).tokens.size() == 1);
  const auto longer = rig.generator->Generate(SomeTokens(41, 1), Options(10), {});
  REQUIRE_FALSE(longer);
  CHECK(longer.error().code == ErrorCode::kOutOfRange);
  CHECK(longer.error().message.find("41") != std::string::npos);
  CHECK(longer.error().message.find("40") != std::string::npos);
}

TEST_CASE("a stop string ends the text before it") {
  Rig rig({});
  GenerateOptions options = Options(30);
  options.sampler = {.temperature = 3.0F, .seed = 5};
  const std::string text = rig.GenerateAnew(SomeTokens(10, 1), options).text;
  REQUIRE(text.size() > 12);
  options.stops = {text.substr(9, 3)};
  const Generation stopped = rig.GenerateAnew(SomeTokens(10, 1), options);
  CHECK(stopped.finish == FinishReason::kStop);
  CHECK(stopped.text == text.substr(0, text.find(options.stops[0])));
}

TEST_CASE("a caller can stop a generation, and go on with it") {
  Rig rig({.context = 2000});
  const std::vector<Token> prompt = SomeTokens(700, 1);
  std::atomic<bool> cancel = false;
  GenerateEvents events;
  events.cancel = &cancel;
  events.on_prefill = [&](int64_t, int64_t) { cancel = true; };
  const Generation stopped = rig.Generate(prompt, Options(5), events);
  CHECK(stopped.finish == FinishReason::kCancelled);
  CHECK(stopped.stats.computed_tokens == 128);
  CHECK(stopped.tokens.empty());

  GenerateEvents refuse;
  refuse.on_text = [](std::string_view) { return false; };
  const Generation refused = rig.Generate(prompt, Options(5), refuse);
  CHECK(refused.finish == FinishReason::kCancelled);
  CHECK(refused.stats.reused_tokens == 128);
  CHECK(refused.tokens.size() == 1);

  CHECK(rig.Generate(prompt, Options(5)).tokens == rig.GenerateAnew(prompt, Options(5)).tokens);
}

TEST_CASE("with pages selected a generation reads less, and the next one may read all again") {
  Rig rig({.num_layers = 3, .context = 600});
  GenerateOptions selecting = Options(12);
  selecting.sequence.pages = {.num_tokens = 128, .num_dense_layers = 0};
  const std::vector<Token> prompt = SomeTokens(400, 1);
  const Generation generation = rig.Generate(prompt, selecting);

  // By hand: the prompt with everything in view, then a token at a time.
  Sequence sequence = rig.cache->Begin();
  REQUIRE(sequence.SelectPages(selecting.sequence.pages));
  std::vector<Token> step = prompt;
  std::vector<Token> tokens;
  while (tokens.size() < 12) {
    const BatchItem item{.sequence = &sequence, .tokens = step};
    const auto logits = rig.model->Forward(std::span(&item, 1));
    REQUIRE(logits);
    tokens.push_back(Token(std::ranges::max_element(*logits) - logits->begin()));
    step = {tokens.back()};
  }
  CHECK(generation.tokens == tokens);
  CHECK(rig.generator->sequence().is_approximate());
  CHECK(rig.cache->stats().page_bounds_bytes > 0);
  const PagesStats& pages = generation.stats.pages;
  CHECK(pages.num_steps == 11);
  CHECK(pages.num_selecting_steps == 11);
  // Of 401 to 411 tokens: the first block and the blocks of the last 64; no other whole one fits into 128.
  CHECK(pages.read_tokens == doctest::Approx(11 * 118));
  CHECK(pages.held_tokens == doctest::Approx(11 * 406));
  selecting.sequence.pages.num_tokens = 408;
  CHECK(rig.GenerateAnew(prompt, selecting).stats.pages.num_selecting_steps == 3);

  const Generation all = rig.GenerateAnew(prompt, Options(12));
  CHECK(all.stats.pages.num_steps == 0);
  CHECK_FALSE(rig.generator->sequence().is_approximate());
  GenerateOptions too_few = Options(12);
  too_few.sequence.pages.num_tokens = -1;
  const auto refused = rig.generator->Generate(prompt, too_few, {});
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == ErrorCode::kInvalidArgument);
}

TEST_CASE("what can't be generated is told") {
  const size_t block_bytes = KvBlockBytes(Rig({}).model->geometry(), {});
  Rig rig({}, 2 * block_bytes);
  const auto error_of = [&](const std::vector<Token>& prompt, const GenerateOptions& options) {
    const auto generation = rig.generator->Generate(prompt, options, {});
    REQUIRE_FALSE(generation);
    return generation.error();
  };
  CHECK(error_of({}, Options(5)).code == ErrorCode::kInvalidArgument);
  CHECK(error_of({1}, Options(-1)).code == ErrorCode::kInvalidArgument);
  GenerateOptions cold = Options(5);
  cold.sampler.temperature = -1;
  CHECK(error_of({1}, cold).code == ErrorCode::kInvalidArgument);

  const Error too_long = error_of(SomeTokens(65, 1), Options(1));  // three blocks
  CHECK(too_long.code == ErrorCode::kOutOfMemory);
  CHECK(too_long.message.find("65 tokens need") != std::string::npos);
  CHECK(rig.cache->stats().cumulative_bytes == 0);

  GenerateOptions options = Options(10);
  options.sampler = {.temperature = 3.0F, .seed = 2};
  CHECK(error_of(SomeTokens(62, 1), options).code == ErrorCode::kOutOfMemory);
  CHECK(rig.generator->sequence().num_tokens() == 64);  // what was computed is kept
  CHECK(rig.Generate(SomeTokens(62, 1), Options(1)).stats.reused_tokens == 61);
}

}  // namespace
}  // namespace kvist::generator_test
