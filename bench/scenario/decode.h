// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "kvist/cache.h"
#include "model/model.h"

namespace kvist {

// Speed of a whole model, with each of several forms and page selections, at given depths.
struct SpeedBench {
  std::vector<Form> forms;
  std::vector<int64_t> depths;  // tokens in each sequence before
  int num_tokens = 32;          // generated, or of the piece of a prompt
  int num_sequences = 1;        // that are decoded together; prefill takes one
  int num_rounds = 5;           // each runs every form once, in turn
  // Tokens that a step reads of each sequence (Sequence::SelectPages); 0: all of them.
  std::vector<int64_t> page_tokens = {0};
};

struct SpeedTiming {
  Form form;
  int64_t page_tokens = 0;
  int64_t depth = 0;
  int num_threads = 0;
  double tokens_per_s = 0;  // of all sequences together; median of the rounds
  size_t kv_bytes = 0;      // live at that depth
};

// `progress` is called before each run with the runs done and their number; false stops with kCancelled.
using SpeedProgress = std::function<bool(int64_t done, int64_t all)>;

// Time to generate tokens one at a time, or one a sequence. The tokens before them are never computed: a sequence is
// filled with random keys and values, which take as long to attend to as any. Every run goes on from a fork, so all
// rounds begin with the same bytes; where pages are selected, behind two tokens more, with what is known of the keys by
// then. Holds the sequences of all forms at once.
// kOutOfRange for a depth that leaves no room for the tokens in the model's context; else as Cache::Open and
// Model::Forward.
Result<std::vector<SpeedTiming>> MeasureDecode(Model& model, const SpeedBench& bench, const SpeedProgress& progress);

// Time to compute num_tokens tokens of a prompt at once, in pieces as Generator feeds them. The rest is as above.
Result<std::vector<SpeedTiming>> MeasurePrefill(Model& model, const SpeedBench& bench, const SpeedProgress& progress);

}  // namespace kvist
