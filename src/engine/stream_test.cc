// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "engine/stream.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/generator.h"
#include "engine/scheduler.h"
#include "engine/tiny_engine.h"

namespace kvist::stream_test {
namespace {

constexpr StreamOptions kOptions{.window_tokens = 128, .overlap_tokens = 32, .sink_tokens = 4};

std::span<const float> Forward(Model& model, Sequence& sequence, std::span<const Token> tokens) {
  const BatchItem item{.sequence = &sequence, .tokens = tokens};
  const auto logits = model.Forward(std::span(&item, 1));
  REQUIRE(logits);
  return *logits;
}

TEST_CASE("stream: a text without end stays within its window and its memory, and every token is there once") {
  TinyEngine engine({.context = 128});
  for (const int64_t num_sinks : {0, 4}) {
    auto cache = Cache::Open(engine.model->geometry(), {}).value();
    StreamOptions options = kOptions;
    options.sink_tokens = num_sinks;
    REQUIRE(options.Validate(engine.model->geometry(), 128));
    Stream stream(options);
    Sequence sequence = cache->Begin();
    const std::vector<Token> text = SomeTokens(5000, 3);
    size_t most_bytes = 0;
    for (size_t begin = 0; begin < text.size();) {
      const size_t count = std::min(text.size() - begin, 1 + begin % 50);
      REQUIRE(stream.MakeRoom(int64_t(count), sequence));
      Forward(*engine.model, sequence, std::span(text).subspan(begin, count));
      begin += count;
      REQUIRE(sequence.num_tokens() <= 128);
      most_bytes = std::max(most_bytes, cache->stats().live_bytes);
    }
    CHECK(stream.full_context(sequence) == text);
    CHECK(stream.num_retired_tokens() + sequence.num_tokens() == 5000);
    CHECK(stream.num_slides() > 5000 / 97);
    // The window's blocks, one at either seam, and one that a step begins.
    CHECK(most_bytes <= (128 / 32 + 3) * cache->stats().live_bytes / cache->stats().num_live_blocks);
    CHECK(cache->stats().copied_bytes <= size_t(stream.num_slides()) * most_bytes);
  }
}

TEST_CASE("stream: after a slide the model sees the first and the last tokens, at positions without a gap") {
  TinyEngine engine({.context = 300});
  auto cache = Cache::Open(engine.model->geometry(), {}).value();
  const std::vector<Token> text = SomeTokens(150, 3);
  Sequence sequence = cache->Begin(), by_hand = cache->Begin();
  Stream stream(kOptions);
  Forward(*engine.model, sequence, std::span(text).first(120));
  REQUIRE(stream.MakeRoom(30, sequence));
  CHECK(sequence.num_tokens() == 36);
  Forward(*engine.model, by_hand, std::span(text).first(120));
  REQUIRE(by_hand.Remove(4, 88));
  const auto rest = std::span(text).subspan(120);
  const auto logits = Forward(*engine.model, sequence, rest);
  const std::vector<float> of_stream(logits.begin(), logits.end());
  CHECK(std::ranges::equal(of_stream, Forward(*engine.model, by_hand, rest)));
}

TEST_CASE("stream: a generation goes on past the model's context, and the next turn goes on from there") {
  TinyEngine engine({.context = 128});
  auto cache = Cache::Open(engine.model->geometry(), {.form = {}, .shares_prefixes = true}).value();
  Generator generator(engine.model.get(), engine.tokenizer, cache.get());
  GenerateOptions options{.max_tokens = 400, .sampler = {}, .stops = {}};
  const std::vector<Token> prompt = SomeTokens(300, 4);
  const auto refused = generator.Generate(prompt, options, {});
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == ErrorCode::kOutOfRange);
  options.stream = kOptions;
  const auto generation = generator.Generate(prompt, options, {});
  REQUIRE(generation);
  CHECK(generation->tokens.size() == 400);
  CHECK(generation->finish == FinishReason::kLength);
  CHECK(generator.sequence().num_tokens() <= 128);
  CHECK(generation->stream->num_slides > (699 - 128) / 92);
  CHECK(generation->stream->num_retired_tokens == 699 - generator.sequence().num_tokens());

  std::vector<Token> text = prompt;
  text.insert(text.end(), generation->tokens.begin(), generation->tokens.end());
  text.push_back(7);
  const auto next = generator.Generate(text, options, {});
  REQUIRE(next);
  CHECK(next->stats.reused_tokens == 699);
  CHECK(next->stats.computed_tokens == 2);
  // The same text at once, in the same steps where it counts: computed anew because another window is asked for.
  options.stream->overlap_tokens = 40;
  const auto other = generator.Generate(text, options, {});
  REQUIRE(other);
  CHECK(other->stats.reused_tokens <= 128);  // an idle prefix, of before the first slide
  CHECK(other->tokens.size() == 400);
}

TEST_CASE("stream: what can't be done is refused") {
  TinyEngine engine({.context = 128});
  const CacheGeometry geometry = engine.model->geometry();
  for (const StreamOptions& wrong :
       {StreamOptions{128, 100, 4}, StreamOptions{128, 0, 4}, StreamOptions{128, 32, -1}, StreamOptions{129, 32, 4}}) {
    CHECK(wrong.Validate(geometry, 128).error().code == ErrorCode::kInvalidArgument);
  }
  CacheGeometry windowed = geometry;
  windowed.layers[0].window = 40;
  CHECK(kOptions.Validate(windowed, 128).error().message.find("40") != std::string::npos);
  CHECK(StreamOptions{128, 40, 4}.Validate(windowed, 128));
  CHECK(StreamOptions{128, 32, 0}.Validate(windowed, 128));

  CHECK(ParseStream("").value() == StreamOptions{});
  CHECK(ParseStream("window=2048,sinks=0").value() == StreamOptions{2048, 128, 0});
  CHECK(ParseStream(StreamSpec(kOptions)).value() == kOptions);
  for (const char* spec : {"window", "size=3", "window=-1", "overlap=many"}) CHECK_FALSE(ParseStream(spec));

  auto cache = Cache::Open(geometry, {.form = {}, .shares_prefixes = true}).value();
  GenerateOptions options{.max_tokens = 4, .sampler = {}, .stops = {}};
  options.stream = kOptions;
  options.retain = ParseRetain("knorm").value();
  Generator generator(engine.model.get(), engine.tokenizer, cache.get());
  CHECK(generator.Generate(SomeTokens(3, 1), options, {}).error().code == ErrorCode::kInvalidArgument);
  Scheduler scheduler(engine.model.get(), engine.tokenizer, cache.get(), {});
  options.retain = {};
  CHECK(scheduler.Submit({.prompt = {1, 2, 3}, .options = options}).error().code == ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace kvist::stream_test
