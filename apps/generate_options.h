// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <CLI/CLI.hpp>

#include "engine/generator.h"
#include "model_options.h"

namespace kvist {

// The options of the commands that generate text.
struct GenerateArguments {
  ModelArguments model;
  GenerateOptions options;
  std::string system;
  bool use_template = false;
  bool stats = false;
  bool json = false;
  bool progress = false;
};
// The default of -n is what arguments->options.max_tokens holds.
void AddGenerateOptions(CLI::App* command, GenerateArguments* arguments);
// What to load: where tokens are given up or leave a window, and there is no tier for prefixes, what they were in is
// not kept as one either, so that its memory is free.
ModelArguments ModelToLoad(const GenerateArguments& arguments);

}  // namespace kvist
