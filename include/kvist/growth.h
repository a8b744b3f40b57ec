// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "kvist/error.h"

namespace kvist {

enum class GrowthKind : uint8_t {
  kExact,       // a block at a time, when it is needed: memory held is memory used
  kStatic,      // memory for max_tokens is taken at a sequence's first step, and the sequence can't get longer
  kDynamic,     // capacity grows by a factor whenever it is used up
  kPredictive,  // capacity follows the sequence's own recent steps
  kLearned,     // capacity follows how long earlier sequences got
};

// How far ahead of a sequence's tokens memory is taken. It never moves data: a block's address does not change and
// growing copies nothing, whatever is chosen here; what differs is memory taken too early against waits for memory.
// Memory ahead is a wish: when the budget is short it goes to what needs it now, from static sequences, too.
struct GrowthOptions {
  GrowthKind kind = GrowthKind::kExact;
  int64_t initial_tokens = 0;  // dynamic, predictive: capacity at a sequence's first step; 0 to 2^30
  double factor = 1.5;         // dynamic: 1.2 to 2.0
  int64_t max_tokens = 0;      // capacity never grows past it ahead of need; 0: no such limit. static needs it
  int window = 10;             // predictive: steps looked back, 2 to 1,000
  double margin = 0.10;        // predictive: added to the predicted growth, 0 to 1
  double confidence = 0.9;     // learned: memory is taken ahead for tokens at least this likely to come, 0.5 to 1
  bool operator==(const GrowthOptions&) const = default;

  Status Validate() const;  // kInvalidArgument names the option and its range
};

// "NAME" or "NAME:key=value,...", for instance "dynamic:initial=512,factor=1.5,max=8192". Keys are the options that
// the kind has: initial, factor, max, window, margin, confidence.
// kInvalidArgument names the unknown kind or key and the known ones, or the option and its range.
Result<GrowthOptions> ParseGrowth(std::string_view spec);
// The inverse, with every option that the kind has.
std::string GrowthSpec(const GrowthOptions& options);

}  // namespace kvist
