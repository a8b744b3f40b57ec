// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors

// Real models: logits against those of llama.cpp (tests/golden/*.json), and against themselves when the same text is
// fed in other pieces, batches and numbers of threads.

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "model/golden.h"
#include "model/model.h"

namespace kvist::model_golden_test {
namespace {

constexpr Form kExact = {Codec::kF32, Codec::kF32};
constexpr Form kHalf = {Codec::kF16, Codec::kF16};
constexpr size_t kAnyLength = SIZE_MAX;
constexpr size_t kShort = 1000;  // all but the one long prompt

std::shared_ptr<const GgufFile> OpenFile(const std::string& name) {
  const char* folder = std::getenv("KVIST_MODELS_DIR");
  const char* home = std::getenv("HOME");
  const std::string base = folder != nullptr ? folder : std::string(home ? home : "") + "/.local/share/kvist/models";
  const std::string path = base + "/" + name + ".gguf";
  INFO("this test needs " << path << "; fetch it with: kvist model get " << name);
  REQUIRE(std::filesystem::exists(path));
  auto file = GgufFile::Open(path);
  REQUIRE_MESSAGE(file.has_value(), file.error().message);
  return *file;
}

std::unique_ptr<Model> OpenModel(const std::string& name, WeightsForm weights, int num_threads) {
  auto model = Model::Open(OpenFile(name), {.num_threads = num_threads, .weights = weights});
  REQUIRE_MESSAGE(model.has_value(), model.error().message);
  return *std::move(model);
}

std::unique_ptr<Cache> OpenCache(const Model& model, Form form) {
  auto cache = Cache::Open(model.geometry(), {.form = form, .budget_bytes = size_t{1} << 30});
  REQUIRE_MESSAGE(cache.has_value(), cache.error().message);
  return *std::move(cache);
}

Golden ReadGoldenOrFail(const std::string& name) {
  auto golden = ReadGolden(std::string(KVIST_SOURCE_DIR) + "/tests/golden/" + name + ".json");
  REQUIRE_MESSAGE(golden.has_value(), golden.error().message);
  return *std::move(golden);
}

GoldenReport Compare(const std::string& golden_name, const std::string& model_name, WeightsForm weights, Form form,
                     size_t max_prompt_tokens) {
  Golden golden = ReadGoldenOrFail(golden_name);
  std::erase_if(golden.prompts, [&](const GoldenPrompt& prompt) { return prompt.ids.size() > max_prompt_tokens; });
  const auto model = OpenModel(model_name, weights, 0);
  const auto cache = OpenCache(*model, form);
  auto tokenizer = Tokenizer::Open(OpenFile(model_name));
  REQUIRE_MESSAGE(tokenizer.has_value(), tokenizer.error().message);
  auto report = CompareGolden(golden, *model, *cache, **tokenizer);
  REQUIRE_MESSAGE(report.has_value(), report.error().message);
  MESSAGE(golden_name << ": " << report->ids_equal << " of " << report->prompts << " prompts tokenize equally, mean KL "
                      << report->kl_mean << ", worst " << report->kl_max << ", " << report->greedy_equal << " of "
                      << report->greedy_tokens << " greedy tokens equal");
  CHECK(report->ids_equal == report->prompts);
  return *report;
}

void CheckExact(const GoldenReport& report) {
  CHECK(std::abs(report.kl_mean) < 1e-5);
  CHECK(report.greedy_equal == report.greedy_tokens);
  CHECK(report.greedy_tokens > 500);
}

void CheckClose(const GoldenReport& report) {
  CHECK(std::abs(report.kl_mean) < 6e-3);
}

TEST_CASE("golden: SmolLM2, weights and cache in f32") {
  CheckExact(Compare("smollm2-f32", "smollm2", WeightsForm::kF32, kExact, kAnyLength));
}

TEST_CASE("golden: Gemma 3, weights and cache in f32") {
  CheckExact(Compare("gemma3-f32", "gemma3", WeightsForm::kF32, kExact, kShort));
}

TEST_CASE("golden: SmolLM2 as it is in the file") {
  CheckClose(Compare("smollm2", "smollm2", WeightsForm::kFile, kHalf, kShort));
}

TEST_CASE("golden: Gemma 3 as it is in the file") {
  CheckClose(Compare("gemma3", "gemma3", WeightsForm::kFile, kHalf, kShort));
}

// The first tokens of the recorded long prompt.
std::vector<Token> Text(const std::string& golden_name, size_t begin, size_t count) {
  for (const GoldenPrompt& prompt : ReadGoldenOrFail(golden_name).prompts) {
    if (prompt.ids.size() < begin + count) continue;
    const auto first = prompt.ids.begin() + static_cast<std::ptrdiff_t>(begin);
    return {first, first + static_cast<std::ptrdiff_t>(count)};
  }
  FAIL("no prompt is long enough");
  return {};
}

std::vector<float> Logits(Model& model, Cache& cache, std::span<const Token> tokens, size_t piece) {
  Sequence sequence = cache.Begin();
  std::vector<float> all;
  for (size_t begin = 0; begin < tokens.size(); begin += piece) {
    const BatchItem item{&sequence, tokens.subspan(begin, std::min(piece, tokens.size() - begin)), LogitsWanted::kAll};
    const auto logits = model.Forward({&item, 1});
    REQUIRE_MESSAGE(logits.has_value(), logits.error().message);
    all.insert(all.end(), logits->begin(), logits->end());
  }
  return all;
}

bool SameBits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

// One of four sequences that advance together, in pieces of unequal size.
std::vector<float> LogitsInBatch(Model& model, Cache& cache, std::span<const Token> tokens,
                                 std::span<const Token> other, size_t piece) {
  std::vector<Sequence> sequences;
  for (int i = 0; i < 4; ++i) sequences.push_back(cache.Begin());
  std::vector<float> all;
  size_t other_begin = 0;
  for (size_t begin = 0; begin < tokens.size(); begin += piece) {
    const auto mine = tokens.subspan(begin, std::min(piece, tokens.size() - begin));
    const std::vector<BatchItem> batch = {{&sequences[0], other.subspan(other_begin, 5), LogitsWanted::kLast},
                                          {&sequences[1], other.subspan(other_begin + 1, 1), LogitsWanted::kNone},
                                          {&sequences[2], mine, LogitsWanted::kAll},
                                          {&sequences[3], other.subspan(other_begin + 2, 3), LogitsWanted::kLast}};
    other_begin += 5;
    const auto logits = model.Forward(batch);
    REQUIRE_MESSAGE(logits.has_value(), logits.error().message);
    const auto row = static_cast<size_t>(model.num_vocabulary());
    const auto wanted = logits->subspan(row, mine.size() * row);
    all.insert(all.end(), wanted.begin(), wanted.end());
  }
  return all;
}

void CheckInvariance(const std::string& golden_name, const std::string& model_name, WeightsForm weights, Form form,
                     size_t num_tokens) {
  CAPTURE(model_name);
  CAPTURE(FormName(form));
  const std::vector<Token> tokens = Text(golden_name, 0, num_tokens);
  const std::vector<Token> other = Text(golden_name, 1000, 200);
  const auto two = OpenModel(model_name, weights, 2);
  const auto cache = OpenCache(*two, form);
  const std::vector<float> expected = Logits(*two, *cache, tokens, num_tokens);
  for (const size_t piece : {size_t{1}, size_t{7}, size_t{64}}) {
    CAPTURE(piece);
    CHECK(SameBits(Logits(*two, *cache, tokens, piece), expected));
  }
  CHECK(SameBits(LogitsInBatch(*two, *cache, tokens, other, 64), expected));
  CHECK(SameBits(LogitsInBatch(*two, *cache, tokens, other, 7), expected));
  const auto one = OpenModel(model_name, weights, 1);
  const auto one_cache = OpenCache(*one, form);
  CHECK(SameBits(Logits(*one, *one_cache, tokens, num_tokens), expected));
  CHECK(SameBits(Logits(*one, *one_cache, tokens, 64), expected));
}

TEST_CASE("warm equals cold: SmolLM2, f16 and f32 cache") {
  CheckInvariance("smollm2", "smollm2", WeightsForm::kFile, kHalf, 200);
  CheckInvariance("smollm2", "smollm2", WeightsForm::kFile, kExact, 66);
}

TEST_CASE("warm equals cold: SmolLM2, f32 weights") {
  CheckInvariance("smollm2", "smollm2", WeightsForm::kF32, kExact, 66);
}

TEST_CASE("warm equals cold: Gemma 3") {
  CheckInvariance("gemma3", "gemma3", WeightsForm::kFile, kHalf, 66);
}

}  // namespace
}  // namespace kvist::model_golden_test
