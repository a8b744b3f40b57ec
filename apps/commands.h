// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <CLI/CLI.hpp>

#include <functional>

namespace kvist {

// What the command line asks for; returns the exit code.
using Command = std::function<int()>;

// Each adds a sub-command to the program. When the command line names it, *chosen is set to run it.
void AddGenerateCommand(CLI::App& program, Command* chosen);
void AddChatCommand(CLI::App& program, Command* chosen);
void AddSessionCommand(CLI::App& program, Command* chosen);
void AddInspectCommand(CLI::App& program, Command* chosen);
void AddEvalCommand(CLI::App& program, Command* chosen);
void AddBenchCommand(CLI::App& program, Command* chosen);
void AddModelCommand(CLI::App& program, Command* chosen);
void AddReportCommand(CLI::App& program, Command* chosen);
void AddIsaCommand(CLI::App& program, Command* chosen);

// `kvist model ...`: becomes models.py with the arguments after "model". Returns only when that fails.
int RunModelCommand(char** arguments);
// `kvist report ...`: the same with report.py.
int RunReportCommand(char** arguments);

}  // namespace kvist
