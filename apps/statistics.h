// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <optional>
#include <string>

#include "engine/generator.h"
#include "model_options.h"
#include "record.h"

namespace kvist {

// Tokens, speed and memory of what was generated, beside what a cache of the model's full context would take from the
// start. As lines for people and as an object for programs.
std::string StatisticsText(const GenerationStats& stats, const LoadedModel& loaded);
// A line a tier. Blocks are written when their sequence ends: call it after that and Cache::Flush, if that is near.
std::string TiersText(const Cache& cache);
Json TiersJson(const Cache& cache);
void NoteFailures(const Cache& cache);  // of tiers, for who does not ask for statistics; nothing where there are none
std::string ReuseText(const ReuseReport& reuse, const Tokenizer& tokenizer);
std::string StreamText(const std::optional<StreamStats>& stream);  // nothing where there is none
std::string RetainedText(const RetainStats& retained);             // nothing when no tokens were given up
Json ReuseJson(const ReuseReport& reuse);
Json StatisticsJson(const GenerationStats& stats, const LoadedModel& loaded);

}  // namespace kvist
