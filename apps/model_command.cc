// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "commands.h"
#include "python_script.h"

namespace kvist {

int RunModelCommand(char** arguments) {
  return RunPythonScript("models.py", "fetching models", arguments);
}

void AddModelCommand(CLI::App& program, Command*) {
  program.add_subcommand("model", "Fetch models to try kvist with: model get NAME, model list, model path NAME");
}

}  // namespace kvist
