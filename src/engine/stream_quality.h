// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "engine/stream.h"
#include "kvist/cache.h"
#include "kvist/error.h"
#include "model/model.h"

namespace kvist {

// How well a model predicts a text that is far longer than its window, from first to last: whether it drifts is the
// question of StreamingLLM (Xiao 2023, 2309.17453).
struct StreamCase {
  Form form;
  StreamOptions stream;
  // What there is beside sliding: whenever the window is full, the last overlap tokens are computed anew. The sinks of
  // `stream` do not count then.
  bool recomputes = false;
};

struct StreamQualityOptions {
  int num_parts = 10;        // of the text, whose perplexities are told apart
  CacheOptions cache = {};   // its form does not count
  std::optional<Token> bos;  // begins what is computed anew
};

struct StreamQuality {
  StreamCase what;
  std::vector<double> perplexities;  // of the text's parts
  double perplexity = 0;             // of all of it
  int64_t num_slides = 0;
  int64_t num_recomputed_tokens = 0;
  size_t peak_live_bytes = 0;  // before any slide, and at the end
  double seconds = 0;
};

// kInvalidArgument: no case, a stream that the model can't have (StreamOptions::Validate), a text with fewer than two
// tokens a part; kCancelled when progress(done, all) returns false; what Forward returns.
Result<std::vector<StreamQuality>> MeasureStreams(Model& model, std::span<const Token> text,
                                                  std::span<const StreamCase> cases,
                                                  const StreamQualityOptions& options,
                                                  const std::function<bool(int64_t, int64_t)>& progress);

}  // namespace kvist
