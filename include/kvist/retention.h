// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "kvist/error.h"

namespace kvist {

// Which of a sequence's tokens are worth keeping. Each policy gives every token of every lane a score; the best stay.
// Formulas and papers: docs/compression.md.
enum class RetentionPolicy : uint8_t {
  kFull,         // all of them
  kWindow,       // the first and the last (StreamingLLM, Xiao 2023)
  kRandom,       // any: the floor that a policy has to be better than
  kArticleNorm,  // the largest mean of key norm and value norm: the article's rule
  kKnorm,        // the smallest key norm (Devoto 2024)
  kKeyDiff,      // keys least like the lane's mean direction (Park 2025)
  kTova,         // what the last query attends to, mean over all heads (Oren 2024)
  kH2o,          // what every eighth query attended to, and as many of the last tokens (Zhang 2023)
  kSnapKv,       // what the last 64 queries attend to, smoothed over 5 tokens (Li 2024)
  kExpected,     // what queries of the positions to come are expected to attend to (Devoto 2025)
  kKvzip,  // what the model attends to when it repeats the text (Kim 2025): a second pass, Sequence::ObserveRepeating
  kOwn,    // what a TokenScorer says
};
inline constexpr RetentionPolicy kAllRetentionPolicies[] = {
    RetentionPolicy::kFull,   RetentionPolicy::kWindow,   RetentionPolicy::kRandom, RetentionPolicy::kArticleNorm,
    RetentionPolicy::kKnorm,  RetentionPolicy::kKeyDiff,  RetentionPolicy::kTova,   RetentionPolicy::kH2o,
    RetentionPolicy::kSnapKv, RetentionPolicy::kExpected, RetentionPolicy::kKvzip};
const char* RetentionPolicyName(RetentionPolicy policy);  // "snapkv", ...
// The inverse. kInvalidArgument names the known ones.
Result<RetentionPolicy> ParseRetentionPolicy(std::string_view name);

// Whether the policy looks at attention while a text is computed, so that Sequence::Observe has to come first.
bool NeedsObserving(RetentionPolicy policy);
// Whether it looks at attention while the text is repeated (Sequence::ObserveRepeating).
bool NeedsRepetition(RetentionPolicy policy);

// How the kept tokens are shared out among lanes.
enum class BudgetShape : uint8_t {
  kUniform,   // the same number in every lane
  kPyramid,   // more in the first layers than in the last, falling evenly (PyramidKV, Cai 2024)
  kAdaptive,  // within a layer, the heads with the best scores get more (AdaKV, Feng 2024)
  kGlobal,    // so do layers: the best scores of all lanes stay, wherever they are (KVzip, Kim 2025)
};
const char* BudgetShapeName(BudgetShape shape);  // "uniform", ...
Result<BudgetShape> ParseBudgetShape(std::string_view name);

struct RetentionOptions {
  RetentionPolicy policy = RetentionPolicy::kFull;
  BudgetShape shape = BudgetShape::kUniform;
  int64_t recent_tokens = 64;  // last tokens that are never given up, rounded up to whole blocks
  int64_t sink_tokens = 4;     // first ones, likewise
  uint64_t seed = 1;           // of kRandom
  bool operator==(const RetentionOptions&) const = default;

  // kInvalidArgument: a negative number; kAdaptive or kGlobal with a policy whose scores can't be compared between
  // heads.
  Status Validate() const;
};

// Of one query head: mean and second moment of its queries before they are rotated, E[q] and E[q qT] (binary32).
struct QueryMoments {
  std::vector<float> mean;    // [key_dim]
  std::vector<float> second;  // [key_dim][key_dim]
};

// One lane's tokens, in ascending order of position, and what attention has shown of them: all that a policy may know.
// What was not observed, or what the policy does not ask for, is empty.
struct LaneEvidence {
  int key_dim = 0;
  int value_dim = 0;
  std::vector<int32_t> positions;  // [token]
  std::vector<float> keys;         // [token][key_dim], rotated to their positions
  std::vector<float> values;       // [token][value_dim]
  // What the last 64 queries gave a token (softmax probabilities over all tokens), mean over them and the query heads.
  std::vector<float> recent;  // [token]
  // Each of those queries by itself; those of one query head after the other's, each in ascending order of position:
  // [row][token]. The last row of each head is the last query's. Only for a policy of one's own.
  int num_query_heads = 0;  // that read the lane; known always
  int num_rows_per_head = 0;
  std::vector<float> probabilities;
  // [token] sum of the probabilities that every eighth query gave it, mean over the query heads; where a lane holds
  // 2,048 tokens that every sixteenth gave it, doubled, and so on.
  std::vector<float> mass;
  std::vector<float> peak;  // [token] largest probability that any query gave it that repeated the text
  // Moments of the queries, turned to the positions to come: mean of the rotations applied; [query head].
  std::vector<QueryMoments> future_queries;
  float attention_scale = 1;  // on query.key; known always

  size_t num_tokens() const { return positions.size(); }
};

// A policy of one's own: a number for each of a lane's tokens, higher for what is rather to be kept. Called once for
// each lane, by several threads at once (as many as the machine has); called for all that a lane still holds, also for
// tokens that stay anyway. A score that is not a number counts as the lowest. Must not
// throw.
using TokenScorer = std::function<std::vector<float>(int layer, int kv_head, const LaneEvidence& lane)>;

// What Sequence::Retain has done.
struct RetentionReport {
  int64_t num_tokens = 0;      // of the sequence
  double num_kept_tokens = 0;  // that a lane of the layers without a window still holds, mean over lanes
  size_t freed_bytes = 0;      // of blocks the sequence let go of, less the memory of what was kept of them; in a cache
                               // that shares prefixes they are idle prefixes now, evicted when room is wanted
  double scoring_s = 0;        // time for reading and scoring
  double compacting_s = 0;     // and for copying what stays
};

}  // namespace kvist
