// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kvist/cache.h"
#include "model/model.h"
#include "model/sampler.h"
#include "model/tokenizer.h"

namespace kvist {

struct GenerateOptions {
  int64_t max_tokens = 256;  // of output; 0: the prompt is computed and nothing more
  SamplerOptions sampler;
  std::vector<std::string> stops;  // the output ends before the first of these
};

enum class FinishReason : uint8_t {
  kEnd,        // the model ended its text
  kStop,       // a stop string came
  kLength,     // max_tokens
  kContext,    // the model's context is full
  kCancelled,  // the caller asked to stop
};

// "end", "stop", "length", "context", "cancelled" as used in JSON output.
const char* FinishReasonName(FinishReason reason);

struct GenerationStats {
  int64_t prompt_tokens = 0;
  int64_t reused_tokens = 0;    // of the prompt, found in the sequence
  int64_t computed_tokens = 0;  // of the prompt
  int64_t output_tokens = 0;
  int64_t decode_steps = 0;  // one fewer than output tokens as a rule: the prompt itself gives the first
  double prefill_s = 0;
  double decode_s = 0;

  GenerationStats& operator+=(const GenerationStats& other);
};

struct Generation {
  std::string text;  // valid UTF-8
  std::vector<Token> tokens;
  FinishReason finish = FinishReason::kEnd;
  GenerationStats stats;
};

// What the caller hears while a generation runs; each may be empty. Called on the caller's thread.
struct GenerateEvents {
  std::function<bool(std::string_view text)> on_text;                       // the next whole characters; false: stop
  std::function<void(int64_t done_tokens, int64_t all_tokens)> on_prefill;  // before each piece of the prompt
  const std::atomic<bool>* cancel = nullptr;                                // looked at before each step of the model
};

// Continues texts with a model. The text of the last call stays in the cache, and a prompt that begins like it (the
// next turn of a chat) is computed only from where the two part.
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

  void Forget();  // frees the text of the last call
  const Sequence& sequence() const { return sequence_; }

 private:
  class Run;
  void KeepCommonPrefix(std::span<const Token> prompt);
  int64_t MaxTokens() const;  // of the model's context, or fewer that a static sequence has room for

  Model* model_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  Cache* cache_;
  Sequence sequence_;
};

}  // namespace kvist
