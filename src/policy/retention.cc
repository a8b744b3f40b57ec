// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "policy/retention.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <queue>
#include <string>
#include <type_traits>
#include <utility>

#include "base/round_up.h"

namespace kvist {
namespace {

using Scores = std::vector<float>;

constexpr std::pair<RetentionPolicy, const char*> kPolicyNames[] = {
    {RetentionPolicy::kFull, "full"},     {RetentionPolicy::kWindow, "window"},
    {RetentionPolicy::kRandom, "random"}, {RetentionPolicy::kArticleNorm, "article-norm"},
    {RetentionPolicy::kKnorm, "knorm"},   {RetentionPolicy::kKeyDiff, "keydiff"},
    {RetentionPolicy::kTova, "tova"},     {RetentionPolicy::kH2o, "h2o"},
    {RetentionPolicy::kSnapKv, "snapkv"}, {RetentionPolicy::kExpected, "expected"},
    {RetentionPolicy::kKvzip, "kvzip"},   {RetentionPolicy::kOwn, "own"}};
constexpr std::pair<BudgetShape, const char*> kShapeNames[] = {{BudgetShape::kUniform, "uniform"},
                                                               {BudgetShape::kPyramid, "pyramid"},
                                                               {BudgetShape::kAdaptive, "adaptive"},
                                                               {BudgetShape::kGlobal, "global"}};

template <class Value, size_t n>
const char* NameOf(const std::pair<Value, const char*> (&names)[n], Value value) {
  return std::ranges::find(names, value, &std::pair<Value, const char*>::first)->second;
}

template <class Value, size_t n>
Result<Value> Parse(const std::pair<Value, const char*> (&names)[n], const char* what, std::string_view name) {
  std::string known;
  for (const auto& [value, known_name] : names) {
    if constexpr (std::is_same_v<Value, RetentionPolicy>) {
      if (value == RetentionPolicy::kOwn) continue;  // has no meaning without a scorer
    }
    if (name == known_name) return value;
    known += (known.empty() ? "" : ", ") + std::string(known_name);
  }
  return Fail(ErrorCode::kInvalidArgument, "'" + std::string(name) + "' is no " + what + "; there are " + known);
}

double Norm(const float* row, int dim) {
  double sum = 0;
  for (int i = 0; i < dim; ++i) sum += double(row[i]) * row[i];
  return std::sqrt(sum);
}

const float* KeyOf(const LaneEvidence& lane, size_t token) {
  return lane.keys.data() + token * size_t(lane.key_dim);
}
const float* ValueOf(const LaneEvidence& lane, size_t token) {
  return lane.values.data() + token * size_t(lane.value_dim);
}

// --- policies: the scores of one lane ---

Scores WindowScores(const LaneEvidence& lane) {
  return {lane.positions.begin(), lane.positions.end()};
}

// The same numbers on every machine (SplitMix64).
Scores RandomScores(const LaneEvidence& lane, uint64_t seed) {
  Scores scores;
  for (const int32_t position : lane.positions) {
    uint64_t bits = (seed + uint64_t(position)) * 0x9e3779b97f4a7c15u;
    bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9u;
    bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebu;
    scores.push_back(float((bits ^ (bits >> 31)) >> 40));
  }
  return scores;
}

Scores ArticleNormScores(const LaneEvidence& lane) {
  Scores scores;
  for (size_t i = 0; i < lane.num_tokens(); ++i) {
    scores.push_back(float((Norm(KeyOf(lane, i), lane.key_dim) + Norm(ValueOf(lane, i), lane.value_dim)) / 2));
  }
  return scores;
}

Scores KnormScores(const LaneEvidence& lane) {
  Scores scores;
  for (size_t i = 0; i < lane.num_tokens(); ++i) scores.push_back(float(-Norm(KeyOf(lane, i), lane.key_dim)));
  return scores;
}

Scores KeyDiffScores(const LaneEvidence& lane) {
  const auto key_dim = size_t(lane.key_dim);
  std::vector<double> anchor(key_dim);
  std::vector<double> norms;
  for (size_t i = 0; i < lane.num_tokens(); ++i) {
    norms.push_back(std::max(Norm(KeyOf(lane, i), lane.key_dim), 1e-30));
    for (int c = 0; c < lane.key_dim; ++c) anchor[size_t(c)] += KeyOf(lane, i)[c] / norms.back();
  }
  const double anchor_norm =
      std::max(std::sqrt(std::inner_product(anchor.begin(), anchor.end(), anchor.begin(), 0.0)), 1e-30);
  Scores scores;
  for (size_t i = 0; i < lane.num_tokens(); ++i) {
    const float* key = KeyOf(lane, i);
    scores.push_back(float(-std::inner_product(anchor.begin(), anchor.end(), key, 0.0) / (norms[i] * anchor_norm)));
  }
  return scores;
}

// Average over so many neighbours, of which those outside count as 0.
Scores Pool(const Scores& scores, int size) {
  Scores pooled(scores.size());
  for (int64_t i = 0; i < std::ssize(scores); ++i) {
    double sum = 0;
    for (int64_t j = std::max<int64_t>(0, i - size / 2); j <= std::min(i + size / 2, std::ssize(scores) - 1); ++j) {
      sum += scores[size_t(j)];
    }
    pooled[size_t(i)] = float(sum / size);
  }
  return pooled;
}

// ln E[exp(scale q.k)] for a normal q: k.(scale mean + scale^2 / 2 covariance k), of some keys at once. Nothing else of
// a policy takes as long. The covariance is symmetric, so its lower half will do; it is met in small squares that stay
// in registers: some tokens by some of its columns. (Left to itself the compiler makes no vectors of them: four times
// as long.)
class ExpectedLogits {
 public:
  static constexpr size_t kTokens = 4;

