// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "report.h"

#include <cstdio>

namespace kvist {

int Report(const Error& error) {
  if (error.code == ErrorCode::kCancelled) return kExitInterrupted;
  std::fprintf(stderr, "kvist: error: %s\n", error.message.c_str());
  return error.code == ErrorCode::kInvalidArgument ? kExitUsage : kExitFailure;
}

void Note(std::string_view text) {
  std::fprintf(stderr, "kvist: note: %.*s\n", static_cast<int>(text.size()), text.data());
}

}  // namespace kvist
