// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "kvist/sealing.h"

#include <string>

namespace kvist {

Status SealingOptions::Validate() const {
  if (recent_tokens >= 0 && sink_tokens >= 0 && begin_position >= 0) return {};
  return Fail(ErrorCode::kInvalidArgument, "sealing counts tokens: recent " + std::to_string(recent_tokens) +
                                               ", sinks " + std::to_string(sink_tokens) + " and begin " +
                                               std::to_string(begin_position) + " must not be negative");
}

}  // namespace kvist