  ExpectedLogits(const QueryMoments& moments, float scale)
      : dim_(moments.mean.size()),
        stride_(RoundUp(dim_, kColumns)),
        mean_(stride_),
        lower_(dim_ * stride_),
        keys_(kTokens * stride_) {
    const auto& mean = moments.mean;
    for (size_t i = 0; i < dim_; ++i) {
      mean_[i] = scale * mean[i];
      for (size_t j = 0; j <= i; ++j) {
        const float covariance = moments.second[i * dim_ + j] - mean[i] * mean[j];
        lower_[i * stride_ + j] = scale * scale / 2 * covariance * (j < i ? 2 : 1);
      }
    }
  }

  // keys: [token][dim] of 1 to kTokens tokens.
  std::array<float, kTokens> Of(std::span<const float> keys) {
    for (size_t token = 0; token * dim_ < keys.size(); ++token) {
      std::ranges::copy(keys.subspan(token * dim_, dim_), keys_.begin() + int64_t(token * stride_));
    }
    Four logits[kTokens] = {};
    for (size_t first = 0; first < dim_; first += kColumns) {
      Four sums[kTokens][2];
      for (auto& of_token : sums) of_token[0] = Load(&mean_[first]), of_token[1] = Load(&mean_[first + 4]);
      for (size_t i = first; i < dim_; ++i) {
        const Four left = Load(&lower_[i * stride_ + first]), right = Load(&lower_[i * stride_ + first + 4]);
        for (size_t token = 0; token < kTokens; ++token) {
          sums[token][0] += keys_[token * stride_ + i] * left;
          sums[token][1] += keys_[token * stride_ + i] * right;
        }
      }
      for (size_t token = 0; token < kTokens; ++token) {
        const float* key = &keys_[token * stride_ + first];
        logits[token] += sums[token][0] * Load(key) + sums[token][1] * Load(key + 4);
      }
    }
    std::array<float, kTokens> out;
    for (size_t token = 0; token < kTokens; ++token) {
      out[token] = (logits[token][0] + logits[token][1]) + (logits[token][2] + logits[token][3]);
    }
    return out;
  }

