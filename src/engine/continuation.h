// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "engine/generation.h"
#include "kvist/error.h"
#include "model/sampler.h"
#include "model/tokenizer.h"

namespace kvist {

// One text as it goes on: its tokens, and all that makes the next token of a model's logits and text of tokens. It
// knows nothing of keys and values, which may go and come back meanwhile. One thread at a time.
class Continuation {
 public:
  // on_text (may be empty) hears the next whole characters; false: the caller has heard enough.
  using OnText = std::function<bool(std::string_view text)>;

  // max_text_tokens: what the context holds. Errors as Sampler::Open.
  static Result<Continuation> Open(std::shared_ptr<const Tokenizer> tokenizer, std::span<const Token> prompt,
                                   const GenerateOptions& options, OnText on_text, int64_t max_text_tokens);

  std::span<const Token> tokens() const { return tokens_; }  // prompt and output, till the next Continue
  int64_t num_tokens() const { return std::ssize(tokens_); }
  int64_t num_prompt_tokens() const { return num_tokens() - num_output_tokens(); }
  int64_t num_output_tokens() const { return std::ssize(generation_.tokens); }
  bool wants_output() const { return max_output_tokens_ > 0; }

  // Chooses the next token by the logits of the last one. kCorrupt when they are no numbers.
  Status Continue(std::span<const float> logits);
  // Why it does not go on after its last token, if there is a reason. is_cancelled: somebody else asked to stop.
  std::optional<FinishReason> WhyFinished(bool is_cancelled) const;
  // Shows what was held back and gives everything away; nothing may be called after it.
  Generation Finish(FinishReason reason);

  GenerationStats& stats() { return generation_.stats; }

 private:
  Continuation(std::shared_ptr<const Tokenizer> tokenizer, std::span<const Token> prompt,
               const GenerateOptions& options, OnText on_text, int64_t max_text_tokens, Sampler sampler);
  void Show(std::string_view text);

  std::shared_ptr<const Tokenizer> tokenizer_;
  int64_t max_output_tokens_;
  int64_t max_text_tokens_;
  OnText on_text_;
  Sampler sampler_;
  StreamDecoder decoder_;
  StopMatcher stops_;
  std::vector<Token> tokens_;
  bool has_ended_ = false;   // the model has
  bool is_refused_ = false;  // by on_text
  Generation generation_;
};

}  // namespace kvist
