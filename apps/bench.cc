// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "bench_commands.h"

namespace kvist {

void AddBenchCommand(CLI::App& program, Command* chosen) {
  CLI::App* bench = program.add_subcommand("bench", "Measure speed; see `kvist bench --help`");
  bench->require_subcommand(1);
  AddBenchAttention(bench, chosen);
  AddBenchDecode(bench, chosen);
  AddBenchGrowth(bench, chosen);
  AddBenchLoad(bench, chosen);
  AddBenchMoved(bench, chosen);
  AddBenchPrefill(bench, chosen);
  AddBenchSpeedup(bench, chosen);
  AddBenchTiers(bench, chosen);
}

}  // namespace kvist
