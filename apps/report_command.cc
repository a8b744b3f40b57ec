// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "commands.h"
#include "python_script.h"

namespace kvist {

int RunReportCommand(char** arguments) {
  return RunPythonScript("report.py", "making a report", arguments);
}

void AddReportCommand(CLI::App& program, Command*) {
  program.add_subcommand("report", "Make figures and a page of measured results: report RESULTS... -o DIR");
}

}  // namespace kvist
