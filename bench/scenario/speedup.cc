// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "bench/scenario/speedup.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <string_view>

namespace kvist {
namespace {

using Clock = std::chrono::steady_clock;

// The tokens one way generates, and when.
struct Timeline {
  std::vector<Token> text;          // prompt and output
  std::vector<double> elapsed_ms;   // after each output token
  std::vector<size_t> logits_hash;  // of the logits that gave it
};

class SpeedupContest {
 public:
  SpeedupContest(Model& model, Cache& cache, std::span<const Token> prompt, int num_tokens,
                 const std::function<bool(int64_t, int64_t)>& progress)
      : model_(model), cache_(cache), prompt_(prompt), num_tokens_(num_tokens), progress_(progress) {
    const auto num_prompt = static_cast<int64_t>(prompt.size());
    const int64_t num_without = num_tokens * num_prompt + int64_t{num_tokens} * (num_tokens - 1) / 2;
    all_ = num_prompt + num_tokens - 1 + num_without;
  }

  // Reads the weights once, so that the first way does not pay for what the second finds in memory.
  Status WarmUp() {
    Sequence sequence = cache_.Begin();
    KVIST_TRY_VOID(Compute(sequence, prompt_));
    return {};
  }

  Result<Timeline> WithCache() {
    Sequence sequence = cache_.Begin();
    return Generate([&](std::span<const Token> text) -> Result<std::span<const float>> {
      return Compute(sequence, text.subspan(static_cast<size_t>(sequence.num_tokens())));
    });
  }

  Result<Timeline> WithoutCache() {
    return Generate([&](std::span<const Token> text) -> Result<std::span<const float>> {
      Sequence sequence = cache_.Begin();
      return Compute(sequence, text);
    });
  }

 private:
  // Long texts in pieces that the model takes.
  Result<std::span<const float>> Compute(Sequence& sequence, std::span<const Token> tokens) {
    std::span<const float> logits;
    while (!tokens.empty()) {
      const auto piece = tokens.first(std::min<size_t>(tokens.size(), 512));
      tokens = tokens.subspan(piece.size());
      const BatchItem item{
          .sequence = &sequence, .tokens = piece, .logits = tokens.empty() ? LogitsWanted::kLast : LogitsWanted::kNone};
      KVIST_TRY(logits, model_.Forward(std::span(&item, 1)));
      num_computed_ += static_cast<int64_t>(piece.size());
    }
    return logits;
  }

  // compute(text) gives the logits of what follows.
  template <class ComputeText>
  Result<Timeline> Generate(const ComputeText& compute) {
    Timeline timeline;
    timeline.text.assign(prompt_.begin(), prompt_.end());
    double ms = 0;
    for (int i = 0; i < num_tokens_; ++i) {
      if (!progress_(num_computed_ - static_cast<int64_t>(prompt_.size()), all_)) {
        return Fail(ErrorCode::kCancelled, "interrupted");
      }
      const auto start = Clock::now();
      KVIST_TRY(const std::span<const float> logits, compute(timeline.text));
      timeline.text.push_back(static_cast<Token>(std::ranges::max_element(logits) - logits.begin()));
      ms += std::chrono::duration<double, std::milli>(Clock::now() - start).count();
      timeline.elapsed_ms.push_back(ms);
      const std::string_view bytes(reinterpret_cast<const char*>(logits.data()), logits.size_bytes());
      timeline.logits_hash.push_back(std::hash<std::string_view>()(bytes));
    }
    return timeline;
  }

  Model& model_;
  Cache& cache_;
  std::span<const Token> prompt_;
  const int num_tokens_;
  const std::function<bool(int64_t, int64_t)>& progress_;
  int64_t all_ = 0;
  int64_t num_computed_ = 0;
};

Status CheckEqual(const Timeline& with, const Timeline& without) {
  const auto different = std::ranges::mismatch(with.logits_hash, without.logits_hash).in1 - with.logits_hash.begin();
  if (different == std::ssize(with.logits_hash)) return {};
  return Fail(ErrorCode::kCorrupt, "the logits of output token " + std::to_string(different) +
                                       " differ with and without the cache; please report this");
}

}  // namespace

Result<std::vector<SpeedupPoint>> MeasureSpeedup(Model& model, Cache& cache, std::span<const Token> prompt,
                                                 std::span<const int> lengths,
                                                 const std::function<bool(int64_t, int64_t)>& progress) {
  if (prompt.empty() || lengths.empty())
    return Fail(ErrorCode::kInvalidArgument, "speedup needs a prompt and a length");
  SpeedupContest contest(model, cache, prompt, std::ranges::max(lengths), progress);
  KVIST_TRY_VOID(contest.WarmUp());
  KVIST_TRY(const Timeline with, contest.WithCache());
  KVIST_TRY(const Timeline without, contest.WithoutCache());
  KVIST_TRY_VOID(CheckEqual(with, without));
  std::vector<SpeedupPoint> points;
  for (const int length : lengths) {
    const auto last = static_cast<size_t>(length - 1);
    points.push_back({length, with.elapsed_ms[last], without.elapsed_ms[last]});
  }
  return points;
}

}  // namespace kvist
