// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <string_view>

#include "kvist/error.h"

namespace kvist {

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailure = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitInterrupted = 130;  // as shells report a program that Ctrl-C ended

// Says on stderr what went wrong (an interruption needs no words) and returns the exit code for it.
int Report(const Error& error);

// Says something that is no failure.
void Note(std::string_view text);

}  // namespace kvist
