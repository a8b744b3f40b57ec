// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "bench/micro/roofline.h"
#include "bench/micro/torch_attention.h"
#include "kvist/error.h"
#include "kvist/geometry.h"
#include "model/attention_contest.h"

namespace kvist {

struct AttentionBench {
  std::vector<std::string> models = {"smollm2"};  // geometries by name, see AttentionGeometry
  int num_layers = 0;                             // of each that are computed; 0: all
  std::vector<std::string> forms;                 // ours
  std::vector<std::string> ggml_types;            // contestants
  std::vector<std::string> torch_types = {};      // contestants
  TorchPython torch = {};                         // what they need
  std::vector<std::string> phases;                // "decode", "prefill"
  std::vector<int> tokens;                        // in all, the step's included
  std::vector<int> threads;
  int num_rounds = 7;  // each runs every contestant once, in turn
};

struct AttentionTiming {
  std::string model;
  int num_layers = 0;        // that were computed
  int num_model_layers = 0;  // that the model has
  std::string impl;          // "kvist", "ggml" or "torch"
  std::string form;
  std::string phase;
  int tokens = 0;
  int threads = 0;
  double median_ms = 0;  // of the layers that were computed
  double gb_per_s = 0;   // bytes that must be read at least once, over the median
  RooflineWork work = {};
  RooflineTime least_time = {};  // under the roofline of as many threads
  double roofline_share = 0;     // least_time over the median. Above 1 when caches kept what should come from memory
};

struct AttentionResults {
  std::vector<AttentionTiming> timings;
  std::map<int, Roofline> threads_to_roofline;
};

// "smollm2", "gemma3", "llama3-8b", "qwen2.5-7b". kInvalidArgument names these.
Result<CacheGeometry> AttentionGeometry(const std::string& name);

// What a task can't do without, for keys and values of a form or type by name ("f16", "q8/q4", "q8_0"): the query is
// multiplied with each key it sees, and each value is added, in f32, or with bytes where K or V are quantised.
RooflineWork AttentionWork(const AttentionTask& task, std::string_view form, size_t num_bytes_read);

// Whether the contestants of each case fit into so much memory side by side. kOutOfMemory says how many layers would.
Status CheckAttentionMemory(const AttentionBench& bench, size_t free_bytes);

// Times all contestants side by side: machines are noisy, so every round runs each once and medians are compared.
// The rooflines are measured before and after, and the better counts.
// `progress` is called before each round; false stops with kCancelled.
Result<AttentionResults> MeasureAttention(const AttentionBench& bench,
                                          const std::function<bool(int done, int all)>& progress);

}  // namespace kvist
