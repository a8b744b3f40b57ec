// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "engine/stream.h"

#include <algorithm>

#include "base/spec.h"

namespace kvist {
namespace {

constexpr const char* kStreamWhat = "stream";
constexpr int64_t kLeastRoom = 64;

}  // namespace

Status StreamOptions::Validate(const CacheGeometry& geometry, int64_t context_length) const {
  const auto invalid = [](const std::string& message) {
    return Fail(ErrorCode::kInvalidArgument, std::string(kStreamWhat) + ": " + message);
  };
  if (overlap_tokens < 1 || sink_tokens < 0 || window_tokens < overlap_tokens + sink_tokens + kLeastRoom) {
    return invalid("a window of " + std::to_string(window_tokens) + " tokens has no room beside an overlap of " +
                   std::to_string(overlap_tokens) + " and " + std::to_string(sink_tokens) + " sinks; it needs " +
                   std::to_string(kLeastRoom) + " more");
  }
  if (window_tokens > context_length) {
    return invalid("a window of " + std::to_string(window_tokens) + " tokens, and the model's context has " +
                   std::to_string(context_length));
  }
  for (const LayerGeometry& layer : geometry.layers) {
    if (sink_tokens == 0 || layer.window <= overlap_tokens) continue;
    return invalid("some of the model's layers see " + std::to_string(layer.window) +
                   " tokens only; give an overlap of at least as many, or no sinks");
  }
  return {};
}

Result<StreamOptions> ParseStream(std::string_view text) {
  KVIST_TRY(const Spec spec, ParseSpec(kStreamWhat, ":" + std::string(text), {"window", "overlap", "sinks"}));
  StreamOptions options;
  for (const auto& value : spec.values) {
    int64_t& option = value.first == "window"    ? options.window_tokens
                      : value.first == "overlap" ? options.overlap_tokens
                                                 : options.sink_tokens;
    KVIST_TRY(option, WholeNumber(kStreamWhat, value, 0, kMostSpecTokens));
  }
  return options;
}

std::string StreamSpec(const StreamOptions& options) {
  return "window=" + std::to_string(options.window_tokens) + ",overlap=" + std::to_string(options.overlap_tokens) +
         ",sinks=" + std::to_string(options.sink_tokens);
}

Status Stream::MakeRoom(int64_t num_step_tokens, Sequence& sequence) {
  KVIST_CHECK(num_step_tokens <= max_step_tokens());
  if (sequence.num_tokens() + num_step_tokens <= options_.window_tokens) return {};
  const int64_t begin = std::min(options_.sink_tokens, sequence.num_tokens());
  const int64_t end = std::max(begin, sequence.num_tokens() - options_.overlap_tokens);
  const auto tokens = sequence.tokens();
  const std::vector<Token> retiring(tokens.begin() + begin, tokens.begin() + end);
  KVIST_TRY_VOID(sequence.Remove(begin, end));
  retired_.insert(retired_.end(), retiring.begin(), retiring.end());
  ++num_slides_;
  return {};
}

std::vector<Token> Stream::full_context(const Sequence& sequence) const {
  const auto tokens = sequence.tokens();
  const int64_t num_sinks = std::min<int64_t>(options_.sink_tokens, std::ssize(tokens));
  std::vector<Token> all(tokens.begin(), tokens.begin() + num_sinks);
  all.insert(all.end(), retired_.begin(), retired_.end());
  all.insert(all.end(), tokens.begin() + num_sinks, tokens.end());
  return all;
}

}  // namespace kvist
