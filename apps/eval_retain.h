// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <CLI/CLI.hpp>

#include <span>
#include <string>
#include <vector>

#include "engine/quality.h"
#include "model_options.h"
#include "record.h"
#include "report.h"

namespace kvist {

// `kvist eval -f TEXT --retain ... --pages ...`: what giving up tokens loses, and reading less of them.
struct RetainArguments {
  std::vector<std::string> policies;
  std::vector<int64_t> page_tokens;
  std::vector<std::string> shapes;  // none: each policy's own
  std::vector<double> keep = {0.25, 0.5, 0.75};
  int64_t recent_tokens = RetentionOptions().recent_tokens, sink_tokens = RetentionOptions().sink_tokens;
  int64_t continuation_tokens = 256;
  std::vector<int64_t> passkey_tokens;  // contexts in which keys are hidden; empty: no such test
  std::vector<int64_t> copy_tokens;     // in which passages are hidden; empty: no such test
  int num_asked = 10;                   // keys and passages, in each length

  bool is_asked_for() const {
    return !policies.empty() || !page_tokens.empty() || !passkey_tokens.empty() || !copy_tokens.empty();
  }
};

void AddRetainOptions(CLI::App* command, CLI::Option* text, RetainArguments* arguments);

// `tokens` of the text; quality.window_tokens is the prefix.
// params: what is held fixed, for records.
Status EvalRetention(const RetainArguments& arguments, std::span<const Form> forms, const LoadedModel& loaded,
                     std::span<const Token> tokens, const QualityOptions& quality, Json params, Progress& progress,
                     bool as_json, Output& out);

}  // namespace kvist
