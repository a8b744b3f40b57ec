// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include <memory>

#include "bench_commands.h"
#include "bench_speed.h"

namespace kvist {

void AddBenchPrefill(CLI::App* bench, Command* chosen) {
  CLI::App* command = bench->add_subcommand("prefill", "Tokens a second of a prompt, by what is stored before");
  auto arguments = std::make_shared<SpeedArguments>();
  arguments->speed.depths = {0, 2048};
  arguments->speed.num_tokens = 512;
  AddSpeedOptions(command, arguments.get());
  command->callback([=] { *chosen = [=] { return RunSpeedBench("prefill", *arguments, MeasurePrefill); }; });
}

}  // namespace kvist
