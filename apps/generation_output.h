// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <span>

#include "engine/generator.h"
#include "generate_options.h"
#include "statistics.h"
#include "terminal.h"

namespace kvist {

// Generates and streams the text to `out` (nothing of it with --json), with progress for a long prompt; ends with a
// newline. Stops at Ctrl-C and when `out` fails. Errors as Generator::Generate.
Result<Generation> GenerateTo(Output& out, Generator& generator, std::span<const Token> prompt,
                              const GenerateArguments& arguments);

// What --json prints for one generation.
Json GenerationJson(const char* command, const Generation& generation, const GenerateArguments& arguments,
                    const LoadedModel& loaded);

}  // namespace kvist
