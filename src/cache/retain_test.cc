// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "kvist/cache.h"
#include "tests/property/naive_cache.h"
#include "tier/tier_test_kit.h"

namespace kvist::retain_test {
namespace {

using testing::Last;
using testing::RandomStep;
using testing::RunRest;
using testing::RunStep;
using testing::RunStepOnThreads;
using testing::SmallGeometry;
using testing::StepData;
using testing::StepOutput;
using testing::Turned;

constexpr Form kF32{Codec::kF32, Codec::kF32};
constexpr int64_t kTokens = 300, kBlockTokens = 16;
constexpr size_t kBudget = size_t{64} << 20;

std::unique_ptr<Cache> OpenCache(const CacheGeometry& geometry, Form form = kF32, size_t budget_bytes = kBudget) {
  CacheOptions options{.form = form, .budget_bytes = budget_bytes};
  options.sealing.recent_tokens = 32;
  return Cache::Open(geometry, options).value();
}

CacheOptions OptionsWithDisk(const TestFolder& folder, size_t budget_bytes = kBudget) {
  CacheOptions options{.form = kF32, .budget_bytes = budget_bytes};
  options.shares_prefixes = true;
  options.model = {"test", {1, 2}};
  options.tiers = {"disk:" + folder.path() + ",size=64M"};
  return options;
}

Sequence Begin(Cache& cache) {
  Sequence sequence = cache.Begin();
  for (const RetentionPolicy policy : {RetentionPolicy::kTova, RetentionPolicy::kH2o, RetentionPolicy::kExpected}) {
    REQUIRE(sequence.Observe(policy));
  }
  return sequence;
}

// --- scores by the papers' formulas, in double precision from the step's own numbers ---

using Scores = std::vector<double>;

// One lane of a text of which every number is known.
struct Lane {
  const LayerGeometry& geometry;
  const StepData& text;
  size_t layer;
  int kv_head;

