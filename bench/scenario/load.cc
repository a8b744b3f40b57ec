// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "bench/scenario/load.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <random>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/generator.h"
#include "kvist/kv_size.h"

namespace kvist {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kStepsPerLook = 16;  // at the resident bytes

Status Check(const LoadOptions& options) {
  if (options.num_requests < 1 || options.prompt_tokens < 1 || options.output_tokens < 1) {
    return Fail(ErrorCode::kInvalidArgument, "a load needs at least one request, one token each and one of output");
  }
  if (options.shared_share >= 0 && options.shared_share <= 1) return {};
  return Fail(ErrorCode::kInvalidArgument, "the shared share of the prompts is not between 0 and 1");
}

// One load under way.
class Load {
 public:
  Load(Model& model, const std::shared_ptr<const Tokenizer>& tokenizer, Cache& cache, const LoadOptions& options)
      : model_(model),
        tokenizer_(*tokenizer),
        cache_(cache),
        options_(options),
        scheduler_(&model, tokenizer, &cache, options.scheduler),
        random_(options.seed),
        first_text_s_(static_cast<size_t>(options.num_requests)) {}

  Result<LoadResult> Run(const std::function<bool(int64_t, int64_t)>& progress) {
    const std::vector<Request> requests = MakeRequests();
    start_ = Clock::now();
    for (const Request& request : requests) KVIST_TRY_VOID(scheduler_.Submit(request));
    for (int i = 0; scheduler_.has_work(); ++i) {
      if (progress && !progress(num_ended_, options_.num_requests)) return Fail(ErrorCode::kCancelled, "interrupted");
      for (const Finished& finished : scheduler_.Step()) Note(finished);
      if (i % kStepsPerLook == 0) KVIST_TRY_VOID(LookAtMemory());
    }
    Summarise();
    return result_;
  }

 private:
  double SecondsSoFar() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

  Token AnyToken() {
    while (true) {
      const auto token = static_cast<Token>(random_() % static_cast<uint64_t>(model_.num_vocabulary()));
      if (!tokenizer_.IsEndOfGeneration(token)) return token;
    }
  }

  std::vector<Request> MakeRequests() {
    const auto num_shared = std::llround(static_cast<double>(options_.prompt_tokens) * options_.shared_share);
    std::vector<Token> shared;
    for (int64_t i = 0; i < num_shared; ++i) shared.push_back(AnyToken());
    std::vector<Request> requests;
    for (int i = 0; i < options_.num_requests; ++i) {
      Request& request = requests.emplace_back();
      request.prompt = shared;
      while (std::ssize(request.prompt) < options_.prompt_tokens) request.prompt.push_back(AnyToken());
      request.options.max_tokens = options_.output_tokens;
      request.options.sampler.temperature = 1;
      request.options.sampler.seed = random_();
      request.on_text = [this, i](std::string_view) {
        NoteFirstText(static_cast<size_t>(i));
        return true;
      };
    }
    return requests;
  }

  void NoteFirstText(size_t index) {
    if (first_text_s_[index] == 0) first_text_s_[index] = SecondsSoFar();
  }

  void Note(const Finished& finished) {
    ++num_ended_;
    if (finished.generation) {
      NoteFirstText(static_cast<size_t>(finished.id - 1));  // of one that said nothing
      result_.output_tokens += finished.generation->stats.output_tokens;
    } else {
      ++result_.num_failed;
    }
  }

  Status LookAtMemory() {
    KVIST_TRY(const size_t bytes, cache_.ResidentBytes());
    result_.peak_resident_bytes = std::max(result_.peak_resident_bytes, bytes);
    return {};
  }

  void Summarise() {
    const int64_t num_tokens = options_.prompt_tokens + options_.output_tokens;
    const size_t of_one = KvBytes(cache_.geometry(), cache_.options(), num_tokens, Generator::kPrefillTokens);
    result_.wanted_bytes = static_cast<size_t>(options_.num_requests) * of_one;
    result_.budget_bytes = cache_.options().budget_bytes;
    result_.peak_committed_bytes = cache_.stats().peak_committed_bytes;
    result_.seconds = SecondsSoFar();
    result_.output_tokens_per_s = static_cast<double>(result_.output_tokens) / result_.seconds;
    result_.scheduler = scheduler_.stats();
    std::vector<double> times = first_text_s_;
    std::erase(times, 0.0);  // failed before they said anything
    if (times.empty()) return;
    std::ranges::sort(times);
    for (const double seconds : times) result_.first_token_mean_s += seconds / static_cast<double>(times.size());
    result_.first_token_p95_s = times[(times.size() * 95 + 99) / 100 - 1];  // the least that 95 % don't exceed
  }

  Model& model_;
  const Tokenizer& tokenizer_;
  Cache& cache_;
  const LoadOptions& options_;
  Scheduler scheduler_;
  std::mt19937_64 random_;
  Clock::time_point start_;
  std::vector<double> first_text_s_;  // [request], 0: none yet
  int64_t num_ended_ = 0;
  LoadResult result_;
};

}  // namespace

Result<LoadResult> RunLoad(Model& model, const std::shared_ptr<const Tokenizer>& tokenizer, Cache& cache,
                           const LoadOptions& options, const std::function<bool(int64_t, int64_t)>& progress) {
  KVIST_TRY_VOID(Check(options));
  return Load(model, tokenizer, cache, options).Run(progress);
}

}  // namespace kvist
