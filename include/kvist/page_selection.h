// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>

#include "kvist/error.h"

namespace kvist {

// How much of a long sequence a decode step reads (Sequence::SelectPages). The idea is Quest's (Tang 2024, arXiv
// 2406.10774), whose pages are our blocks: from the largest and smallest value of each channel of a block's keys
// follows a score that none of them can exceed for a given query, and only the blocks that promise most are read.
struct PageSelection {
  // That a lane reads, in whole blocks, with those that are always read: the blocks of the first 4 and of the last 64
  // tokens, and open blocks of a quantised form. Kept tokens (Sequence::Retain) are read beside them. 0: all.
  int64_t num_tokens = 0;
  // The first so many layers read everything: their attention is spread too widely to be guessed.
  int num_dense_layers = 2;

  bool operator==(const PageSelection&) const = default;
  Status Validate() const;  // kInvalidArgument: a negative number
};

}  // namespace kvist
