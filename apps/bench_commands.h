// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include "commands.h"

namespace kvist {

// The sub-commands of `kvist bench`, one a file.
void AddBenchAttention(CLI::App* bench, Command* chosen);
void AddBenchDecode(CLI::App* bench, Command* chosen);
void AddBenchGrowth(CLI::App* bench, Command* chosen);
void AddBenchLoad(CLI::App* bench, Command* chosen);
void AddBenchMoved(CLI::App* bench, Command* chosen);
void AddBenchPrefill(CLI::App* bench, Command* chosen);
void AddBenchSpeedup(CLI::App* bench, Command* chosen);
void AddBenchTiers(CLI::App* bench, Command* chosen);

}  // namespace kvist
