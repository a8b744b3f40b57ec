// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "engine/repetition.h"

#include <algorithm>
#include <span>
#include <string>

namespace kvist {
namespace {

constexpr int64_t kMaxChunkTokens = 2048, kMinChunkTokens = 64, kStepTokens = 128;
constexpr int64_t kNumTokensAgain = 8;  // of the chunk before, to show where to go on

// The chunk [begin, end) as the answer to the request for it.
std::vector<Token> Repetition(const RepeatPrompts& prompts, std::span<const Token> text, int64_t begin, int64_t end) {
  std::vector<Token> tokens = begin == 0 ? prompts.first : prompts.next;
  const int64_t from = std::max<int64_t>(0, begin - kNumTokensAgain);
  tokens.insert(tokens.end(), text.begin() + from, text.begin() + end);
  return tokens;
}

// Behind a text of so many tokens and the request to repeat it.
int64_t RoomForChunk(const Model& model, const RepeatPrompts& prompts, int64_t num_tokens) {
  const auto num_asking = int64_t(std::max(prompts.first.size(), prompts.next.size())) + kNumTokensAgain;
  return model.context_length() - num_tokens - num_asking;
}

Status Feed(Model& model, std::span<const Token> tokens, Sequence& sequence,
            const std::function<bool(int64_t)>& on_step) {
  while (!tokens.empty()) {
    const auto step = tokens.first(std::min<size_t>(size_t{kStepTokens}, tokens.size()));
    if (on_step && !on_step(std::ssize(step))) return Fail(ErrorCode::kCancelled, "interrupted");
    const BatchItem item{.sequence = &sequence, .tokens = step, .logits = LogitsWanted::kNone};
    KVIST_TRY([[maybe_unused]] const auto none, model.Forward(std::span(&item, 1)));
    tokens = tokens.subspan(step.size());
  }
  return {};
}

}  // namespace

RepeatPrompts MakeRepeatPrompts(const Tokenizer& tokenizer) {
  const auto encode = [&](const char* text) {
    return tokenizer.Encode(text, {.add_special = false, .parse_special = false});
  };
  return {.first = encode("\n\nRepeat the whole text above, word for word:\n\n"),
          .next = encode("\n\nRepeat the text above, word for word, from here on: ")};
}

Status CheckRoomToRepeat(const Model& model, const RepeatPrompts& prompts, int64_t num_tokens) {
  if (RoomForChunk(model, prompts, num_tokens) >= std::min(kMinChunkTokens, num_tokens)) return {};
  return Fail(ErrorCode::kOutOfRange, "the model's context of " + std::to_string(model.context_length()) +
                                          " tokens has no room to repeat a text of " + std::to_string(num_tokens) +
                                          " tokens behind it; kvzip is for shorter texts");
}

Status ObserveRepetition(Model& model, const RepeatPrompts& prompts, Sequence& sequence,
                         const std::function<bool(int64_t)>& on_step) {
  const int64_t num_tokens = sequence.num_tokens();
  KVIST_TRY_VOID(CheckRoomToRepeat(model, prompts, num_tokens));
  int64_t chunk_tokens = std::min(kMaxChunkTokens, RoomForChunk(model, prompts, num_tokens));
  for (int64_t begin = 0; begin < num_tokens;) {
    const int64_t end = std::min(begin + chunk_tokens, num_tokens);
    Sequence fork = sequence.Fork();
    KVIST_TRY_VOID(fork.ObserveRepeating(begin, end));
    const Status fed = Feed(model, Repetition(prompts, sequence.tokens(), begin, end), fork, on_step);
    const bool is_too_long = !fed && fed.error().code == ErrorCode::kOutOfMemory && end - begin > kMinChunkTokens;
    if (is_too_long) {
      chunk_tokens = std::max(kMinChunkTokens, (end - begin) / 2);
      continue;
    }
    KVIST_TRY_VOID(fed);
    sequence.TakeObserved(fork);
    begin = end;
  }
  return {};
}

}  // namespace kvist
