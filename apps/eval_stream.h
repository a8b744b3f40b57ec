// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <CLI/CLI.hpp>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/quality.h"
#include "model_options.h"
#include "record.h"
#include "report.h"

namespace kvist {

// `kvist eval -f TEXT --stream SPEC`: how a text far longer than the window is predicted, part by part.
struct StreamArguments {
  std::vector<std::string> streams;  // empty: not asked for
  int64_t num_tokens = 0;            // of the text; 0: all
  int num_parts = 10;
};

void AddStreamOptions(CLI::App* command, CLI::Option* text, StreamArguments* arguments);

// `tokens` of the text; of `quality` the cache and the token that begins a text count.
// params: what is held fixed, for records.
Status EvalStreams(const StreamArguments& arguments, std::span<const Form> forms, const LoadedModel& loaded,
                   std::span<const Token> tokens, const QualityOptions& quality, Json params, Progress& progress,
                   bool as_json, Output& out);

}  // namespace kvist
