// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "bench/scenario/tiers.h"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <map>
#include <utility>

#include "bench/micro/median.h"
#include "bench/scenario/fill.h"
#include "bench/scenario/spilled.h"
#include "engine/generator.h"

namespace kvist {
namespace {

using Clock = std::chrono::steady_clock;

double MillisecondsSince(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

class TierContest {
 public:
  TierContest(Model& model, const TierBench& bench, const std::function<bool(int64_t, int64_t)>& progress)
      : model_(model), bench_(bench), progress_(progress), fill_(model.geometry()) {
    num_runs_ = std::ssize(bench.forms) * std::ssize(bench.tokens) * (1 + std::ssize(bench.tiers)) * bench.num_rounds;
    seed_ = static_cast<uint64_t>(Clock::now().time_since_epoch().count());
  }

  Result<std::vector<TierTiming>> Run() {
    for (const Form form : bench_.forms) {
      for (const int64_t tokens : bench_.tokens) {
        if (tokens < model_.context_length()) continue;
        return Fail(ErrorCode::kOutOfRange, "a prefix of " + std::to_string(tokens) +
                                                " tokens leaves no room for the next; the model's context holds " +
                                                std::to_string(model_.context_length()));
      }
      for (const int64_t tokens : bench_.tokens) {
        KVIST_TRY_VOID(MeasureMemory(form, tokens));
        for (const std::string& tier : bench_.tiers) KVIST_TRY_VOID(MeasureTier(form, tokens, tier));
        KVIST_TRY_VOID(MeasureSpilledSequence(form, tokens));
      }
      KVIST_TRY_VOID(MeasureChats(form, std::ranges::min(bench_.tokens)));
      if (bench_.measures_prefill) KVIST_TRY_VOID(MeasurePrefill(form));
    }
    return std::move(timings_);
  }

 private:
  Result<std::unique_ptr<Cache>> OpenCache(Form form, std::vector<std::string> tiers) const {
    CacheOptions options{.form = form};
    options.shares_prefixes = true;
    options.tiers = std::move(tiers);
    options.model = bench_.identity;
    return Cache::Open(model_.geometry(), options);
  }

  // Tokens that no earlier run has stored.
  std::vector<Token> NewTokens(int64_t num_tokens) {
    std::vector<Token> tokens;
    for (int64_t i = 0; i < num_tokens; ++i) {
      seed_ = seed_ * 6364136223846793005u + 1442695040888963407u;
      tokens.push_back(static_cast<Token>((seed_ >> 33) % static_cast<uint64_t>(model_.num_vocabulary())));
    }
    return tokens;
  }

  Status KeepGoing() const {
    if (progress_(num_done_, num_runs_)) return {};
    return Fail(ErrorCode::kCancelled, "interrupted");
  }

  void Add(const std::string& path, Form form, int64_t tokens, const std::string& metric, std::vector<double> values) {
    timings_.push_back({path, form, tokens, metric, Median(std::move(values))});
  }

  // Stores a prefix in a sequence that ends. Returns the bytes it took.
  Result<size_t> StorePrefix(Cache& cache, std::span<const Token> tokens) {
    Sequence sequence = cache.Begin();
    KVIST_TRY_VOID(fill_.Append(sequence, tokens, 0, [this] { return KeepGoing(); }));
    return cache.stats().live_bytes;
  }

  struct Times {
    double resume_ms = 0, first_token_ms = 0;
    uint64_t loaded_bytes = 0;
    double load_s = 0;
  };
  // A new sequence takes the prefix, then the model computes its last token.
  Result<Times> Resume(Cache& cache, std::span<const Token> tokens) {
    const auto start = Clock::now();
    Sequence sequence = cache.Begin();
    const ReuseReport report = sequence.Reuse(tokens, std::ssize(tokens) - 1);
    Times times{.resume_ms = MillisecondsSince(start)};
    for (const ReuseReport::FromTier& from : report.loaded) {
      times.loaded_bytes += from.bytes;
      times.load_s += from.seconds;
    }
    if (std::ssize(tokens) - sequence.num_tokens() > cache.geometry().block_tokens) {
      return Fail(ErrorCode::kIo, "only " + std::to_string(sequence.num_tokens()) + " of " +
                                      std::to_string(tokens.size()) + " tokens came back (" +
                                      MissReasonName(report.reason) + ")");
    }
    const BatchItem item{&sequence, tokens.subspan(static_cast<size_t>(sequence.num_tokens())), LogitsWanted::kLast};
    KVIST_TRY([[maybe_unused]] const auto logits, model_.Forward(std::span(&item, 1)));
    times.first_token_ms = MillisecondsSince(start);
    return times;
  }

  Status MeasureMemory(Form form, int64_t num_tokens) {
    KVIST_TRY(const auto cache, OpenCache(form, {}));
    std::vector<double> resume_ms, first_token_ms;
    for (int round = 0; round < bench_.num_rounds + 1; ++round) {
      const std::vector<Token> tokens = NewTokens(num_tokens);
      KVIST_TRY([[maybe_unused]] const size_t bytes, StorePrefix(*cache, tokens));
      KVIST_TRY(const Times times, Resume(*cache, tokens));
      if (round == 0) continue;  // the model's memory and threads are ready after it
      resume_ms.push_back(times.resume_ms);
      first_token_ms.push_back(times.first_token_ms);
      ++num_done_;
    }
    Add("memory", form, num_tokens, "resume_ms", resume_ms);
    Add("memory", form, num_tokens, "first_token_ms", first_token_ms);
    return {};
  }

  Status MeasureTier(Form form, int64_t num_tokens, const std::string& tier) {
    const std::string path = tier.substr(0, tier.find(':'));
    std::map<std::string, std::vector<double>> metric_to_values, of_session;
    for (int round = 0; round < bench_.num_rounds; ++round) {
      const std::vector<Token> tokens = NewTokens(num_tokens);
      {
        KVIST_TRY(const auto cache, OpenCache(form, {tier}));
        KVIST_TRY(const size_t bytes, StorePrefix(*cache, tokens));
        const auto start = Clock::now();
        cache->Flush();
        metric_to_values["store_gb_per_s"].push_back(double(bytes) / 1e6 / MillisecondsSince(start));
      }
      KVIST_TRY(const auto cache, OpenCache(form, {tier}));
      KVIST_TRY(const Times times, Resume(*cache, tokens));
      metric_to_values["resume_ms"].push_back(times.resume_ms);
      metric_to_values["first_token_ms"].push_back(times.first_token_ms);
      if (times.load_s > 0) {
        metric_to_values["load_gb_per_s"].push_back(double(times.loaded_bytes) / 1e9 / times.load_s);
      }
      if (path == "disk") KVIST_TRY_VOID(MeasureSession(form, tier, num_tokens, of_session));
      ++num_done_;
    }
    for (auto& [metric, values] : metric_to_values) Add(path, form, num_tokens, metric, values);
    for (auto& [metric, values] : of_session) Add("session", form, num_tokens, metric, values);
    return {};
  }

  Status MeasureSession(Form form, const std::string& tier, int64_t num_tokens,
                        std::map<std::string, std::vector<double>>& metric_to_values) {
    const std::string name = "kvist-bench-tiers";
    {
      KVIST_TRY(const auto cache, OpenCache(form, {tier}));
      Sequence sequence = cache->Begin();
      KVIST_TRY_VOID(fill_.Append(sequence, NewTokens(num_tokens), 0, [this] { return KeepGoing(); }));
      const auto start = Clock::now();
      KVIST_TRY_VOID(cache->Save(name, sequence));
      metric_to_values["save_ms"].push_back(MillisecondsSince(start));
    }
    KVIST_TRY(const auto cache, OpenCache(form, {tier}));
    const auto start = Clock::now();
    KVIST_TRY(const ResumedSession session, cache->Resume(name));
    metric_to_values["resume_ms"].push_back(MillisecondsSince(start));
    if (session.sequence.num_tokens() != num_tokens) {
      return Fail(ErrorCode::kIo, "only " + std::to_string(session.sequence.num_tokens()) + " of " +
                                      std::to_string(num_tokens) + " tokens of the session came back");
    }
    return cache->RemoveSession(name);
  }

  // In the disk tier, if there is one, and if the sequence is long enough.
  Status MeasureSpilledSequence(Form form, int64_t num_tokens) {
    const auto disk = std::ranges::find_if(bench_.tiers, [](const auto& tier) { return tier.starts_with("disk:"); });
    if (disk == bench_.tiers.end()) return {};
    const SpilledBench spilled{.geometry = model_.geometry(),
                               .form = form,
                               .disk_tier = *disk,
                               .identity = bench_.identity,
                               .num_threads = model_.num_threads(),
                               .num_rounds = bench_.num_rounds};
    const auto timing = MeasureSpilled(spilled, NewTokens(num_tokens), [this] { return KeepGoing(); });
    if (!timing && timing.error().code == ErrorCode::kInvalidArgument) return {};
    if (!timing) return std::unexpected(timing.error());
    const auto add = [&](const char* metric, double value) { Add("spilled", form, num_tokens, metric, {value}); };
    add("tokens_per_s", timing->tokens_per_s);
    add("in_turn_tokens_per_s", timing->in_turn_tokens_per_s);
    add("memory_tokens_per_s", timing->memory_tokens_per_s);
    add("read_bytes", timing->read_bytes);
    add("wait_ms", timing->wait_ms);
    add("spilled_tokens", double(timing->spilled_tokens));
    add("budget_bytes", double(timing->budget_bytes));
    return {};
  }

  Status MeasureChats(Form form, int64_t num_prefix_tokens) {
    const std::vector<Token> prefix = NewTokens(num_prefix_tokens);
    for (const bool is_shared : {true, false}) {
      CacheOptions options{.form = form};
      options.shares_prefixes = is_shared;
      KVIST_TRY(const auto cache, Cache::Open(model_.geometry(), options));
      std::vector<Sequence> chats;
      for (int i = 0; i < bench_.num_chats; ++i) {
        std::vector<Token> tokens = prefix;
        std::ranges::copy(NewTokens(16), std::back_inserter(tokens));
        Sequence& chat = chats.emplace_back(cache->Begin());
        chat.Reuse(tokens);
        const auto rest = std::span(tokens).subspan(static_cast<size_t>(chat.num_tokens()));
        KVIST_TRY_VOID(fill_.Append(chat, rest, i, [this] { return KeepGoing(); }));
      }
      Add("chats", form, num_prefix_tokens, is_shared ? "kv_bytes" : "unshared_kv_bytes",
          {double(cache->stats().live_bytes)});
    }
    return {};
  }

  Status MeasurePrefill(Form form) {
    KVIST_TRY(const auto cache, OpenCache(form, {}));
    Sequence sequence = cache->Begin();
    std::vector<int64_t> lengths = bench_.tokens;
    std::ranges::sort(lengths);
    const std::vector<Token> tokens = NewTokens(lengths.back());
    const auto start = Clock::now();
    for (const int64_t length : lengths) {
      while (sequence.num_tokens() < length) {
        KVIST_TRY_VOID(KeepGoing());
        const int64_t begin = sequence.num_tokens(), end = Generator::PrefillStepEnd(begin, length);
        const BatchItem item{&sequence, std::span(tokens).subspan(size_t(begin), size_t(end - begin)),
                             end == length ? LogitsWanted::kLast : LogitsWanted::kNone};
        KVIST_TRY([[maybe_unused]] const auto logits, model_.Forward(std::span(&item, 1)));
      }
      Add("prefill", form, length, "prefill_ms", {MillisecondsSince(start)});
    }
    return {};
  }

  Model& model_;
  const TierBench& bench_;
  const std::function<bool(int64_t, int64_t)>& progress_;
  const RandomFill fill_;
  uint64_t seed_ = 0;
  int64_t num_runs_ = 0;
  int64_t num_done_ = 0;
  std::vector<TierTiming> timings_;
};

}  // namespace

Result<std::vector<TierTiming>> MeasureTiers(Model& model, const TierBench& bench,
                                             const std::function<bool(int64_t done, int64_t all)>& progress) {
  return TierContest(model, bench, progress).Run();
}

}  // namespace kvist
