// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "kvist/error.h"
#include "kvist/geometry.h"

namespace kvist {

struct AttentionBench {
  std::string model = "smollm2";        // a geometry by name, see AttentionGeometry
  std::vector<std::string> forms;       // ours
  std::vector<std::string> ggml_types;  // contestants
  std::vector<std::string> phases;      // "decode", "prefill"
  std::vector<int> tokens;              // in all, the step's included
  std::vector<int> threads;
  int num_rounds = 7;  // each runs every contestant once, in turn
};

struct AttentionTiming {
  std::string impl;  // "kvist" or "ggml"
  std::string form;
  std::string phase;
  int tokens = 0;
  int threads = 0;
  double median_ms = 0;  // all layers
  double gb_per_s = 0;   // bytes that must be read at least once, over the median
};

// "smollm2", "gemma3", "llama3-8b", "qwen2.5-7b". kInvalidArgument names these.
Result<CacheGeometry> AttentionGeometry(const std::string& name);

// Times all contestants side by side: machines are noisy, so every round runs each once and medians are compared.
// `progress` is called before each case; false stops with kCancelled.
Result<std::vector<AttentionTiming>> MeasureAttention(const AttentionBench& bench,
                                                      const std::function<bool(int done, int all)>& progress);

}  // namespace kvist
