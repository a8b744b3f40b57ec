// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "engine/measured_steps.h"

#include <string>

#include "engine/quality.h"

namespace kvist {

Status CheckWindows(const Model& model, std::span<const Token> text, int num_windows, int64_t window_tokens) {
  if (window_tokens > model.context_length()) {
    return Fail(ErrorCode::kInvalidArgument, "a window of " + std::to_string(window_tokens) +
                                                 " tokens; the model's context has " +
                                                 std::to_string(model.context_length()));
  }
  return CheckTextLength(text, num_windows, window_tokens);
}

}  // namespace kvist
