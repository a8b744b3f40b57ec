// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace kvist {

// The caches of the article that Kvist grew from, rewritten in C++ as baselines to measure against. They are not part
// of the library and nothing uses them but `kvist bench growth`. Faults that would stop a measurement are mended
// (docs/benchmarks.md lists them); how they take and copy memory is theirs.

// What is stored for one token: `num_arrays` rows (K and V of each layer) of `row_floats` floats (all heads).
struct TokenShape {
  int num_arrays = 2;
  size_t row_floats = 0;
  size_t token_bytes() const { return size_t(num_arrays) * row_floats * sizeof(float); }
};

struct ArticleStats {
  int64_t num_tokens = 0;       // held
  int64_t capacity_tokens = 0;  // room
  size_t live_bytes = 0;
  size_t allocated_bytes = 0;   // now
  size_t peak_bytes = 0;        // the most at one time, old and new memory while growing included
  size_t cumulative_bytes = 0;  // the article's "total allocated": all allocations ever, summed
  size_t copied_bytes = 0;
  int64_t num_resizes = 0;
};

class ArticleCache {
 public:
  virtual ~ArticleCache() = default;
  // Stores n more tokens; rows: [token, row_floats], used for every array. False when they don't fit: what the article
  // raises an exception for; nothing has changed then.
  virtual bool Append(const float* rows, int64_t num_tokens) = 0;
  virtual ArticleStats stats() const = 0;
};

// One zeroed allocation of max_tokens.
std::unique_ptr<ArticleCache> MakeArticleStatic(TokenShape shape, int64_t max_tokens);
// Grows by allocating anew and copying everything, through a clone as the article does.
std::unique_ptr<ArticleCache> MakeArticleDynamic(TokenShape shape, int64_t initial_tokens, double factor,
                                                 int64_t max_tokens);
// The best that growing by copying can do: one copy. Not the article's, but the fairer one to compare with.
std::unique_ptr<ArticleCache> MakeCopyAndGrow(TokenShape shape, int64_t initial_tokens, double factor,
                                              int64_t max_tokens);
// The article's dynamic cache, growing ahead by what the last steps let it expect.
std::unique_ptr<ArticleCache> MakeArticlePredictive(TokenShape shape, int64_t initial_tokens, int history_window,
                                                    int64_t max_tokens);
// A fast part of fixed size; when it is full, its older half is copied out to a list.
std::unique_ptr<ArticleCache> MakeArticleHierarchical(TokenShape shape, int64_t fast_tokens, int64_t slow_tokens);
// Keeps that share of every append, the tokens of the largest norm, and concatenates anew each time.
std::unique_ptr<ArticleCache> MakeArticleCompressed(TokenShape shape, double ratio, int64_t max_tokens);

}  // namespace kvist
