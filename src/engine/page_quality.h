// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "engine/quality.h"
#include "kvist/cache.h"
#include "kvist/error.h"
#include "model/model.h"

namespace kvist {

// What leaving out blocks in decode steps (Sequence::SelectPages) does to a model's predictions. A text's prefix is
// computed with everything in view; what follows is fed one token at a time, as when text is generated, and what is
// predicted after each is compared with what is predicted when everything is read, in the same form.
struct PageQualityOptions {
  int64_t prefix_tokens = 4096;
  int64_t continuation_tokens = 256;
  int num_windows = 2;
  CacheOptions cache = {};  // its form does not count
  std::optional<Token> bos = {};
};

// One form and number of tokens, over all windows.
struct PageQuality {
  Form form;
  int64_t page_tokens = 0;  // that a lane reads; 0: everything, the base that the others are compared with
  Estimate kl;
  double same_top = 0;
  double perplexity = 0;
};

// For each form its base, then page_tokens in turn.
// kInvalidArgument: no form or number, too few tokens of text, a window longer than the model's context; kCancelled
// when progress(done, all) returns false; what Forward returns.
Result<std::vector<PageQuality>> MeasurePages(Model& model, std::span<const Token> text, std::span<const Form> forms,
                                              std::span<const int64_t> page_tokens, const PageQualityOptions& options,
                                              const std::function<bool(int64_t, int64_t)>& progress);

}  // namespace kvist
