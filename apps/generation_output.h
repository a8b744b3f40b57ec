// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <functional>
#include <string>

#include "engine/generator.h"
#include "generate_options.h"
#include "statistics.h"
#include "terminal.h"

namespace kvist {

// Calls generate(events) so that the text is streamed to `out` (nothing of it with --json), with progress for a long
// prompt; ends with a newline. Stops at Ctrl-C and when `out` fails.
Result<Generation> GenerateTo(Output& out, const GenerateArguments& arguments,
                              const std::function<Result<Generation>(const GenerateEvents&)>& generate);

// After a text had no room: the options that give it more.
void NoteWhatFitsMore(const GenerateArguments& arguments);

// What --json prints for one generation. strategy: that the arguments' options follow, if any.
Json GenerationJson(const char* command, const Generation& generation, const GenerateArguments& arguments,
                    const LoadedModel& loaded, const std::string& strategy = {});

}  // namespace kvist
