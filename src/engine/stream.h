// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kvist/cache.h"

namespace kvist {

// A text without end in a sequence of bounded length (StreamingLLM, Xiao 2023). When the window is full it slides: all
// but the first and the last tokens are taken out, and what stays moves to the front, so that positions are bounded,
// too. Nothing is rewritten, and the ten thousandth slide is as exact as the first.
struct StreamOptions {
  int64_t window_tokens = 1024;  // that the sequence holds at most
  int64_t overlap_tokens = 128;  // last ones, that stay when it slides
  int64_t sink_tokens = 4;       // first ones, that always stay: without them a model loses its thread
  bool operator==(const StreamOptions&) const = default;

  // kInvalidArgument: a window without room for 64 tokens more than what stays, or not within the model's context; an
  // overlap shorter than the window of the model's own that some layers have.
  Status Validate(const CacheGeometry& geometry, int64_t context_length) const;
};

// "window=1024,overlap=128,sinks=4", any of them or none.
Result<StreamOptions> ParseStream(std::string_view spec);
std::string StreamSpec(const StreamOptions& options);

// Of a text so far.
struct StreamStats {
  int64_t num_slides = 0;
  int64_t num_retired_tokens = 0;  // that have left the window
};

// What a stream has seen.
class Stream {
 public:
  explicit Stream(const StreamOptions& options) : options_(options) {}

  const StreamOptions& options() const { return options_; }
  // Slides if the step's tokens would not fit behind the sequence's. REQUIRES: they are no more than the window has
  // room for behind what stays (max_step_tokens).
  // Errors as Sequence::Remove.
  Status MakeRoom(int64_t num_step_tokens, Sequence& sequence);
  int64_t max_step_tokens() const { return options_.window_tokens - options_.overlap_tokens - options_.sink_tokens; }

  // Every token there was, each once, in order: those that were taken out, too.
  std::vector<Token> full_context(const Sequence& sequence) const;
  int64_t num_retired_tokens() const { return static_cast<int64_t>(retired_.size()); }
  int64_t num_slides() const { return num_slides_; }
  StreamStats stats() const { return {num_slides_, num_retired_tokens()}; }

 private:
  StreamOptions options_;
  std::vector<Token> retired_;  // after the first ones
  int64_t num_slides_ = 0;
};

}  // namespace kvist
