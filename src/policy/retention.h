// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kvist/retention.h"

// Scores of tokens, and which of them stay. Pure functions of one layer's numbers; nothing here knows how keys and
// values are stored.
namespace kvist {

// The numbers of a lane's tokens that somebody reads, beside their positions.
struct LaneParts {
  bool keys = false;
  bool values = false;
};
LaneParts PartsOf(RetentionPolicy policy);

// What a policy needs beside those.
struct WantedEvidence {
  bool recent = false;
  bool rows = false;  // of recent queries, each by itself
  bool mass = false;
  bool future_queries = false;
  bool peak = false;
  bool any() const { return recent || mass || future_queries || peak; }
};
WantedEvidence WantedOf(RetentionPolicy policy);

// Whether scores of different heads of a layer mean the same.
bool ScoresAreComparable(RetentionPolicy policy);

// Queries whose probabilities are looked at: 64 for SnapKV and one's own policy, 1 for TOVA.
int NumObservedQueries(RetentionPolicy policy);

// SnapKV's smoothing, in tokens.
inline constexpr int kSnapKvPooling = 5;
// Positions ahead over which Expected Attention averages, and what is added to a probability before it is weighed by
// the value's norm.
inline constexpr int kExpectedFuture = 512;
inline constexpr float kExpectedEpsilon = 1e-2f;

// The score of every token of one layer's lanes, [kv head][token]; higher is better. Of kOwn those of `own`.
// options.seed only matters to kRandom. REQUIRES: options.policy is not kFull.
std::vector<std::vector<float>> ScoreTokens(const RetentionOptions& options, int layer,
                                            std::span<const LaneEvidence> lanes, const TokenScorer& own = {});

// The tokens of a lane that may be given up: indexes [first, end).
struct CandidateRange {
  int64_t first = 0;
  int64_t end = 0;
  int64_t size() const { return end - first; }
};

// How many candidates each lane of a layer keeps on average, [layer], when all lanes together keep num_layers * k of
// them; no more than there are.
std::vector<int64_t> LayerBudgets(BudgetShape shape, int num_layers, int64_t num_kept, int64_t num_candidates);

// Indexes of the candidates that some lanes keep, ascending, [lane]: num_kept a lane, or as many together when the
// shape is adaptive (lanes of one layer) or global (lanes of all). Of equal scores the newer token's stays.
std::vector<std::vector<int32_t>> SelectTokens(BudgetShape shape, std::span<const std::vector<float>> scores,
                                               std::span<const CandidateRange> candidates, int64_t num_kept);

// The share of its even part that the adaptive shape leaves to every head.
inline constexpr double kAdaptiveFloor = 0.2;

}  // namespace kvist
