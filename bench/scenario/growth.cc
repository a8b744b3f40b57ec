// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "bench/scenario/growth.h"

#include <algorithm>
#include <chrono>
#include <memory>

#include "bench/scenario/article_caches.h"
#include "kvist/growth.h"

namespace kvist {
namespace {

constexpr int64_t kArticleMaxTokens = 8192;
constexpr int64_t kUtilisationFrom = 512;  // tokens; below, a single block is a large share

// A cache in a scenario: what the measuring code needs of it.
class GrowthContestant {
 public:
  virtual ~GrowthContestant() = default;
  // False when the step does not fit.
  virtual bool Append(int64_t num_tokens) = 0;
  // Sizes now; times are filled in by the caller.
  virtual GrowthResult Sizes() const = 0;
};

class ArticleContestant : public GrowthContestant {
 public:
  ArticleContestant(std::string impl, std::unique_ptr<ArticleCache> cache, const std::vector<float>& rows)
      : impl_(std::move(impl)), cache_(std::move(cache)), rows_(rows) {}

  bool Append(int64_t num_tokens) override { return cache_->Append(rows_.data(), num_tokens); }

  GrowthResult Sizes() const override {
    const ArticleStats stats = cache_->stats();
    GrowthResult result;
    result.impl = impl_;
    result.tokens = stats.num_tokens;
    result.copied_bytes = stats.copied_bytes;
    result.live_bytes = stats.live_bytes;
    result.committed_bytes = stats.allocated_bytes;
    result.peak_bytes = stats.peak_bytes;
    result.cumulative_bytes = stats.cumulative_bytes;
    result.resizes = stats.num_resizes;
    result.utilisation = stats.capacity_tokens > 0 ? double(stats.num_tokens) / double(stats.capacity_tokens) : 0;
    return result;
  }

 private:
  const std::string impl_;
  const std::unique_ptr<ArticleCache> cache_;
  const std::vector<float>& rows_;
};

class KvistContestant : public GrowthContestant {
 public:
  KvistContestant(Cache* cache, const std::vector<float>& rows, size_t max_step)
      : cache_(cache), sequence_(cache->Begin()), rows_(rows), tokens_(max_step, 0) {
    // A static sequence takes its memory at its first step; an abandoned one lets it begin before time is taken, as
    // the article's static cache is made before.
    if (cache->options().growth.kind == GrowthKind::kStatic) (void)sequence_.Prepare({tokens_.data(), 1});
  }

  bool Append(int64_t num_tokens) override {
    if (!sequence_.Prepare({tokens_.data(), size_t(num_tokens)})) return false;
    for (size_t i = 0; i < cache_->geometry().layers.size(); ++i) {
      sequence_.Append(int(i), rows_.data(), rows_.data());
    }
    return sequence_.Commit().has_value();
  }

  GrowthResult Sizes() const override {
    const CacheStats stats = cache_->stats();
    const SequenceGrowth growth = sequence_.growth();
    GrowthResult result;
    result.impl = "kvist";
    result.growth = GrowthSpec(cache_->options().growth);
    result.tokens = sequence_.num_tokens();
    result.copied_bytes = stats.copied_bytes;
    result.live_bytes = stats.live_bytes;
    result.committed_bytes = stats.committed_bytes;
    result.peak_bytes = stats.peak_committed_bytes;
    result.cumulative_bytes = stats.cumulative_bytes;
    result.resizes = growth.num_resizes;
    result.stalls = int64_t(stats.num_stalls);
    const double room =
        double(stats.committed_bytes) / double(cache_->geometry().BytesPerToken(cache_->options().form));
    result.utilisation = room > 0 ? double(result.tokens) / room : 0;
    result.mean_growth = growth.mean_step_ratio;
    result.stability = 1.0 / (1.0 + growth.step_ratio_variance);
    return result;
  }