  int64_t num_tokens() const { return std::ssize(text.tokens); }
  int heads_per_group() const { return geometry.num_query_heads / geometry.num_kv_heads; }
  const float* key(int64_t t) const {
    return text.keys[layer].data() + (t * geometry.num_kv_heads + kv_head) * geometry.key_dim;
  }
  const float* value(int64_t t) const {
    return text.values[layer].data() + (t * geometry.num_kv_heads + kv_head) * geometry.value_dim;
  }
  const float* query(int64_t t, int head) const {
    return text.queries[layer].data() + (t * geometry.num_query_heads + head) * geometry.key_dim;
  }
  Scores Probabilities(int64_t position, int head) const {
    Scores weights(size_t(num_tokens()), 0);
    double sum = 0;
    for (int64_t t = 0; t <= position; ++t) {
      const double dot = std::inner_product(key(t), key(t) + geometry.key_dim, query(position, head), 0.0);
      sum += weights[size_t(t)] = std::exp(dot / std::sqrt(double(geometry.key_dim)));
    }
    for (double& weight : weights) weight /= sum;
    return weights;
  }
  // Sum of the probabilities of queries at these positions, over heads [first, end).
  Scores SumOfProbabilities(const std::vector<int64_t>& positions, int first_head, int end_head) const {
    Scores sums(size_t(num_tokens()), 0);
    for (int head = first_head; head < end_head; ++head) {
      for (const int64_t position : positions) {
        const Scores of_row = Probabilities(position, head);
        for (size_t t = 0; t < sums.size(); ++t) sums[t] += of_row[t];
      }
    }
    return sums;
  }
};

double Norm(const float* x, int dim) {
  return std::sqrt(std::inner_product(x, x + dim, x, 0.0));
}

Scores KeyDiff(const Lane& lane) {
  const int dim = lane.geometry.key_dim;
  std::vector<double> anchor(size_t(dim), 0);
  for (int64_t t = 0; t < lane.num_tokens(); ++t)
    for (int c = 0; c < dim; ++c) anchor[size_t(c)] += lane.key(t)[c] / Norm(lane.key(t), dim);
  const double length = std::sqrt(std::inner_product(anchor.begin(), anchor.end(), anchor.begin(), 0.0));
  Scores scores;
  for (int64_t t = 0; t < lane.num_tokens(); ++t) {
    const double dot = std::inner_product(anchor.begin(), anchor.end(), lane.key(t), 0.0);
    scores.push_back(-dot / length / Norm(lane.key(t), dim));
  }
  return scores;
}

// The mean over the coming 512 positions of matrices that turn, as a matrix.
std::vector<std::vector<double>> MeanTurnMatrix(const Lane& lane) {
  const int dim = lane.geometry.key_dim;
  std::vector<std::vector<double>> matrix(size_t(dim), std::vector<double>(size_t(dim), 0));
  for (int c = 0; c < dim; ++c) {
    std::vector<float> unit(size_t(dim), 0);
    unit[size_t(c)] = 1;
    for (int64_t ahead = 0; ahead < 512; ++ahead) {
      const auto turned = Turned(lane.geometry.rope, lane.num_tokens() + ahead, unit.data(), dim);
      for (int r = 0; r < dim; ++r) matrix[size_t(r)][size_t(c)] += turned[size_t(r)] / 512;
    }
  }
  return matrix;
}

// As if every future query were R q for the queries q there were: mean and covariance from the turned samples.
Scores Expected(const Lane& lane) {
  const auto dim = size_t(lane.geometry.key_dim);
  const auto matrix = MeanTurnMatrix(lane);
  Scores scores(size_t(lane.num_tokens()), 0);
  for (int head = lane.kv_head * lane.heads_per_group(); head < (lane.kv_head + 1) * lane.heads_per_group(); ++head) {
    std::vector<std::vector<double>> samples;
    for (int64_t t = 4; t < lane.num_tokens(); t += 4) {
      const auto unrotated = Turned(lane.geometry.rope, -t, lane.query(t, head), int(dim));
      std::vector<double> sample(dim, 0);
      for (size_t r = 0; r < dim; ++r)
        for (size_t c = 0; c < dim; ++c) sample[r] += matrix[r][c] * unrotated[c];
      samples.push_back(sample);
    }
    Scores logits;
    for (int64_t t = 0; t < lane.num_tokens(); ++t) {
      std::vector<double> dots;
      for (const auto& sample : samples)
        dots.push_back(std::inner_product(sample.begin(), sample.end(), lane.key(t), 0.0));
      const double mean = std::reduce(dots.begin(), dots.end()) / double(dots.size());
      double variance = 0;
      for (const double dot : dots) variance += (dot - mean) * (dot - mean) / double(dots.size());
      logits.push_back(mean / std::sqrt(double(dim)) + variance / (2 * double(dim)));
    }
    const double largest = *std::ranges::max_element(logits);
    double sum = 0;
    for (double& logit : logits) sum += logit = std::exp(logit - largest);
    for (size_t t = 0; t < scores.size(); ++t) scores[t] += logits[t] / sum / lane.heads_per_group();
  }
  for (size_t t = 0; t < scores.size(); ++t)
    scores[t] = (scores[t] + 1e-2) * Norm(lane.value(int64_t(t)), lane.geometry.value_dim);
  return scores;
}

Scores SnapKv(const Lane& lane) {
  std::vector<int64_t> last;
  for (int64_t position = lane.num_tokens() - 64; position < lane.num_tokens(); ++position) last.push_back(position);
  const int first_head = lane.kv_head * lane.heads_per_group();
  const Scores mean = lane.SumOfProbabilities(last, first_head, first_head + lane.heads_per_group());
  Scores pooled(mean.size(), 0);
  for (int64_t t = 0; t < std::ssize(mean); ++t)
    for (int64_t i = t - 2; i <= t + 2; ++i)
      if (i >= 0 && i < std::ssize(mean)) pooled[size_t(t)] += mean[size_t(i)];
  return pooled;
}

Scores ScoresByFormula(RetentionPolicy policy, const Lane& lane) {
  Scores scores;
  std::vector<int64_t> some;  // every eighth; from 2,048 on every sixteenth, counted twice
  for (int64_t position = 0; position < lane.num_tokens(); position += 8) {
    if (position < 2048) some.push_back(position);
    if (position >= 2048 && position % 16 == 0) some.insert(some.end(), {position, position});
  }
  const int first_head = lane.kv_head * lane.heads_per_group();
  switch (policy) {
    case RetentionPolicy::kTova:
      return lane.SumOfProbabilities({lane.num_tokens() - 1}, 0, lane.geometry.num_query_heads);
    case RetentionPolicy::kH2o:
      return lane.SumOfProbabilities(some, first_head, first_head + lane.heads_per_group());
    case RetentionPolicy::kSnapKv:
      return SnapKv(lane);
    case RetentionPolicy::kExpected:
      return Expected(lane);
    case RetentionPolicy::kKeyDiff:
      return KeyDiff(lane);
    default:
      break;
  }
  for (int64_t t = 0; t < lane.num_tokens(); ++t) {
    const double key_norm = Norm(lane.key(t), lane.geometry.key_dim);
    const double value_norm = Norm(lane.value(t), lane.geometry.value_dim);
    scores.push_back(policy == RetentionPolicy::kKnorm ? -key_norm : key_norm + value_norm);
  }
  return scores;
}

// TOVA's score is of a whole layer: the sum over its lanes.
Scores LaneScores(RetentionPolicy policy, const CacheGeometry& geometry, const StepData& text, size_t layer,
                  int kv_head) {
  if (policy != RetentionPolicy::kTova) {
    return ScoresByFormula(policy, {geometry.layers[layer], text, layer, kv_head});
  }
  Scores sums(text.tokens.size(), 0);
  const LayerGeometry& of_layer = geometry.layers[layer];
  const int heads_per_group = of_layer.num_query_heads / of_layer.num_kv_heads;
  for (int head = 0; head < of_layer.num_query_heads; ++head) {
    const Lane lane{of_layer, text, layer, head / heads_per_group};
    const Scores row = lane.Probabilities(lane.num_tokens() - 1, head);
    for (size_t t = 0; t < sums.size(); ++t) sums[t] += row[t];
  }
  return sums;
}

// Whether those kept of the candidates [begin, end) are those with the best scores.
bool AreBest(const std::vector<int64_t>& held, const Scores& scores, int64_t begin, int64_t end) {
  const std::set<int64_t> kept(held.begin(), held.end());
  double worst_kept = INFINITY, best_lost = -INFINITY, spread = 0;
  for (int64_t t = begin; t < end; ++t) {
    const double score = scores[size_t(t)];
    spread = std::max(spread, std::fabs(score));
    kept.contains(t) ? worst_kept = std::min(worst_kept, score) : best_lost = std::max(best_lost, score);
  }
  return worst_kept >= best_lost - 1e-4 * spread && best_lost > -INFINITY && worst_kept < INFINITY;
}

TEST_CASE("retain: each policy keeps the tokens that its paper's formula says") {
  const CacheGeometry geometry = SmallGeometry(0);
  std::mt19937 random(11);
  const StepData text = RandomStep(random, geometry, kTokens);
  const auto cache = OpenCache(geometry);
  Sequence whole = Begin(*cache);
  RunRest(geometry, text, whole);
  for (const RetentionPolicy policy :
       {RetentionPolicy::kArticleNorm, RetentionPolicy::kKnorm, RetentionPolicy::kKeyDiff, RetentionPolicy::kTova,
        RetentionPolicy::kH2o, RetentionPolicy::kSnapKv, RetentionPolicy::kExpected}) {
    CAPTURE(RetentionPolicyName(policy));
    Sequence sequence = whole.Fork();
    const auto report = sequence.Retain({.policy = policy}, 180);
    REQUIRE(report);
    CHECK(report->num_kept_tokens == 180);
    // Of 300 tokens the last 64 stay, in whole blocks: from 224 on. H2O keeps half of what it may for them: from 208.
    const int64_t end = policy == RetentionPolicy::kH2o ? 208 : 224;
    for (size_t layer = 0; layer < geometry.layers.size(); ++layer) {
      for (int head = 0; head < geometry.layers[layer].num_kv_heads; ++head) {
        CAPTURE(layer);
        CAPTURE(head);
        const auto held = sequence.HeldPositions(int(layer), head);
        CHECK(held.size() == 180);
        CHECK(std::ranges::adjacent_find(held, std::greater_equal()) == held.end());
        CHECK(held[size_t(kBlockTokens) - 1] == kBlockTokens - 1);  // the sinks' block
        CHECK(held[size_t(180 - (kTokens - end))] == end);
        CHECK(AreBest(held, LaneScores(policy, geometry, text, layer, head), kBlockTokens, end));
      }
    }
  }
}

TEST_CASE("retain: h2o looks at fewer queries of a long text, and counts them as often") {
  constexpr int64_t kLong = 2600;
  const CacheGeometry geometry = SmallGeometry(0);
  std::mt19937 random(12);
  const StepData text = RandomStep(random, geometry, kLong);
  const auto cache = OpenCache(geometry);
  Sequence sequence = Begin(*cache);
  RunRest(geometry, text, sequence, 512);
  REQUIRE(sequence.Retain({.policy = RetentionPolicy::kH2o}, 1500));
  CHECK(AreBest(sequence.HeldPositions(0, 0), LaneScores(RetentionPolicy::kH2o, geometry, text, 0, 0), kBlockTokens,
                1840));
}

// Of tokens [begin, end), the largest probability that queries from `repeat` on give each, looking at the first four,
// these, and what comes from `repeat` on.
Scores Peaks(const Lane& lane, int64_t begin, int64_t end, int64_t repeat) {
  Scores peaks(size_t(repeat), 0);
  for (int head = lane.kv_head * lane.heads_per_group(); head < (lane.kv_head + 1) * lane.heads_per_group(); ++head) {
    for (int64_t position = repeat; position < lane.num_tokens(); ++position) {
      const Scores weights = lane.Probabilities(position, head);
      double sum = 0;
      for (int64_t t = 0; t <= position; ++t)
        sum += t < 4 || (t >= begin && t < end) || t >= repeat ? weights[size_t(t)] : 0;
      for (int64_t t = begin; t < end; ++t) peaks[size_t(t)] = std::max(peaks[size_t(t)], weights[size_t(t)] / sum);
    }
  }
  return peaks;
}

TEST_CASE("retain: a policy of one's own sees what the built-in ones see, and decides as they do") {
  const CacheGeometry geometry = SmallGeometry(0);
  std::mt19937 random(11);
  const StepData text = RandomStep(random, geometry, kTokens);
  const auto cache = OpenCache(geometry);
  Sequence whole = Begin(*cache);
  RunRest(geometry, text, whole);
  const auto negated_key_norms = [](int, int, const LaneEvidence& lane) {
    std::vector<float> scores;
    for (size_t i = 0; i < lane.num_tokens(); ++i) {
      scores.push_back(float(-Norm(lane.keys.data() + i * size_t(lane.key_dim), lane.key_dim)));
    }
    return scores;
  };
  const auto mass = [](int, int, const LaneEvidence& lane) { return lane.mass; };
  const auto last_query = [](int, int, const LaneEvidence& lane) {
    std::vector<float> scores(lane.num_tokens());
    for (size_t row = 0; row < size_t(lane.num_query_heads); ++row) {
      const size_t last = (row + 1) * size_t(lane.num_rows_per_head) - 1;
      for (size_t i = 0; i < scores.size(); ++i) scores[i] += lane.probabilities[last * scores.size() + i];
    }
    return scores;
  };
  const auto held = [&](const Sequence& sequence) {
    std::vector<std::vector<int64_t>> of_lanes;
    for (size_t layer = 0; layer < geometry.layers.size(); ++layer) {
      for (int head = 0; head < geometry.layers[layer].num_kv_heads; ++head) {
        of_lanes.push_back(sequence.HeldPositions(int(layer), head));
      }
    }
    return of_lanes;
  };
  const auto keep = [&](const TokenScorer& scorer, const RetentionOptions& options) {
    Sequence sequence = whole.Fork();
    const auto report = sequence.Retain(scorer, options, 150);
    REQUIRE(report);
    CHECK(report->num_kept_tokens == doctest::Approx(150).epsilon(0.01));
    return held(sequence);
  };
  Sequence by_knorm = whole.Fork(), by_h2o = whole.Fork();
  REQUIRE(by_knorm.Retain({.policy = RetentionPolicy::kKnorm}, 150));
  CHECK(keep(negated_key_norms, {}) == held(by_knorm));
  REQUIRE(by_h2o.Retain({.policy = RetentionPolicy::kH2o, .shape = BudgetShape::kGlobal, .recent_tokens = 75}, 150));
  CHECK(keep(mass, {.shape = BudgetShape::kGlobal, .recent_tokens = 75}) == held(by_h2o));
  const auto of_lanes = keep(last_query, {});
  size_t lane = 0;
  for (size_t layer = 0; layer < geometry.layers.size(); ++layer) {
    const LayerGeometry& of_layer = geometry.layers[layer];
    for (int head = 0; head < of_layer.num_kv_heads; ++head, ++lane) {
      const Lane numbers{of_layer, text, layer, head};
      const int first = head * numbers.heads_per_group();
      const Scores scores = numbers.SumOfProbabilities({kTokens - 1}, first, first + numbers.heads_per_group());
      CHECK(AreBest(of_lanes[lane], scores, kBlockTokens, 224));
    }
  }

  // Nobody observed: there are keys and values only.
  Sequence unobserved = cache->Begin();
  RunRest(geometry, text, unobserved);
  std::atomic<int> num_seen = 0;
  const auto looks = [&](int, int, const LaneEvidence& lane) {
    num_seen += !lane.probabilities.empty() || !lane.mass.empty() || !lane.peak.empty() || !lane.future_queries.empty();
    return std::vector<float>(lane.num_tokens());
  };
  REQUIRE(unobserved.Retain(looks, {}, 150));
  CHECK(num_seen == 0);

  const auto refused = [&](const TokenScorer& scorer) {
    Sequence sequence = whole.Fork();
    const auto report = sequence.Retain(scorer, {}, 150);
    REQUIRE_FALSE(report);
    CHECK(report.error().code == ErrorCode::kInvalidArgument);
    CHECK(sequence.num_held_tokens() == kTokens);
    return report.error().message;
  };
  CHECK(refused([](int, int, const LaneEvidence&) { return std::vector<float>(7); }).find("7 scores") !=
        std::string::npos);
  CHECK(refused({}).find("function") != std::string::npos);
  Sequence sequence = whole.Fork();
  CHECK_FALSE(sequence.Retain({.policy = RetentionPolicy::kOwn}, 150));
  CHECK_FALSE(ParseRetentionPolicy("own"));
}

TEST_CASE("retain: kvzip keeps what was attended to most when the text was repeated, chunk after chunk") {
  const CacheGeometry geometry = SmallGeometry(0);
  std::mt19937 random(22);
  const StepData text = RandomStep(random, geometry, kTokens + 90);
  const auto cache = OpenCache(geometry);
  Sequence sequence = cache->Begin();
  RunRest(geometry, text.Part(geometry, 0, kTokens), sequence);
  const RetentionOptions options{.policy = RetentionPolicy::kKvzip, .shape = BudgetShape::kGlobal};
  CHECK(sequence.Retain(options, 180).error().code == ErrorCode::kFailedPrecondition);
  CHECK(sequence.Observe(RetentionPolicy::kKvzip).error().code == ErrorCode::kInvalidArgument);
  CHECK(sequence.ObserveRepeating(10, 10).error().code == ErrorCode::kOutOfRange);
  CHECK(sequence.ObserveRepeating(10, kTokens + 1).error().code == ErrorCode::kOutOfRange);
  {
    Sequence fork = sequence.Fork();
    REQUIRE(fork.ObserveRepeating(0, 150));
    RunRest(geometry, text.Part(geometry, 0, kTokens + 40), fork, 16);
    REQUIRE(fork.ObserveRepeating(150, kTokens));
    RunRest(geometry, text, fork);
    sequence.TakeObserved(fork);
  }
  CHECK(sequence.num_tokens() == kTokens);
  REQUIRE(sequence.Retain(options, 180));
  const StepData with_first = text.Part(geometry, 0, kTokens + 40);
  std::vector<int64_t> kept;  // of all lanes, one behind the other
  Scores scores;
  for (size_t layer = 0; layer < geometry.layers.size(); ++layer) {
    for (int head = 0; head < geometry.layers[layer].num_kv_heads; ++head) {
      Scores peaks = Peaks({geometry.layers[layer], with_first, layer, head}, 0, 150, kTokens);
      const Scores second = Peaks({geometry.layers[layer], text, layer, head}, 150, kTokens, kTokens + 40);
      for (size_t t = 150; t < peaks.size(); ++t) peaks[t] = second[t];
      const auto held = sequence.HeldPositions(int(layer), head);
      for (const int64_t t : held)
        if (t >= kBlockTokens && t < 224) kept.push_back(std::ssize(scores) + t - kBlockTokens);
      scores.insert(scores.end(), peaks.begin() + kBlockTokens, peaks.begin() + 224);
    }
  }
  CHECK(std::ssize(kept) == 4 * (180 - kBlockTokens - (kTokens - 224)));
  CHECK(AreBest(kept, scores, 0, std::ssize(scores)));
  RunRest(geometry, text, sequence);  // what comes after the repetition is not known, and stays
  REQUIRE(sequence.Retain({.policy = RetentionPolicy::kKvzip, .recent_tokens = 0}, 200));
  const auto held = sequence.HeldPositions(0, 0);
  CHECK(std::ranges::count_if(held, [](int64_t t) { return t >= kTokens; }) == 90);
}

// What a query gets that sees exactly these tokens.
std::vector<double> AttendTo(const Lane& lane, const std::vector<int64_t>& tokens, const float* query) {
  const auto dim = lane.geometry.key_dim;
  std::vector<double> out(size_t(lane.geometry.value_dim), 0);
  double sum = 0;
  for (const int64_t t : tokens) {
    const double dot = std::inner_product(lane.key(t), lane.key(t) + dim, query, 0.0);
    const double weight = std::exp(dot / std::sqrt(double(dim)));
    sum += weight;
    for (size_t c = 0; c < out.size(); ++c) out[c] += weight * lane.value(t)[c];
  }
  for (double& x : out) x /= sum;
  return out;
}

double WorstError(const CacheGeometry& geometry, const StepData& text, const Sequence& sequence,
                  const StepOutput& out) {
  double worst = 0;
  const int64_t position = std::ssize(text.tokens) - 1;
  for (size_t layer = 0; layer < geometry.layers.size(); ++layer) {
    const LayerGeometry& of_layer = geometry.layers[layer];
    for (int head = 0; head < of_layer.num_query_heads; ++head) {
      const int kv_head = head / (of_layer.num_query_heads / of_layer.num_kv_heads);
      const Lane lane{of_layer, text, layer, kv_head};
      const auto expected = AttendTo(lane, sequence.HeldPositions(int(layer), kv_head), lane.query(position, head));
      for (size_t c = 0; c < expected.size(); ++c) {
        worst = std::max(worst, std::fabs(expected[c] - double(out[layer][size_t(head) * expected.size() + c])));
      }
    }
  }
  return worst;
}

TEST_CASE("retain: attention sees what is held, and nothing else, in every form, also after several evictions") {
  const CacheGeometry geometry = SmallGeometry(0);
  std::mt19937 random(12);
  constexpr int64_t kLong = 1400;  // enough kept tiles for two splits
  const StepData text = RandomStep(random, geometry, kLong);
  for (const auto& [form, tolerance] : {std::pair{kF32, 1e-5}, {Form{}, 3e-3}, {Form{Codec::kQ8, Codec::kQ8}, 0.03}}) {
    CAPTURE(FormName(form));
    const auto cache = OpenCache(geometry, form);
    Sequence sequence = Begin(*cache);
    StepOutput out;
    for (const int64_t end : {int64_t{900}, int64_t{1200}, kLong}) {
      out = Last(RunRest(geometry, text.Part(geometry, 0, end), sequence),
                 end == 900    ? 900
                 : end == 1200 ? 300
                               : 200,
                 1);
      CHECK(WorstError(geometry, text.Part(geometry, 0, end), sequence, out) < tolerance);
      REQUIRE(sequence.Retain({.policy = RetentionPolicy::kSnapKv, .shape = BudgetShape::kAdaptive}, end / 2));
      CHECK(sequence.num_held_tokens() == doctest::Approx(double(end / 2)));
    }
  }
}

TEST_CASE("retain: the memory of what is given up is free at once") {
  const CacheGeometry geometry = SmallGeometry(0);
  std::mt19937 random(13);
  const StepData text = RandomStep(random, geometry, 2000);
  const auto cache = OpenCache(geometry);
  Sequence sequence = Begin(*cache);
  RunRest(geometry, text, sequence);
  const size_t live = cache->stats().live_bytes;
  const auto report = sequence.Retain({.policy = RetentionPolicy::kKnorm}, 500);
  REQUIRE(report);
  const CacheStats stats = cache->stats();
  CHECK(double(stats.live_bytes) < 0.27 * double(live));
  CHECK(sequence.num_held_bytes() == stats.live_bytes);
  CHECK(report->freed_bytes == live - stats.live_bytes);
  CHECK(stats.kept_bytes > 0);
  CHECK(stats.kept_bytes < stats.live_bytes);
  { const Sequence gone = std::move(sequence); }
  CHECK(cache->stats().kept_bytes == 0);
  CHECK(cache->stats().live_bytes == 0);
}

TEST_CASE("retain: a fork keeps all that it had, and an evicted sequence can be forked") {
  const CacheGeometry geometry = SmallGeometry(40);
  std::mt19937 random(14);
  const StepData text = RandomStep(random, geometry, kTokens + 40);
  const StepData first = text.Part(geometry, 0, kTokens);
  const auto cache = OpenCache(geometry);
  Sequence sequence = Begin(*cache);
  RunRest(geometry, first, sequence);
  Sequence fork = sequence.Fork(), control = sequence.Fork();
  REQUIRE(sequence.Retain({.policy = RetentionPolicy::kH2o}, 150));
  Sequence evicted = sequence.Fork();
  CHECK(RunRest(geometry, text, fork) == RunRest(geometry, text, control));
  CHECK(fork.num_held_tokens() == kTokens + 40);
  const StepOutput out = RunRest(geometry, text, sequence, 7);
  CHECK(RunRest(geometry, text, evicted, 40) == out);
  CHECK(sequence.num_held_tokens() == 190);
  // A layer with a window keeps its window.
  CHECK(sequence.HeldPositions(1, 0).size() < 40 + size_t(kBlockTokens));
}

TEST_CASE("retain: the bits depend neither on steps nor on threads") {
  const CacheGeometry geometry = SmallGeometry(0);
  std::mt19937 random(15);
  const StepData text = RandomStep(random, geometry, kTokens + 64);
  for (const RetentionPolicy policy : {RetentionPolicy::kH2o, RetentionPolicy::kSnapKv, RetentionPolicy::kExpected}) {
    const std::string name = RetentionPolicyName(policy);
    CAPTURE(name);
    // H2O's sums are taken while blocks are being sealed, and a step sees those that it seals itself as open.
    const Form form = policy == RetentionPolicy::kH2o ? Form{} : Form{Codec::kQ4, Codec::kQ4};
    std::vector<StepOutput> outs;
    for (const auto& [step_tokens, num_threads] : {std::pair{64, 1}, {1, 2}, {300, 3}}) {
      const auto cache = OpenCache(geometry, form);
      Sequence sequence = Begin(*cache);
      const auto run = [&](const StepData& part) { return *RunStepOnThreads(geometry, part, sequence, num_threads); };
      RunRest(geometry, text.Part(geometry, 0, kTokens), sequence, step_tokens, run);
      REQUIRE(sequence.Retain({.policy = policy, .shape = BudgetShape::kAdaptive}, 120));
      outs.push_back(RunRest(geometry, text, sequence, step_tokens, run));
    }
    CHECK(outs[0] == outs[1]);
    CHECK(outs[0] == outs[2]);
  }
}

// A step's calls between Prepare and Commit.
void AppendAndAttend(const CacheGeometry& geometry, const StepData& step, Sequence& sequence) {
  for (size_t layer = 0; layer < geometry.layers.size(); ++layer) {
    std::vector<float> out(step.tokens.size() * size_t(geometry.layers[layer].num_query_heads) *
                           size_t(geometry.layers[layer].value_dim));
    sequence.Append(int(layer), step.keys[layer].data(), step.values[layer].data());
    sequence.Attend(int(layer), step.queries[layer].data(), out.data());
  }
}

TEST_CASE("retain: queries that were forgotten or cut off before they were summed have no part in h2o's sums") {
  const CacheGeometry geometry = SmallGeometry(0);
  std::mt19937 random(16);
  const StepData text = RandomStep(random, geometry, kTokens), other = RandomStep(random, geometry, kTokens);
  std::vector<Sequence> sequences;
  const auto cache = OpenCache(geometry);
  for (const bool goes_astray : {false, true}) {
    Sequence& sequence = sequences.emplace_back(Begin(*cache));
    RunRest(geometry, text.Part(geometry, 0, 160), sequence, 32);
    if (goes_astray) {
      REQUIRE(RunStep(geometry, other.Part(geometry, 160, 200), sequence));
      REQUIRE(sequence.Truncate(160));
      const StepData forgotten = other.Part(geometry, 0, kTokens);  // enough to be summed
      REQUIRE(sequence.Prepare(forgotten.tokens));
      AppendAndAttend(geometry, forgotten, sequence);
    }
    REQUIRE(sequence.Retain({.policy = RetentionPolicy::kH2o}, 150));  // what is left waits, and is summed now
    RunRest(geometry, text, sequence, 1);
    REQUIRE(sequence.Retain({.policy = RetentionPolicy::kH2o}, 150));
  }
  for (int head = 0; head < geometry.layers[0].num_kv_heads; ++head) {
    CHECK(sequences[0].HeldPositions(0, head) == sequences[1].HeldPositions(0, head));
  }
}

TEST_CASE("retain: h2o's sums are of what queries saw, also of tokens that another policy has given up since") {
  const CacheGeometry geometry = SmallGeometry(0);
  std::mt19937 random(17);
  const StepData text = RandomStep(random, geometry, kTokens);
  std::vector<std::vector<int64_t>> held;
  for (const int64_t step_tokens : {100, 1}) {
    const auto cache = OpenCache(geometry);
    Sequence sequence = Begin(*cache);
    RunRest(geometry, text.Part(geometry, 0, 200), sequence, step_tokens);
    REQUIRE(sequence.Retain({.policy = RetentionPolicy::kWindow}, 150));
    RunRest(geometry, text, sequence, step_tokens);
    REQUIRE(sequence.Retain({.policy = RetentionPolicy::kH2o}, 150));
    held.push_back(sequence.HeldPositions(0, 0));
  }
  CHECK(held[0] == held[1]);
}

TEST_CASE("retain: observing begins with the next step, whenever it is asked for") {
  const CacheGeometry geometry = SmallGeometry(0);
  std::mt19937 random(20);
  const StepData text = RandomStep(random, geometry, kTokens);
  const auto cache = OpenCache(geometry);
  for (const RetentionPolicy policy :
       {RetentionPolicy::kTova, RetentionPolicy::kH2o, RetentionPolicy::kSnapKv, RetentionPolicy::kExpected}) {
    CAPTURE(RetentionPolicyName(policy));
    Sequence sequence = cache->Begin();
    const StepData first = text.Part(geometry, 0, 100);
    REQUIRE(sequence.Prepare(first.tokens));
    REQUIRE(sequence.Observe(policy));
    AppendAndAttend(geometry, first, sequence);
    REQUIRE(sequence.Commit());
    CHECK_FALSE(sequence.Retain({.policy = policy}, 50));
    RunRest(geometry, text, sequence);
    CHECK(sequence.Retain({.policy = policy}, 150));
  }
}

TEST_CASE("retain: what was not observed is missed, whatever else was") {
  const CacheGeometry geometry = SmallGeometry(0);
  std::mt19937 random(19);
  const StepData text = RandomStep(random, geometry, kTokens);
  const auto cache = OpenCache(geometry);
  const std::pair<RetentionPolicy, RetentionPolicy> pairs[] = {{RetentionPolicy::kH2o, RetentionPolicy::kSnapKv},
                                                               {RetentionPolicy::kSnapKv, RetentionPolicy::kH2o},
                                                               {RetentionPolicy::kTova, RetentionPolicy::kExpected}};
  for (const auto& [early, late] : pairs) {
    Sequence sequence = cache->Begin();
    REQUIRE(sequence.Observe(early));
    RunRest(geometry, text.Part(geometry, 0, 200), sequence);
    REQUIRE(sequence.Observe(late));
    const auto report = sequence.Retain({.policy = late}, 100);
    REQUIRE_FALSE(report);
    CHECK(report.error().code == ErrorCode::kFailedPrecondition);
    // Of the queries that are remembered, only those count that were looked at.
    RunRest(geometry, text, sequence);
    Sequence other = sequence.Fork();
    CHECK(other.Retain({.policy = late}, 150));
    CHECK(sequence.Retain({.policy = early}, 150));
  }
}

TEST_CASE("retain: a budget is shared out as its shape says, and adds up") {
  const CacheGeometry geometry = SmallGeometry(0);
  std::mt19937 random(16);
  const StepData text = RandomStep(random, geometry, kTokens);
  const auto cache = OpenCache(geometry);
  Sequence whole = Begin(*cache);
  RunRest(geometry, text, whole);
  for (const BudgetShape shape : {BudgetShape::kUniform, BudgetShape::kPyramid, BudgetShape::kAdaptive}) {
    CAPTURE(BudgetShapeName(shape));
    Sequence sequence = whole.Fork();
    REQUIRE(sequence.Retain({.policy = RetentionPolicy::kSnapKv, .shape = shape}, 140));
    std::vector<size_t> held;
    for (const auto& [layer, head] : {std::pair{0, 0}, {1, 0}, {2, 0}, {2, 1}}) {
      held.push_back(sequence.HeldPositions(layer, head).size());
    }
    CHECK(held[0] + held[1] + (held[2] + held[3]) / 2 == 3 * 140);
    if (shape == BudgetShape::kUniform) CHECK(std::ranges::count(held, 140) == 4);
    if (shape == BudgetShape::kPyramid) CHECK((held[0] > held[1] && held[1] > held[2] && held[2] == held[3]));
    if (shape == BudgetShape::kAdaptive) CHECK(held[2] != held[3]);
  }
}

TEST_CASE("retain: a sequence with gaps is cut only where it has none, and what can't be done changes nothing") {
  const CacheGeometry geometry = SmallGeometry(0);
  std::mt19937 random(17);
  const StepData text = RandomStep(random, geometry, kTokens);
  const auto cache = OpenCache(geometry);
  Sequence sequence = cache->Begin();
  RunRest(geometry, text, sequence);
  const auto code_of = [&](const RetentionOptions& options, int64_t num_tokens) {
    const auto report = sequence.Retain(options, num_tokens);
    REQUIRE(!report);
    return report.error().code;
  };
  CHECK(code_of({.policy = RetentionPolicy::kSnapKv}, 100) == ErrorCode::kFailedPrecondition);
  CHECK(code_of({.policy = RetentionPolicy::kKnorm}, 0) == ErrorCode::kInvalidArgument);
  CHECK(code_of({.policy = RetentionPolicy::kKnorm, .shape = BudgetShape::kAdaptive}, 100) ==
        ErrorCode::kInvalidArgument);
  CHECK(code_of({.policy = RetentionPolicy::kKnorm, .recent_tokens = -1}, 100) == ErrorCode::kInvalidArgument);
  CHECK(sequence.Observe(RetentionPolicy::kKnorm).error().code == ErrorCode::kInvalidArgument);
  CHECK(sequence.num_held_tokens() == kTokens);
  REQUIRE(sequence.Retain({.policy = RetentionPolicy::kFull}, 10));
  REQUIRE(sequence.Retain({.policy = RetentionPolicy::kKnorm}, kTokens));
  CHECK(sequence.num_held_tokens() == kTokens);

  REQUIRE(sequence.Retain({.policy = RetentionPolicy::kKnorm}, 120));
  CHECK(sequence.num_tokens() == kTokens);
  CHECK(sequence.Truncate(223).error().code == ErrorCode::kFailedPrecondition);
  CHECK(sequence.Remove(100, 110).error().code == ErrorCode::kFailedPrecondition);
  CHECK(sequence.num_held_tokens() == 120);
  REQUIRE(sequence.Truncate(230));
  CHECK(sequence.num_held_tokens() == 50);
  REQUIRE(sequence.Remove(225, 228));
  CHECK(sequence.num_tokens() == 227);
}

TEST_CASE("retain: a window keeps the first and the last tokens, whole blocks of them, and copies nothing") {
  const CacheGeometry geometry = SmallGeometry(0);
  std::mt19937 random(18);
  const StepData text = RandomStep(random, geometry, kTokens);
  const auto cache = OpenCache(geometry);
  Sequence sequence = cache->Begin();
  RunRest(geometry, text, sequence);
  REQUIRE(sequence.Retain({.policy = RetentionPolicy::kWindow}, 112));
  std::vector<int64_t> expected(16);
  std::iota(expected.begin(), expected.end(), 0);
  for (int64_t t = 192; t < kTokens; ++t) expected.push_back(t);
  CHECK(sequence.HeldPositions(2, 1) == expected);
}

TEST_CASE("retain: what is computed with gaps in view is nobody's prefix") {
  const CacheGeometry geometry = SmallGeometry(0);
  std::mt19937 random(19);
  const StepData text = RandomStep(random, geometry, kTokens + 100);
  CacheOptions options{.form = kF32, .budget_bytes = kBudget};
  options.shares_prefixes = true;
  const auto cache = Cache::Open(geometry, options).value();
  Sequence sequence = cache->Begin();
  RunRest(geometry, text.Part(geometry, 0, kTokens), sequence);
  REQUIRE(sequence.Retain({.policy = RetentionPolicy::kKnorm}, 120));
  RunRest(geometry, text, sequence);
  Sequence other = cache->Begin();
  const ReuseReport reuse = other.Reuse(text.tokens);
  CHECK(other.num_tokens() == kTokens / kBlockTokens * kBlockTokens);  // full blocks of before, still idle
  CHECK(reuse.shared_tokens == other.num_tokens());
  CHECK(sequence.Reuse(text.tokens).shared_tokens == 0);
}

TEST_CASE("retain: a session of a sequence with gaps has its tokens, and those after the gap are computed again") {
  const CacheGeometry geometry = SmallGeometry(0);
  const TestFolder folder;
  std::mt19937 random(20);
  const StepData text = RandomStep(random, geometry, kTokens);
  const CacheOptions options = OptionsWithDisk(folder);
  {
    const auto cache = Cache::Open(geometry, options).value();
    Sequence sequence = cache->Begin();
    RunRest(geometry, text, sequence);
    REQUIRE(sequence.Retain({.policy = RetentionPolicy::kKnorm}, 120));
    REQUIRE(cache->Save("evicted", sequence));
  }
  const auto cache = Cache::Open(geometry, options).value();
  auto resumed = cache->Resume("evicted");
  REQUIRE(resumed);
  CHECK(resumed->tokens == text.tokens);
  CHECK(resumed->sequence.num_tokens() < kTokens);
  const StepOutput out = RunRest(geometry, text, resumed->sequence);
  Sequence whole = cache->Begin("another salt");
  CHECK(Last(RunRest(geometry, text, whole), kTokens, 12) == Last(out, std::ssize(out[0]) / 16, 12));
}

TEST_CASE("retain: a sequence that is spilled while it is observed goes on, and had to be evicted before") {
  const CacheGeometry geometry = SmallGeometry(0);
  const TestFolder folder;
  std::mt19937 random(21);
  const StepData text = RandomStep(random, geometry, 1400);
  const auto cache = Cache::Open(geometry, OptionsWithDisk(folder, size_t{320} << 10)).value();
  Sequence sequence = Begin(*cache);
  RunRest(geometry, text, sequence, 64, [&](const StepData& part) {
    if (auto out = RunStepOnThreads(geometry, part, sequence, 1)) return *std::move(out);
    REQUIRE(sequence.Spill(std::ssize(part.tokens)));
    return RunStepOnThreads(geometry, part, sequence, 1).value();
  });
  CHECK(sequence.num_spilled_tokens() > 0);
  const auto report = sequence.Retain({.policy = RetentionPolicy::kH2o}, 120);
  REQUIRE_FALSE(report);
  CHECK(report.error().code == ErrorCode::kFailedPrecondition);
  CHECK(sequence.num_tokens() == 1400);
}

}  // namespace
}  // namespace kvist::retain_test
