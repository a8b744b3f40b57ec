// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <string>

#include "kvist/error.h"

namespace kvist {

// Where the script of that name in python/kvist is: beside an installed program, else in the source tree it was built
// in. kNotFound names both places.
Result<std::string> FindPythonScript(const std::string& name);

// Becomes the script of that name in python/kvist, run by the Python of the project's own environment where there is
// one, else by python3. arguments: for the script, ended by a null pointer. purpose: what needs it, to begin a sentence
// with ("fetching models"). Returns only when that fails: the exit code, after saying why.
int RunPythonScript(const char* name, const char* purpose, char** arguments);

}  // namespace kvist
