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

// Of one query head: mean and second moment of its queries before they are rotated, E[q] and E[q qT] (binary32).
struct QueryMoments {
  std::vector<float> mean;    // [key_dim]
  std::vector<float> second;  // [key_dim][key_dim]
};

// One lane's tokens, in ascending order of position, and what attention has shown of them. What a policy does not ask
// for (WantedOf) may be empty.
struct LaneEvidence {
  int key_dim = 0;
  int value_dim = 0;
  std::vector<int32_t> positions;  // [token]
  std::vector<float> keys;         // [token][key_dim], rotated to their positions
  std::vector<float> values;       // [token][value_dim]
  // Softmax probabilities of the last queries over all tokens; those of one query head after the other's, each in
  // ascending order of position: [row][token]. The last row of each head is the last query's.
  int num_query_heads = 0;
  int num_rows_per_head = 0;
  std::vector<float> probabilities;
  std::vector<float> mass;  // [token] sum of the probabilities that queries gave it, mean over the query heads
  std::vector<float> peak;  // [token] largest probability that any query gave it that repeated the text
  // Moments of the queries, turned to the positions to come: mean of the rotations applied; [query head].
  std::vector<QueryMoments> future_queries;
  float attention_scale = 1;

  size_t num_tokens() const { return positions.size(); }
};

// What a policy needs beside keys and values.
struct WantedEvidence {
  bool probabilities = false;
  bool mass = false;
  bool future_queries = false;
  bool peak = false;
  bool any() const { return probabilities || mass || future_queries || peak; }
};
WantedEvidence WantedOf(RetentionPolicy policy);

// Whether scores of different heads of a layer mean the same.
bool ScoresAreComparable(RetentionPolicy policy);

// Queries whose probabilities are looked at: 64 for SnapKV, 1 for TOVA.
int NumObservedQueries(RetentionPolicy policy);

// SnapKV's smoothing, in tokens.
inline constexpr int kSnapKvPooling = 5;
// Positions ahead over which Expected Attention averages, and what is added to a probability before it is weighed by
// the value's norm.
inline constexpr int kExpectedFuture = 512;
inline constexpr float kExpectedEpsilon = 1e-2f;

// The score of every token of one layer's lanes, [kv head][token]; higher is better. `layer` and options.seed only
// matter to kRandom. REQUIRES: options.policy is not kFull.
std::vector<std::vector<float>> ScoreTokens(const RetentionOptions& options, int layer,
                                            std::span<const LaneEvidence> lanes);

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
