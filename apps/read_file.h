// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <string>

#include "kvist/error.h"

namespace kvist {

// All bytes of a file; "-" is standard input. kNotFound, or kIo with the operating system's reason; kCancelled when it
// was interrupted.
Result<std::string> ReadFile(const std::string& path);

}  // namespace kvist
