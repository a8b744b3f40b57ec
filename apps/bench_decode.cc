// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include <memory>

#include "bench_commands.h"
#include "bench_speed.h"
#include "option_checks.h"

namespace kvist {

void AddBenchDecode(CLI::App* bench, Command* chosen) {
  CLI::App* command = bench->add_subcommand("decode", "Tokens a second that a model generates, by what is stored");
  auto arguments = std::make_shared<SpeedArguments>();
  arguments->speed.depths = {0, 1024, 4096, 8064};
  AddSpeedOptions(command, arguments.get());
  command->add_option("--sequences", arguments->speed.num_sequences, "Sequences that are continued together")
      ->check(CheckSequences)
      ->type_name("N")
      ->capture_default_str();
  command
      ->add_option("--pages", arguments->pages,
                   "Beside reading everything, read so many tokens of each sequence: those in the blocks that promise "
                   "the largest scores")
      ->delimiter(',')
      ->check(CheckCount)
      ->type_name("N,...");
  command->callback([=] { *chosen = [=] { return RunSpeedBench("decode", *arguments, MeasureDecode); }; });
}

}  // namespace kvist
