// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kvist/cache.h"
#include "kvist/error.h"

namespace kvist {

// A pattern of growth: how many tokens each step appends.
struct GrowthScenario {
  std::string table;  // which of the article's tables it belongs to: "dynamic", "predictive", "comprehensive", "append"
  std::string name;
  std::vector<int64_t> steps;
  int64_t initial_tokens = 256;  // what growing caches begin with, as the article has it for this table
  int64_t static_tokens = 4000;  // and static ones
};
std::vector<GrowthScenario> GrowthScenarios();

// What one cache did in one scenario.
struct GrowthResult {
  std::string impl;         // "kvist", "article-static", "copy-and-grow", ...
  std::string growth;       // ours: the policy
  int64_t tokens = 0;       // held at the end
  int64_t refused_at = -1;  // the length at which a step did not fit; -1: all did
  double total_ms = 0;      // of all appends
  double append_max_ms = 0;
  double append_p999_ms = 0;
  size_t copied_bytes = 0;     // by growing
  size_t live_bytes = 0;       // at the end
  size_t committed_bytes = 0;  // at the end
  size_t peak_bytes = 0;       // committed, at any time
  size_t cumulative_bytes = 0;
  int64_t resizes = 0;     // times that capacity grew
  int64_t stalls = 0;      // times that an append had to wait for memory
  double utilisation = 0;  // tokens over room for tokens, at the end
  double peak_utilisation = 0;
  double least_utilisation = 1;  // from 512 tokens on
  double mean_growth = 1;        // predictive: mean ratio of a step to the one before
  double stability = 1;          // 1 / (1 + variance of that)
};

// Runs every cache through a scenario: the article's designs and ours with each of `growths` (specs as for
// ParseGrowth). geometry: one step stores keys and values of all its layers, in f32 for all contestants.
Result<std::vector<GrowthResult>> RunGrowthScenario(const GrowthScenario& scenario, const CacheGeometry& geometry,
                                                    const std::vector<std::string>& growths, int num_rounds);

// One request of a recorded load.
struct TraceRequest {
  int64_t prompt_tokens = 0;
  int64_t output_tokens = 0;
};
// Azure LLM inference (CSV with ContextTokens and GeneratedTokens) or Mooncake (one JSON object a line with
// input_length and output_length), by content. kNotFound, or kCorrupt with the line.
Result<std::vector<TraceRequest>> ReadTrace(const std::string& path, int64_t max_requests);

// Plays requests in their order, `num_slots` at a time: each appends its prompt, then a token a turn, and leaves.
Result<std::vector<GrowthResult>> RunGrowthTrace(const std::vector<TraceRequest>& requests, int num_slots,
                                                 const CacheGeometry& geometry, const std::vector<std::string>& growths,
                                                 const std::function<bool(int done, int all)>& progress);

// The geometry of the article's own benchmark: one layer of 32 heads of 128.
CacheGeometry ArticleGeometry();

}  // namespace kvist
