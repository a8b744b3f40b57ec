// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "engine/stream_quality.h"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "engine/quality.h"
#include "engine/tiny_engine.h"

namespace kvist::stream_quality_test {
namespace {

constexpr Form kF32{Codec::kF32, Codec::kF32};
constexpr StreamOptions kStream{.window_tokens = 128, .overlap_tokens = 32, .sink_tokens = 4};

double Loss(Model& model, Sequence& sequence, Token token, Token next) {
  const BatchItem item{.sequence = &sequence, .tokens = std::span(&token, 1)};
  const auto logits = model.Forward(std::span(&item, 1));
  REQUIRE(logits);
  return LogSumExp(*logits) - double{(*logits)[size_t(next)]};
}

TEST_CASE("stream quality: each token's loss is what one token at a time gives, in the part that it is in") {
  TinyEngine engine({.context = 128});
  const std::vector<Token> text = SomeTokens(401, 3);
  const std::vector<StreamCase> cases = {{kF32, kStream, false}, {kF32, kStream, true}};
  const auto qualities = MeasureStreams(*engine.model, text, cases, {.num_parts = 4, .cache = {}, .bos = Token{7}}, {});
  REQUIRE(qualities);
  REQUIRE(qualities->size() == 2);

  auto cache = Cache::Open(engine.model->geometry(), {.form = kF32}).value();
  for (const StreamQuality& quality : *qualities) {
    Stream stream(kStream);
    Sequence sequence = cache->Begin();
    std::vector<double> part_losses(4);
    int64_t num_slides = 0;
    for (size_t i = 0; i + 1 < text.size(); ++i) {
      if (sequence.num_tokens() == 128) {
        ++num_slides;
        if (quality.what.recomputes) {
          sequence = cache->Begin();
          Loss(*engine.model, sequence, 7, 0);
          for (size_t j = i - 32; j < i; ++j) Loss(*engine.model, sequence, text[j], 0);
        } else {
          REQUIRE(stream.MakeRoom(1, sequence));
        }
      }
      part_losses[i / 100] += Loss(*engine.model, sequence, text[i], text[i + 1]);
    }
    REQUIRE(quality.perplexities.size() == 4);
    double all = 0;
    for (size_t part = 0; part < 4; ++part) {
      CHECK(quality.perplexities[part] == doctest::Approx(std::exp(part_losses[part] / 100)));
      all += part_losses[part];
    }
    CHECK(quality.perplexity == doctest::Approx(std::exp(all / 400)));
    CHECK(quality.num_slides == num_slides);
    CHECK(quality.num_recomputed_tokens == (quality.what.recomputes ? num_slides * 33 : 0));
    CHECK(quality.peak_live_bytes > 0);
    CHECK(quality.seconds > 0);
  }
  CHECK((*qualities)[0].perplexity != (*qualities)[1].perplexity);
}

TEST_CASE("stream quality: memory is that of a window, however long the text is") {
  TinyEngine engine({.context = 128});
  const StreamCase what{kF32, kStream, false};
  const auto peak = [&](int num_tokens) {
    const auto qualities = MeasureStreams(*engine.model, SomeTokens(num_tokens, 5), std::span(&what, 1), {}, {});
    REQUIRE(qualities);
    return qualities->front().peak_live_bytes;
  };
  CHECK(peak(3000) == peak(1500));
}

TEST_CASE("stream quality: what can't be measured is refused, and an interruption ends it") {
  TinyEngine engine({.context = 128});
  const std::vector<Token> text = SomeTokens(300, 3);
  const StreamCase what{kF32, kStream, false};
  const StreamCase too_long{kF32, {.window_tokens = 256, .overlap_tokens = 32, .sink_tokens = 4}, false};
  const auto error = [&](std::span<const StreamCase> cases, int num_parts, size_t num_tokens) {
    const auto qualities = MeasureStreams(*engine.model, std::span(text).first(num_tokens), cases,
                                          {.num_parts = num_parts, .cache = {}, .bos = {}}, {});
    REQUIRE_FALSE(qualities);
    CHECK(qualities.error().code == ErrorCode::kInvalidArgument);
    return qualities.error().message;
  };
  CHECK(error({}, 2, 300).find("no stream") != std::string::npos);
  CHECK(error(std::span(&what, 1), 0, 300).find("0 parts") != std::string::npos);
  CHECK(error(std::span(&what, 1), 10, 19).find("19 tokens in 10 parts") != std::string::npos);
  CHECK(error(std::span(&too_long, 1), 2, 300).find("the model's context has 128") != std::string::npos);

  const auto stopped =
      MeasureStreams(*engine.model, text, std::span(&what, 1), {}, [](int64_t done, int64_t) { return done < 200; });
  REQUIRE_FALSE(stopped);
  CHECK(stopped.error().code == ErrorCode::kCancelled);
}

}  // namespace
}  // namespace kvist::stream_quality_test
