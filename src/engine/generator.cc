// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "engine/generator.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include "engine/kv_size.h"

namespace kvist {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::string Mebibytes(size_t bytes) {
  return std::to_string((bytes + (1 << 20) - 1) >> 20) + " MiB";
}

}  // namespace

const char* FinishReasonName(FinishReason reason) {
  switch (reason) {
    case FinishReason::kEnd:
      return "end";
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kContext:
      return "context";
    case FinishReason::kCancelled:
      return "cancelled";
  }
  return "unknown";
}

GenerationStats& GenerationStats::operator+=(const GenerationStats& other) {
  prompt_tokens += other.prompt_tokens;
  reused_tokens += other.reused_tokens;
  computed_tokens += other.computed_tokens;
  output_tokens += other.output_tokens;
  decode_steps += other.decode_steps;
  prefill_s += other.prefill_s;
  decode_s += other.decode_s;
  return *this;
}

// One call of Generate.
class Generator::Run {
 public:
  Run(Generator& generator, std::span<const Token> prompt, const GenerateOptions& options, const GenerateEvents& events,
      Sampler sampler)
      : generator_(generator),
        sequence_(generator.sequence_),
        options_(options),
        events_(events),
        sampler_(std::move(sampler)),
        decoder_(generator.tokenizer_),
        stops_(options.stops),
        history_(prompt.begin(), prompt.end()) {}

  Result<Generation> Go() {
    generation_.stats.prompt_tokens = num_prompt_tokens();
    generation_.stats.reused_tokens = sequence_.num_tokens();
    KVIST_TRY_VOID(CheckMemory());
    KVIST_TRY(const bool is_computed, Prefill());
    if (is_computed) KVIST_TRY_VOID(Decode());
    if (!stops_.stopped()) {
      Show(stops_.Push(decoder_.Finish()));
      if (!stops_.stopped()) Show(stops_.Finish());
    }
    generation_.stats.output_tokens = static_cast<int64_t>(generation_.tokens.size());
    return std::move(generation_);
  }

 private:
  int64_t num_prompt_tokens() const { return static_cast<int64_t>(history_.size() - generation_.tokens.size()); }
  bool IsCancelled() const { return is_refused_ || (events_.cancel != nullptr && *events_.cancel); }

  // The budget is known before, so a prompt that can't fit is refused before the time for it is spent.
  Status CheckMemory() const {
    const CacheOptions& cache = generator_.cache_->options();
    const size_t needed_bytes = KvBytes(generator_.model_->geometry(), cache, num_prompt_tokens(), kPrefillTokens);
    if (cache.budget_bytes == 0 || needed_bytes <= cache.budget_bytes) return {};
    return Fail(ErrorCode::kOutOfMemory, "the keys and values of the prompt's " + std::to_string(num_prompt_tokens()) +
                                             " tokens need " + Mebibytes(needed_bytes) +
                                             " and the KV memory is limited to " + std::to_string(cache.budget_bytes) +
                                             " bytes; allow more or shorten the prompt");
  }

  // True when the whole prompt is in the sequence, false when it was cancelled.
  Result<bool> Prefill() {
    const auto start = Clock::now();
    const LogitsWanted at_the_end = options_.max_tokens > 0 ? LogitsWanted::kLast : LogitsWanted::kNone;
    while (sequence_.num_tokens() < num_prompt_tokens()) {
      if (IsCancelled()) {
        generation_.finish = FinishReason::kCancelled;
        return false;
      }
      const int64_t begin = sequence_.num_tokens();
      if (events_.on_prefill) events_.on_prefill(begin, num_prompt_tokens());
      const int64_t end = PrefillStepEnd(begin, num_prompt_tokens());
      KVIST_TRY_VOID(Step(begin, end, end == num_prompt_tokens() ? at_the_end : LogitsWanted::kNone));
      generation_.stats.computed_tokens += end - begin;
      generation_.stats.prefill_s = SecondsSince(start);
    }
    if (events_.on_prefill) events_.on_prefill(num_prompt_tokens(), num_prompt_tokens());
    return true;
  }

  Status Decode() {
    const auto start = Clock::now();
    while (true) {
      if (const auto reason = WhyFinished()) {
        generation_.finish = *reason;
        return {};
      }
      // The last output token is in the history and not yet in the sequence.
      if (!generation_.tokens.empty()) {
        const auto end = static_cast<int64_t>(history_.size());
        KVIST_TRY_VOID(Step(end - 1, end, LogitsWanted::kLast));
        ++generation_.stats.decode_steps;
      }
      const Token token = sampler_.Sample(logits_, history_);
      generation_.stats.decode_s = SecondsSince(start);
      if (token < 0) {
        return Fail(ErrorCode::kCorrupt,
                    "the model computes no numbers any more (all of its output is NaN); its file is damaged");
      }
      if (generator_.tokenizer_->IsEndOfGeneration(token)) return {};
      generation_.tokens.push_back(token);
      history_.push_back(token);
      Show(stops_.Push(decoder_.Push(token)));
    }
  }

