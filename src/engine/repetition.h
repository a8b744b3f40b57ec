// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "kvist/cache.h"
#include "model/model.h"
#include "model/tokenizer.h"

namespace kvist {

// What asks a model to repeat the text before it, and to go on with it.
struct RepeatPrompts {
  std::vector<Token> first;
  std::vector<Token> next;  // the last tokens of what was repeated so far follow
};
RepeatPrompts MakeRepeatPrompts(const Tokenizer& tokenizer);

// kOutOfRange when the model's context has no room for a chunk of 64 tokens behind a text of so many.
Status CheckRoomToRepeat(const Model& model, const RepeatPrompts& prompts, int64_t num_tokens);

// The second pass of KVzip (Kim 2025, arXiv 2505.23416): the model is given the sequence's text again, chunk after
// chunk of up to 2,048 tokens, as its own answer to the request to repeat it. What each token was attended to at most
// is noted in the sequence, for Sequence::Retain with kKvzip; the sequence is otherwise as it was. Costs about as much
// as computing the sequence did, and memory for a chunk while it lasts; chunks are shorter where there is none.
// on_step(tokens): before each step of the model, of so many tokens; false cancels. It may be empty.
// As CheckRoomToRepeat; kOutOfMemory when the budget has no room for a chunk; kCancelled; what Model::Forward returns.
Status ObserveRepetition(Model& model, const RepeatPrompts& prompts, Sequence& sequence,
                         const std::function<bool(int64_t num_tokens)>& on_step);

}  // namespace kvist
