// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <CLI/CLI.hpp>

#include <string>
#include <vector>

#include "bench/scenario/decode.h"
#include "model_options.h"

namespace kvist {

// What `kvist bench decode` and `kvist bench prefill` have in common.
struct SpeedArguments {
  ModelArguments model;
  std::vector<std::string> forms = {"f16"};
  std::vector<int64_t> pages;  // of decode, beside 0
  std::vector<int> threads;
  SpeedBench speed;
  bool json = false;
  bool progress = false;
};
// The defaults of --depth and --tokens are what arguments->speed holds.
void AddSpeedOptions(CLI::App* command, SpeedArguments* arguments);

// MeasureDecode or MeasurePrefill.
using MeasureSpeed = Result<std::vector<SpeedTiming>>(Model&, const SpeedBench&, const SpeedProgress&);

// Measures with each number of threads and prints a table, or with --json a record for each form, depth and number of
// threads. bench: "decode" or "prefill". Returns the exit code.
int RunSpeedBench(const char* bench, const SpeedArguments& arguments, MeasureSpeed* measure);

}  // namespace kvist