  std::optional<FinishReason> WhyFinished() const {
    if (stops_.stopped()) return FinishReason::kStop;
    if (std::cmp_greater_equal(generation_.tokens.size(), options_.max_tokens)) return FinishReason::kLength;
    if (IsCancelled()) return FinishReason::kCancelled;
    if (std::cmp_greater(history_.size(), generator_.MaxTokens())) return FinishReason::kContext;
    return std::nullopt;
  }

  Status Step(int64_t begin, int64_t end, LogitsWanted wanted) {
    const BatchItem item{
        .sequence = &sequence_,
        .tokens = std::span(history_).subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)),
        .logits = wanted};
    auto logits = generator_.model_->Forward(std::span(&item, 1));
    if (!logits) return std::unexpected(Explain(std::move(logits.error()), end));
    logits_ = *logits;
    return {};
  }

  Error Explain(Error error, int64_t num_tokens) const {
    if (error.code == ErrorCode::kOutOfMemory) {
      const size_t bytes = KvBytes(generator_.model_->geometry(), generator_.cache_->options(), num_tokens, 1);
      error.message += "; the keys and values of " + std::to_string(num_tokens) + " tokens take " + Mebibytes(bytes);
    }
    return error;
  }

  void Show(std::string_view text) {
    if (text.empty()) return;
    generation_.text += text;
    if (events_.on_text && !events_.on_text(text)) is_refused_ = true;
  }

  Generator& generator_;
  Sequence& sequence_;
  const GenerateOptions& options_;
  const GenerateEvents& events_;
  Sampler sampler_;
  StreamDecoder decoder_;
  StopMatcher stops_;
  std::vector<Token> history_;  // prompt and output
  std::span<const float> logits_;
  bool is_refused_ = false;
  Generation generation_;
};

Generator::Generator(Model* model, std::shared_ptr<const Tokenizer> tokenizer, Cache* cache)
    : model_(model), tokenizer_(std::move(tokenizer)), cache_(cache), sequence_(cache->Begin()) {}

Result<Generation> Generator::Generate(std::span<const Token> prompt, const GenerateOptions& options,
                                       const GenerateEvents& events) {
  if (prompt.empty()) return Fail(ErrorCode::kInvalidArgument, "the prompt is empty; give it some text");
  if (options.max_tokens < 0) {
    return Fail(ErrorCode::kInvalidArgument,
                "the number of tokens to generate is " + std::to_string(options.max_tokens) + "; it must be 0 or more");
  }
  if (std::cmp_greater(prompt.size(), MaxTokens()) && MaxTokens() < model_->context_length()) {
    return Fail(ErrorCode::kOutOfRange, "the prompt has " + std::to_string(prompt.size()) +
                                            " tokens and the static cache holds " + std::to_string(MaxTokens()) +
                                            "; give --growth a larger max or shorten the prompt");
  }
  if (std::cmp_greater(prompt.size(), model_->context_length())) {
    return Fail(ErrorCode::kOutOfRange, "the prompt has " + std::to_string(prompt.size()) +
                                            " tokens and the model's context holds " +
                                            std::to_string(model_->context_length()) + "; shorten it");
  }
  KVIST_TRY(Sampler sampler, Sampler::Open(options.sampler));
  KeepCommonPrefix(prompt);
  return Run(*this, prompt, options, events, std::move(sampler)).Go();
}

int64_t Generator::MaxTokens() const {
  const GrowthOptions& growth = cache_->options().growth;
  const int64_t context = model_->context_length();
  return growth.kind == GrowthKind::kStatic ? std::min(context, growth.max_tokens) : context;
}

void Generator::KeepCommonPrefix(std::span<const Token> prompt) {
  // The last token of the prompt is always computed: its logits say what comes next.
  const auto comparable = prompt.first(prompt.size() - 1);
  const auto common = std::ranges::mismatch(sequence_.tokens(), comparable).in2 - comparable.begin();
  if (common == sequence_.num_tokens()) return;
  // Layers with a sliding window may no longer hold what the prompt's next token sees; then all of it is computed.
  if (!sequence_.Truncate(common)) Forget();
}

void Generator::Forget() {
  sequence_ = cache_->Begin();
}

}  // namespace kvist