 private:
  using Four = float __attribute__((vector_size(4 * sizeof(float))));
  static constexpr size_t kColumns = 8;
  static Four Load(const float* from) {
    Four four;
    std::memcpy(&four, from, sizeof(four));
    return four;
  }

  const size_t dim_, stride_;
  std::vector<float> mean_;   // scaled
  std::vector<float> lower_;  // [row][column], scaled: twice what is below the covariance's diagonal
  std::vector<float> keys_;   // [token][column]
};

Scores ExpectedScores(const LaneEvidence& lane) {
  std::vector<double> expected(lane.num_tokens());
  for (const QueryMoments& moments : lane.future_queries) {
    ExpectedLogits logits(moments, lane.attention_scale);
    std::vector<double> weights;
    for (size_t first = 0; first < lane.num_tokens(); first += logits.kTokens) {
      const size_t count = std::min(logits.kTokens, lane.num_tokens() - first);
      const auto some = logits.Of({KeyOf(lane, first), count * size_t(lane.key_dim)});
      weights.insert(weights.end(), some.begin(), some.begin() + int64_t(count));
    }
    const double largest = std::ranges::max(weights);
    double sum = 0;
    for (double& weight : weights) sum += weight = std::exp(weight - largest);
    for (size_t i = 0; i < weights.size(); ++i) expected[i] += weights[i] / sum;
  }
  Scores scores;
  for (size_t i = 0; i < lane.num_tokens(); ++i) {
    const double mean = expected[i] / double(lane.future_queries.size());
    scores.push_back(float((mean + double(kExpectedEpsilon)) * Norm(ValueOf(lane, i), lane.value_dim)));
  }
  return scores;
}

// All heads of a layer keep the same tokens as long as they hold the same ones.
void ShareScores(std::span<const LaneEvidence> lanes, std::vector<Scores>& scores) {
  const bool hold_the_same =
      std::ranges::all_of(lanes, [&](const LaneEvidence& lane) { return lane.positions == lanes.front().positions; });
  if (!hold_the_same) return;
  Scores mean(lanes.front().num_tokens());
  for (const Scores& of_lane : scores)
    for (size_t i = 0; i < mean.size(); ++i) mean[i] += of_lane[i] / float(lanes.size());
  std::ranges::fill(scores, mean);
}

Scores ScoreLane(const RetentionOptions& options, uint64_t lane_seed, const LaneEvidence& lane) {
  switch (options.policy) {
    case RetentionPolicy::kFull:
    case RetentionPolicy::kWindow:
      return WindowScores(lane);
    case RetentionPolicy::kRandom:
      return RandomScores(lane, lane_seed);
    case RetentionPolicy::kArticleNorm:
      return ArticleNormScores(lane);
    case RetentionPolicy::kKnorm:
      return KnormScores(lane);
    case RetentionPolicy::kKeyDiff:
      return KeyDiffScores(lane);
    case RetentionPolicy::kTova:
      return lane.recent;  // of one query
    case RetentionPolicy::kH2o:
      return lane.mass;
    case RetentionPolicy::kSnapKv:
      return Pool(lane.recent, kSnapKvPooling);
    case RetentionPolicy::kExpected:
      return ExpectedScores(lane);
    case RetentionPolicy::kKvzip:
      return lane.peak;
    case RetentionPolicy::kOwn:
      break;
  }
  std::unreachable();
}

// --- which tokens stay ---

// Candidate indexes, the best first.
std::vector<int32_t> Ranked(const Scores& scores, CandidateRange candidates) {
  std::vector<int32_t> ranked(size_t(candidates.size()));
  std::iota(ranked.begin(), ranked.end(), int32_t(candidates.first));
  std::ranges::sort(ranked, [&](int32_t a, int32_t b) {
    return scores[size_t(a)] != scores[size_t(b)] ? scores[size_t(a)] > scores[size_t(b)] : a > b;
  });
  return ranked;
}

// How many each lane keeps: its safe part, and then whoever has the best of what is left.
std::vector<size_t> BestCounts(std::span<const Scores> scores, std::span<const std::vector<int32_t>> ranked,
                               int64_t num_kept, double floor) {
  const auto num_safe = size_t(floor * double(num_kept));
  std::vector<size_t> counts;
  size_t num_left = size_t(num_kept) * scores.size();
  struct Next {
    float score;
    size_t lane;
    bool operator<(const Next& other) const {  // of equal ones the first lane's goes first
      return score != other.score ? score < other.score : lane > other.lane;
    }
  };
  std::priority_queue<Next> nexts;
  const auto push_next = [&](size_t lane) {
    if (counts[lane] < ranked[lane].size()) nexts.push({scores[lane][size_t(ranked[lane][counts[lane]])], lane});
  };
  for (size_t lane = 0; lane < ranked.size(); ++lane) {
    counts.push_back(std::min(num_safe, ranked[lane].size()));
    num_left -= counts.back();
    push_next(lane);
  }
  for (; num_left > 0 && !nexts.empty(); --num_left) {
    const size_t lane = nexts.top().lane;
    nexts.pop();
    ++counts[lane];
    push_next(lane);
  }
  return counts;
}

}  // namespace

const char* RetentionPolicyName(RetentionPolicy policy) {
  return NameOf(kPolicyNames, policy);
}
Result<RetentionPolicy> ParseRetentionPolicy(std::string_view name) {
  return Parse(kPolicyNames, "retention policy", name);
}
const char* BudgetShapeName(BudgetShape shape) {
  return NameOf(kShapeNames, shape);
}
Result<BudgetShape> ParseBudgetShape(std::string_view name) {
  return Parse(kShapeNames, "budget shape", name);
}

Status RetentionOptions::Validate() const {
  if (recent_tokens < 0 || sink_tokens < 0) {
    return Fail(ErrorCode::kInvalidArgument, "retention counts tokens: recent " + std::to_string(recent_tokens) +
                                                 " and sinks " + std::to_string(sink_tokens) + " must not be negative");
  }
  if (policy == RetentionPolicy::kWindow && shape != BudgetShape::kUniform) {
    return Fail(ErrorCode::kInvalidArgument, std::string("the policy window keeps the same tokens in every lane, so "
                                                         "that there is nothing for the budget shape ") +
                                                 BudgetShapeName(shape) + " to share out; leave the shape out");
  }
  const bool compares = shape == BudgetShape::kAdaptive || shape == BudgetShape::kGlobal;
  if (compares && !ScoresAreComparable(policy)) {
    return Fail(ErrorCode::kInvalidArgument,
                std::string("the budget shape ") + BudgetShapeName(shape) +
                    " compares the scores of heads, and those of the policy " + RetentionPolicyName(policy) +
                    " can't be compared; use h2o, snapkv, tova, expected or kvzip, or the shape uniform or pyramid");
  }
  return {};
}

LaneParts PartsOf(RetentionPolicy policy) {
  switch (policy) {
    case RetentionPolicy::kFull:
    case RetentionPolicy::kWindow:
    case RetentionPolicy::kRandom:
    case RetentionPolicy::kKvzip:
      return {};
    case RetentionPolicy::kKnorm:
    case RetentionPolicy::kKeyDiff:
    case RetentionPolicy::kTova:
    case RetentionPolicy::kH2o:
    case RetentionPolicy::kSnapKv:
      return {.keys = true};
    case RetentionPolicy::kArticleNorm:
    case RetentionPolicy::kExpected:
    case RetentionPolicy::kOwn:
      break;
  }
  return {.keys = true, .values = true};
}

WantedEvidence WantedOf(RetentionPolicy policy) {
  return {.recent = policy == RetentionPolicy::kTova || policy == RetentionPolicy::kSnapKv,
          .mass = policy == RetentionPolicy::kH2o,
          .future_queries = policy == RetentionPolicy::kExpected,
          .peak = policy == RetentionPolicy::kKvzip};
}

bool NeedsObserving(RetentionPolicy policy) {
  const WantedEvidence wanted = WantedOf(policy);
  return wanted.recent || wanted.mass || wanted.future_queries;
}

bool NeedsRepetition(RetentionPolicy policy) {
  return WantedOf(policy).peak;
}

bool ScoresAreComparable(RetentionPolicy policy) {
  return policy == RetentionPolicy::kOwn || WantedOf(policy).any();  // probabilities are; norms and angles are not
}

int NumObservedQueries(RetentionPolicy policy) {
  const bool is_many = policy == RetentionPolicy::kSnapKv || policy == RetentionPolicy::kOwn;
  return is_many ? 64 : policy == RetentionPolicy::kTova ? 1 : 0;
}

std::vector<std::vector<float>> ScoreTokens(const RetentionOptions& options, int layer,
                                            std::span<const LaneEvidence> lanes, const TokenScorer& own) {
  std::vector<Scores> scores;
  for (size_t head = 0; head < lanes.size(); ++head) {
    const uint64_t lane_seed = (options.seed << 40) + (uint64_t(layer) << 28) + (uint64_t(head) << 20);
    scores.push_back(options.policy == RetentionPolicy::kOwn ? own(layer, int(head), lanes[head])
                                                             : ScoreLane(options, lane_seed, lanes[head]));
    // A number that is none must not decide the order of the others.
    for (float& score : scores.back())
      if (std::isnan(score)) score = -std::numeric_limits<float>::infinity();
  }
  if (options.policy == RetentionPolicy::kTova) ShareScores(lanes, scores);
  return scores;
}

std::vector<int64_t> LayerBudgets(BudgetShape shape, int num_layers, int64_t num_kept, int64_t num_candidates) {
  constexpr int64_t kSteepness = 20;  // the first layer's budget is that many times the last one's, less one
  num_kept = std::min(num_kept, num_candidates);
  std::vector<int64_t> budgets(size_t(num_layers), num_kept);
  if (shape != BudgetShape::kPyramid || num_layers < 2) return budgets;
  int64_t most = 2 * num_kept - num_kept / kSteepness;
  most = std::min(most, num_candidates);
  const int64_t least = 2 * num_kept - most;
  int64_t total = 0;
  for (int i = 0; i < num_layers; ++i) {
    budgets[size_t(i)] = most - (most - least) * i / (num_layers - 1);
    total += budgets[size_t(i)];
  }
  // Rounding must not make it cheaper or dearer than an even one.
  int64_t left = num_kept * num_layers - total;
  for (size_t i = 0; left != 0; i = (i + 1) % budgets.size()) {
    const int64_t change = left > 0 ? 1 : -1;
    if (budgets[i] + change < 0 || budgets[i] + change > num_candidates) continue;
    budgets[i] += change;
    left -= change;
  }
  return budgets;
}

std::vector<std::vector<int32_t>> SelectTokens(BudgetShape shape, std::span<const std::vector<float>> scores,
                                               std::span<const CandidateRange> candidates, int64_t num_kept) {
  std::vector<std::vector<int32_t>> ranked;
  for (size_t lane = 0; lane < scores.size(); ++lane) ranked.push_back(Ranked(scores[lane], candidates[lane]));
  std::vector<size_t> counts(scores.size(), size_t(num_kept));
  if (shape == BudgetShape::kAdaptive) counts = BestCounts(scores, ranked, num_kept, kAdaptiveFloor);
  if (shape == BudgetShape::kGlobal) counts = BestCounts(scores, ranked, num_kept, 0);
  for (size_t lane = 0; lane < ranked.size(); ++lane) {
    ranked[lane].resize(std::min(counts[lane], ranked[lane].size()));
    std::ranges::sort(ranked[lane]);
  }
  return ranked;
}

}  // namespace kvist
