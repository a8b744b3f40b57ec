// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <span>

#include "engine/generation.h"
#include "kvist/cache.h"
#include "kvist/error.h"
#include "model/model.h"

namespace kvist {

// Tokens of a text that a model's context holds, or fewer when a static sequence has room for fewer; a stream has no
// end.
int64_t MaxTextTokens(const Model& model, const Cache& cache, const GenerateOptions& options);

// kInvalidArgument for an empty prompt, an unknown token, a number of tokens out of range, or settings of retention and
// streams that can't be followed; kOutOfRange for a prompt longer than MaxTextTokens.
Status CheckRequest(const Model& model, const Cache& cache, std::span<const Token> prompt,
                    const GenerateOptions& options);

// kOutOfMemory when the cache's budget can't hold a prompt of so many tokens that is computed in steps of step_tokens:
// it is known before, so it is refused before the time for it is spent.
Status CheckPromptFits(const Cache& cache, int64_t num_prompt_tokens, int64_t step_tokens);

// How often a text begins again from before tokens that a tier has lost. A disk that loses more is of no use.
inline constexpr int kMostLosses = 16;

// An error of a step that would have made a text num_tokens long; kOutOfMemory is told with the bytes it would take.
Error ExplainStep(Error error, const Cache& cache, int64_t num_tokens);

}  // namespace kvist
