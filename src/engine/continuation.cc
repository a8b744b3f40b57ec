// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "engine/continuation.h"

#include <utility>

namespace kvist {

Result<Continuation> Continuation::Open(std::shared_ptr<const Tokenizer> tokenizer, std::span<const Token> prompt,
                                        const GenerateOptions& options, OnText on_text, int64_t max_text_tokens) {
  KVIST_TRY(Sampler sampler, Sampler::Open(options.sampler));
  return Continuation(std::move(tokenizer), prompt, options, std::move(on_text), max_text_tokens, std::move(sampler));
}

Continuation::Continuation(std::shared_ptr<const Tokenizer> tokenizer, std::span<const Token> prompt,
                           const GenerateOptions& options, OnText on_text, int64_t max_text_tokens, Sampler sampler)
    : tokenizer_(std::move(tokenizer)),
      max_output_tokens_(options.max_tokens),
      max_text_tokens_(max_text_tokens),
      on_text_(std::move(on_text)),
      sampler_(std::move(sampler)),
      decoder_(tokenizer_),
      stops_(options.stops),
      tokens_(prompt.begin(), prompt.end()) {
  generation_.stats.prompt_tokens = num_tokens();
}

Status Continuation::Continue(std::span<const float> logits) {
  const Token token = sampler_.Sample(logits, tokens_);
  if (token < 0) {
    return Fail(ErrorCode::kCorrupt,
                "the model computes no numbers any more (all of its output is NaN); its file is damaged");
  }
  has_ended_ = tokenizer_->IsEndOfGeneration(token);
  if (has_ended_) return {};
  generation_.tokens.push_back(token);
  tokens_.push_back(token);
  Show(stops_.Push(decoder_.Push(token)));
  return {};
}

std::optional<FinishReason> Continuation::WhyFinished(bool is_cancelled) const {
  if (has_ended_) return FinishReason::kEnd;
  if (stops_.stopped()) return FinishReason::kStop;
  if (num_output_tokens() >= max_output_tokens_) return FinishReason::kLength;
  if (is_refused_ || is_cancelled) return FinishReason::kCancelled;
  if (num_tokens() > max_text_tokens_) return FinishReason::kContext;
  return std::nullopt;
}

Generation Continuation::Finish(FinishReason reason) {
  if (!stops_.stopped()) {
    Show(stops_.Push(decoder_.Finish()));
    if (!stops_.stopped()) Show(stops_.Finish());
  }
  generation_.finish = reason;
  generation_.stats.output_tokens = num_output_tokens();
  return std::move(generation_);
}

void Continuation::Show(std::string_view text) {
  if (text.empty()) return;
  generation_.text += text;
  if (on_text_ && !on_text_(text)) is_refused_ = true;
}

}  // namespace kvist
