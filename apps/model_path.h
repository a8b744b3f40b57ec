// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <string>

#include "kvist/error.h"

namespace kvist {

// The folder of fetched models: $KVIST_MODELS_DIR, else kvist/models in the user's data folder, as in models.py.
std::string ModelsFolder();

// Where sessions and prefixes are kept when no other place is given: kvist/store in the user's data folder.
std::string DefaultStorePath();

// The file that `-m` means: a path, or the name of a model that `kvist model get` fetched.
// kNotFound says what was looked for and how to get it.
Result<std::string> FindModel(const std::string& path_or_name);

}  // namespace kvist
