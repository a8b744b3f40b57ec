// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "engine/generation.h"
#include "kvist/cache.h"
#include "model/model.h"
#include "model/tokenizer.h"

namespace kvist {

// What the caller hears while a generation runs; each may be empty. Called on the caller's thread.
struct GenerateEvents {
  std::function<bool(std::string_view text)> on_text;                       // the next whole characters; false: stop
  std::function<void(int64_t done_tokens, int64_t all_tokens)> on_prefill;  // before each piece of the prompt
  const std::atomic<bool>* cancel = nullptr;                                // looked at before each step of the model
  std::function<bool()> on_no_room;  // when the budget has no room for a step: true when there is more now
};

// Continues texts with a model. The text of the last call stays in the cache, and a prompt that begins like it (the
// next turn of a chat) is computed only from where the two part; where tokens have been given up or have left a
// stream's window, a prompt that parts from it before the end is computed from its beginning.
// Borrows model and cache, which must outlive it. One thread at a time.
class Generator {
 public:
  // Tokens of a prompt that are computed in one step; steps end at multiples of it. Steps of 64 to 512 tokens took the
  // same time a token (SmolLM2, 2,864 tokens, one Zen 4 core: 78 to 82 tokens/s), and cancelling waits for one.
  static constexpr int64_t kPrefillTokens = 128;
  // Where the step ends that begins there, of a prompt that ends there.
  static int64_t PrefillStepEnd(int64_t begin, int64_t prompt_end) {
    return std::min(prompt_end, (begin / kPrefillTokens + 1) * kPrefillTokens);
  }

  Generator(Model* model, std::shared_ptr<const Tokenizer> tokenizer, Cache* cache);

  // kInvalidArgument for an empty prompt or an option out of range; kOutOfRange for a prompt longer than the context;
  // kOutOfMemory with the bytes that are needed. What was computed before an error is kept for the next call.
  Result<Generation> Generate(std::span<const Token> prompt, const GenerateOptions& options,
                              const GenerateEvents& events);

  void Forget();                     // frees the text of the last call
  void Continue(Sequence sequence);  // as if its text had been that of the last call; it is of the same cache
  const Sequence& sequence() const { return sequence_; }
  Sequence& sequence() { return sequence_; }  // for settings of its own (Sequence::SetSealing)

 private:
  class Run;
  Result<ReuseReport> KeepCommonPrefix(std::span<const Token> prompt, const GenerateOptions& options);
  // Of the last call's text, also those that have left the window.
  int64_t num_stored_tokens() const;
  std::vector<Token> stored_tokens() const;

  Model* model_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  Cache* cache_;
  Sequence sequence_;
  std::optional<Retainer> retainer_;  // of the sequence, where it gives up tokens
  std::optional<Stream> stream_;      // of the sequence, where it slides
};

}  // namespace kvist
