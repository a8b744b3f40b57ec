// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/retaining.h"
#include "engine/stream.h"
#include "kvist/cache.h"
#include "kvist/growth.h"
#include "kvist/page_selection.h"
#include "kvist/reuse.h"
#include "model/sampler.h"
#include "model/tokenizer.h"

namespace kvist {

// Of a sequence, from its next step on.
struct SequenceSettings {
  bool is_sealing = true;                    // Sequence::SetSealing
  std::optional<GrowthOptions> growth = {};  // none: as it is, or as the cache's options say
  PageSelection pages = {};                  // Sequence::SelectPages; the default reads everything

  Status Validate() const;  // kInvalidArgument, kOutOfRange
  // Errors as Sequence::SetGrowth.
  Status Apply(Sequence& sequence) const;
};

struct GenerateOptions {
  int64_t max_tokens = 256;  // of output; 0: the prompt is computed and nothing more
  SequenceSettings sequence = {};
  RetainSettings retain = {};
  // The text has no end and slides through a window (Generator only; not together with retain).
  std::optional<StreamOptions> stream = {};
  SamplerOptions sampler = {};
  std::vector<std::string> stops = {};  // the output ends before the first of these
};

enum class FinishReason : uint8_t {
  kEnd,        // the model ended its text
  kStop,       // a stop string came
  kLength,     // max_tokens
  kContext,    // the model's context is full
  kCancelled,  // the caller asked to stop
};

// "end", "stop", "length", "context", "cancelled" as used in JSON output.
const char* FinishReasonName(FinishReason reason);

// Decode steps of a text that selects pages. Tokens are those of a lane, mean over lanes without a window, summed over
// the steps that left out some.
struct PagesStats {
  int64_t num_steps = 0;
  int64_t num_selecting_steps = 0;  // of them, that left out some
  double read_tokens = 0;
  double held_tokens = 0;  // that there were to read

  void Count(const Sequence& sequence);  // a step that it has just made
  PagesStats& operator+=(const PagesStats& other);
};

struct GenerationStats {
  int64_t prompt_tokens = 0;
  int64_t reused_tokens = 0;    // of the prompt, found in the sequence
  int64_t computed_tokens = 0;  // of the prompt
  int64_t output_tokens = 0;
  int64_t decode_steps = 0;  // one fewer than output tokens as a rule: the prompt itself gives the first
  double prefill_s = 0;
  double decode_s = 0;
  PagesStats pages;

  GenerationStats& operator+=(const GenerationStats& other);
};

struct Generation {
  std::string text;  // valid UTF-8
  std::vector<Token> tokens;
  FinishReason finish = FinishReason::kEnd;
  GenerationStats stats;
  ReuseReport reuse;  // where the prompt's tokens came from that were not computed
  RetainStats retained;
  std::optional<StreamStats> stream;  // where the text slides through a window
};

}  // namespace kvist
