// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "engine/limits.h"

#include <algorithm>
#include <string>
#include <utility>

#include "kvist/kv_size.h"
#include "tier/open_tier.h"

namespace kvist {
namespace {

std::string Mebibytes(size_t bytes) {
  return std::to_string((bytes + (1 << 20) - 1) >> 20) + " MiB";
}

}  // namespace

int64_t MaxTextTokens(const Model& model, const Cache& cache, const GenerateOptions& options) {
  if (options.stream) return INT64_MAX;
  const GrowthOptions growth = options.sequence.growth.value_or(cache.options().growth);
  const int64_t context = model.context_length();
  return growth.kind == GrowthKind::kStatic ? std::min(context, growth.max_tokens) : context;
}

Status CheckRequest(const Model& model, const Cache& cache, std::span<const Token> prompt,
                    const GenerateOptions& options) {
  if (prompt.empty()) return Fail(ErrorCode::kInvalidArgument, "the prompt is empty; give it some text");
  if (options.max_tokens < 0) {
    return Fail(ErrorCode::kInvalidArgument,
                "the number of tokens to generate is " + std::to_string(options.max_tokens) + "; it must be 0 or more");
  }
  for (const Token token : prompt) {
    if (token >= 0 && token < model.num_vocabulary()) continue;
    return Fail(ErrorCode::kInvalidArgument, "token " + std::to_string(token) + " of the prompt is not between 0 and " +
                                                 std::to_string(model.num_vocabulary() - 1));
  }
  KVIST_TRY_VOID(options.sequence.Validate());
  if (options.retain.options.policy == RetentionPolicy::kOwn) {
    return Fail(ErrorCode::kInvalidArgument,
                "a generation gives up tokens by a built-in policy; one's own is for Sequence::Retain");
  }
  if (options.retain.is_on()) KVIST_TRY_VOID(options.retain.options.Validate());
  if (options.stream) {
    KVIST_TRY_VOID(options.stream->Validate(model.geometry(), model.context_length()));
    if (options.retain.is_on()) {
      return Fail(ErrorCode::kInvalidArgument,
                  "a stream keeps its window and retention chooses tokens; give one of the two");
    }
  }
  const int64_t max_tokens = MaxTextTokens(model, cache, options);
  if (std::cmp_less_equal(prompt.size(), max_tokens)) return {};
  const std::string has = "the prompt has " + std::to_string(prompt.size()) + " tokens and the ";
  if (max_tokens < model.context_length()) {
    return Fail(ErrorCode::kOutOfRange, has + "static cache holds " + std::to_string(max_tokens) +
                                            "; give --growth a larger max or shorten the prompt");
  }
  return Fail(ErrorCode::kOutOfRange,
              has + "model's context holds " + std::to_string(model.context_length()) + "; shorten it");
}

Status CheckPromptFits(const Cache& cache, int64_t num_prompt_tokens, int64_t step_tokens) {
  const CacheOptions& options = cache.options();
  const bool can_spill = std::ranges::any_of(options.tiers, IsDiskSpec);
  const size_t needed_bytes = can_spill ? SpilledKvBytes(cache.geometry(), options, num_prompt_tokens, step_tokens)
                                        : KvBytes(cache.geometry(), options, num_prompt_tokens, step_tokens);
  if (needed_bytes <= options.budget_bytes) return {};
  const char* even_so = can_spill ? ", even with the rest of them in the disk tier," : "";
  const char* advice = can_spill ? "allow more or shorten the prompt"
                                 : "allow more, give it a disk tier for the rest, or shorten the prompt";
  return Fail(ErrorCode::kOutOfMemory, "the keys and values of the prompt's " + std::to_string(num_prompt_tokens) +
                                           " tokens need " + Mebibytes(needed_bytes) + even_so +
                                           " and the KV memory is limited to " + std::to_string(options.budget_bytes) +
                                           " bytes; " + advice);
}

Error ExplainStep(Error error, const Cache& cache, int64_t num_tokens) {
  if (error.code == ErrorCode::kOutOfMemory) {
    const size_t bytes = KvBytes(cache.geometry(), cache.options(), num_tokens, 1);
    error.message += "; the keys and values of " + std::to_string(num_tokens) + " tokens take " + Mebibytes(bytes);
  }
  return error;
}

}  // namespace kvist
