// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <CLI/CLI.hpp>

#include <cstdint>
#include <span>
#include <vector>

#include "engine/quality.h"
#include "model_options.h"
#include "record.h"
#include "report.h"

namespace kvist {

// `kvist eval -f TEXT --pages N,...`: what reading less in decode steps loses. Empty: not asked for.
void AddPagesOption(CLI::App* command, CLI::Option* text, std::vector<int64_t>* page_tokens);

// `tokens` of the text; quality.window_tokens is the prefix.
Status EvalPages(std::span<const int64_t> page_tokens, int64_t continuation_tokens, std::span<const Form> forms,
                 const LoadedModel& loaded, std::span<const Token> tokens, const QualityOptions& quality,
                 Progress& progress, bool as_json, Output& out);

}  // namespace kvist