 private:
  Cache* const cache_;
  Sequence sequence_;
  const std::vector<float>& rows_;
  const std::vector<Token> tokens_;
};

// Collects the times of appends.
class AppendTimes {
 public:
  template <class Run>
  auto Time(Run run) {
    const auto start = std::chrono::steady_clock::now();
    auto result = run();
    times_ms_.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
    return result;
  }
  void WriteTo(GrowthResult& result) {
    if (times_ms_.empty()) return;
    result.total_ms = 0;
    for (const double ms : times_ms_) result.total_ms += ms;
    std::ranges::sort(times_ms_);
    result.append_max_ms = times_ms_.back();
    result.append_p999_ms = times_ms_[size_t(double(times_ms_.size() - 1) * 0.999)];
  }

 private:
  std::vector<double> times_ms_;
};

GrowthResult RunSteps(const GrowthScenario& scenario, GrowthContestant& contestant) {
  AppendTimes times;
  double peak = 0, least = 1;
  int64_t num_tokens = 0, refused_at = -1;
  for (const int64_t step : scenario.steps) {
    if (!times.Time([&] { return contestant.Append(step); })) {
      if (refused_at < 0) refused_at = num_tokens + step;
      continue;
    }
    num_tokens += step;
    const double utilisation = contestant.Sizes().utilisation;
    peak = std::max(peak, utilisation);
    if (num_tokens >= kUtilisationFrom) least = std::min(least, utilisation);
  }
  GrowthResult result = contestant.Sizes();
  result.refused_at = refused_at;
  result.peak_utilisation = peak;
  result.least_utilisation = least;
  times.WriteTo(result);
  return result;
}

TokenShape ShapeOf(const CacheGeometry& geometry) {
  const LayerGeometry& layer = geometry.layers.front();
  return {int(geometry.layers.size()) * 2, size_t(layer.num_kv_heads) * size_t(layer.key_dim)};
}

using MakeArticle = std::function<std::unique_ptr<ArticleCache>()>;
std::vector<std::pair<std::string, MakeArticle>> ArticleDesigns(TokenShape shape, const GrowthScenario& scenario) {
  const int64_t initial = scenario.initial_tokens;
  std::vector<std::pair<std::string, MakeArticle>> designs = {
      {"article-static", [=] { return MakeArticleStatic(shape, scenario.static_tokens); }},
      {"article-dynamic", [=] { return MakeArticleDynamic(shape, initial, 1.5, kArticleMaxTokens); }},
      {"copy-and-grow", [=] { return MakeCopyAndGrow(shape, initial, 1.5, kArticleMaxTokens); }},
      {"article-predictive", [=] { return MakeArticlePredictive(shape, initial, 10, kArticleMaxTokens); }},
      {"article-hierarchical", [=] { return MakeArticleHierarchical(shape, 512, 4096); }},
      {"article-compressed", [=] { return MakeArticleCompressed(shape, 0.7, kArticleMaxTokens); }},
  };
  // It concatenates all it has anew at every append: 8,192 single tokens would copy a terabyte.
  if (scenario.steps.size() > 1000) designs.pop_back();
  return designs;
}

std::vector<float> MakeRows(const CacheGeometry& geometry, size_t max_step) {
  std::vector<float> rows(max_step * ShapeOf(geometry).row_floats);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = float(i % 1021) / 1021.0f - 0.5f;
  return rows;
}

Result<std::unique_ptr<Cache>> OpenCache(const CacheGeometry& geometry, const std::string& growth) {
  CacheOptions options;
  options.form = {Codec::kF32, Codec::kF32};
  KVIST_TRY(options.growth, ParseGrowth(growth));
  return Cache::Open(geometry, options);
}

void KeepFaster(std::vector<GrowthResult>& results, size_t index, GrowthResult result) {
  if (index == results.size()) {
    results.push_back(std::move(result));
  } else if (result.total_ms < results[index].total_ms) {
    results[index] = std::move(result);
  }
}

}  // namespace

CacheGeometry ArticleGeometry() {
  CacheGeometry geometry;
  geometry.block_tokens = 16;
  geometry.layers.push_back({.num_query_heads = 32, .num_kv_heads = 32, .key_dim = 128, .value_dim = 128});
  return geometry;
}

std::vector<GrowthScenario> GrowthScenarios() {
  const std::vector<int64_t> one_by_one(size_t{8192}, 1);
  return {
      {"dynamic", "short chat", {100, 200, 300, 400, 500}, 256, 4000},
      {"dynamic", "long document QA", {1000, 1500, 2000, 2500, 3000}, 256, 4000},
      {"dynamic", "streaming", {50, 100, 150, 200, 250, 300, 350, 400}, 256, 4000},
      {"dynamic", "mixed", {200, 1800, 300, 1500, 600, 1200, 400, 800}, 256, 4000},
      {"predictive", "steady", {100, 120, 144, 173, 207, 249, 299, 359, 430, 516}, 200, 8192},
      {"predictive", "burst", {100, 100, 100, 100, 800, 850, 900, 950, 1000, 1050}, 200, 8192},
      {"predictive", "periodic", {200, 400, 200, 400, 200, 400, 200, 400, 200, 400}, 200, 8192},
      {"predictive", "random", {150, 280, 120, 390, 210, 180, 420, 310, 160, 380}, 200, 8192},
      {"comprehensive", "short chat", {50, 100, 150, 200, 250, 300}, 256, 4000},
      {"comprehensive", "long document", {1000, 1500, 2000, 2500, 3000, 3500}, 256, 4000},
      {"comprehensive", "streaming", {20, 40, 60, 80, 100, 120, 140, 160, 180, 200}, 256, 4000},
      {"comprehensive", "burst", {100, 100, 100, 1000, 100, 100, 1000, 100, 100}, 256, 4000},
      {"append", "one by one", one_by_one, 256, 8192},
  };
}

Result<std::vector<GrowthResult>> RunGrowthScenario(const GrowthScenario& scenario, const CacheGeometry& geometry,
                                                    const std::vector<std::string>& growths, int num_rounds) {
  const auto max_step = size_t(std::ranges::max(scenario.steps));
  const std::vector<float> rows = MakeRows(geometry, max_step);
  std::vector<GrowthResult> results;
  for (int round = 0; round < num_rounds; ++round) {  // contestants in turn; the faster run of each counts
    size_t index = 0;
    for (const auto& [impl, make] : ArticleDesigns(ShapeOf(geometry), scenario)) {
      ArticleContestant contestant(impl, make(), rows);
      KeepFaster(results, index++, RunSteps(scenario, contestant));
    }
    for (const std::string& growth : growths) {
      KVIST_TRY(const auto cache, OpenCache(geometry, growth));
      KvistContestant contestant(cache.get(), rows, max_step);
      KeepFaster(results, index++, RunSteps(scenario, contestant));
    }
  }
  return results;
}

namespace {

// Plays the requests; make() gives a new contestant for each, totals(contestants) sums what is alive.
template <class Make, class Totals>
GrowthResult PlayTrace(const std::vector<TraceRequest>& requests, int num_slots, Make make, Totals totals) {
  struct Slot {
    std::unique_ptr<GrowthContestant> contestant;
    int64_t tokens_left = 0;
  };
  std::vector<Slot> slots(static_cast<size_t>(num_slots));
  AppendTimes times;
  size_t next = 0, num_alive = 0, peak = 0;
  double sum_of_utilisation = 0;
  int64_t turns = 0, num_tokens = 0, refused_at = -1, resizes = 0;
  size_t copied_bytes = 0;
  auto append = [&](Slot& slot, int64_t count) {
    if (times.Time([&] { return slot.contestant->Append(count); })) {
      num_tokens += count;
    } else {
      refused_at = slot.contestant->Sizes().tokens + count;
      slot.tokens_left = 0;
    }
  };
  do {
    num_alive = 0;
    for (Slot& slot : slots) {
      if (slot.contestant != nullptr && slot.tokens_left == 0) {
        const GrowthResult sizes = slot.contestant->Sizes();
        copied_bytes += sizes.copied_bytes;
        resizes += sizes.resizes;
        slot.contestant.reset();
      }
      if (slot.contestant == nullptr && next < requests.size()) {
        slot = {make(), requests[next].output_tokens};
        append(slot, requests[next++].prompt_tokens);
      } else if (slot.contestant != nullptr) {
        append(slot, 1);
        if (slot.tokens_left > 0) --slot.tokens_left;
      }
      num_alive += slot.contestant != nullptr;
    }
    std::vector<GrowthResult> alive;
    for (const Slot& slot : slots)
      if (slot.contestant != nullptr) alive.push_back(slot.contestant->Sizes());
    const auto [live, committed] = totals(alive);
    peak = std::max(peak, committed);
    if (committed > 0) sum_of_utilisation += double(live) / double(committed), ++turns;
  } while (num_alive > 0);
  GrowthResult result;
  result.tokens = num_tokens;
  result.refused_at = refused_at;
  result.copied_bytes = copied_bytes;
  result.peak_bytes = peak;
  result.resizes = resizes;
  result.utilisation = turns > 0 ? sum_of_utilisation / double(turns) : 0;
  times.WriteTo(result);
  return result;
}

}  // namespace

Result<std::vector<GrowthResult>> RunGrowthTrace(const std::vector<TraceRequest>& requests, int num_slots,
                                                 const CacheGeometry& geometry, const std::vector<std::string>& growths,
                                                 const std::function<bool(int done, int all)>& progress) {
  int64_t max_step = 1, max_tokens = 1;
  for (const TraceRequest& request : requests) {
    max_step = std::max(max_step, request.prompt_tokens);
    max_tokens = std::max(max_tokens, request.prompt_tokens + request.output_tokens);
  }
  const std::vector<float> rows = MakeRows(geometry, size_t(max_step));
  const TokenShape shape = ShapeOf(geometry);
  const std::pair<const char*, MakeArticle> designs[] = {
      {"article-static", [&] { return MakeArticleStatic(shape, max_tokens); }},
      {"article-dynamic", [&] { return MakeArticleDynamic(shape, 256, 1.5, max_tokens); }},
      {"copy-and-grow", [&] { return MakeCopyAndGrow(shape, 256, 1.5, max_tokens); }},
      {"article-predictive", [&] { return MakeArticlePredictive(shape, 256, 10, max_tokens); }},
  };
  const int num_all = int(std::size(designs) + growths.size());
  std::vector<GrowthResult> results;
  for (const auto& [impl, make] : designs) {
    if (!progress(int(results.size()), num_all)) return Fail(ErrorCode::kCancelled, "stopped");
    results.push_back(PlayTrace(
        requests, num_slots, [&] { return std::make_unique<ArticleContestant>(impl, make(), rows); },
        [](const std::vector<GrowthResult>& alive) {
          std::pair<size_t, size_t> sum{0, 0};
          for (const GrowthResult& each : alive) sum.first += each.live_bytes, sum.second += each.committed_bytes;
          return sum;
        }));
    results.back().impl = impl;
  }
  for (const std::string& growth : growths) {
    if (!progress(int(results.size()), num_all)) return Fail(ErrorCode::kCancelled, "stopped");
    KVIST_TRY(const auto cache, OpenCache(geometry, growth));
    results.push_back(PlayTrace(
        requests, num_slots, [&] { return std::make_unique<KvistContestant>(cache.get(), rows, size_t(max_step)); },
        [&](const std::vector<GrowthResult>& alive) {
          size_t live = 0;
          for (const GrowthResult& each : alive) live += size_t(each.tokens) * shape.token_bytes();
          return std::pair{live, cache->stats().committed_bytes};
        }));
    results.back().impl = "kvist";
    results.back().growth = GrowthSpec(cache->options().growth);
    results.back().copied_bytes = cache->stats().copied_bytes;
    results.back().stalls = int64_t(cache->stats().num_stalls);
  }
  return results;
}

}  // namespace kvist
