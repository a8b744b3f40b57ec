// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "engine/generator.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include "base/seconds_since.h"
#include "engine/continuation.h"
#include "engine/limits.h"
#include "engine/moved_reuse.h"

namespace kvist {
namespace {

using Clock = std::chrono::steady_clock;

// The last token of a prompt is always computed: its logits say what comes next.
std::span<const Token> ReusableTokens(std::span<const Token> prompt) {
  return prompt.first(prompt.size() - 1);
}

}  // namespace

// One call of Generate.
class Generator::Run {
 public:
  Run(Generator& generator, const GenerateEvents& events, Continuation text, ReuseReport reuse)
      : generator_(generator),
        sequence_(generator.sequence_),
        events_(events),
        text_(std::move(text)),
        reuse_(std::move(reuse)) {}

  Result<Generation> Go() {
    text_.stats().reused_tokens = sequence_.num_tokens();
    KVIST_TRY_VOID(CheckPromptFits(*generator_.cache_, text_.num_prompt_tokens(), kPrefillTokens));
    KVIST_TRY(const bool is_computed, Prefill());
    if (!is_computed) return Finish(FinishReason::kCancelled);
    KVIST_TRY(const FinishReason reason, Decode());
    return Finish(reason);
  }

 private:
  Generation Finish(FinishReason reason) {
    moved_.CountInto(reuse_, sequence_);
    Generation generation = text_.Finish(reason);
    generation.reuse = std::move(reuse_);
    return generation;
  }

  bool IsCancelled() const { return events_.cancel != nullptr && *events_.cancel; }

  // True when the whole prompt is in the sequence, false when it was cancelled.
  Result<bool> Prefill() {
    const auto start = Clock::now();
    const int64_t num_prompt_tokens = text_.num_prompt_tokens();
    const LogitsWanted at_the_end = text_.wants_output() ? LogitsWanted::kLast : LogitsWanted::kNone;
    while (sequence_.num_tokens() < num_prompt_tokens) {
      if (IsCancelled()) return false;
      text_.stats().reused_tokens += moved_.Take(sequence_, ReusableTokens(text_.tokens()));
      if (events_.on_prefill) events_.on_prefill(sequence_.num_tokens(), num_prompt_tokens);
      KVIST_TRY_VOID(ComputePiece(num_prompt_tokens, at_the_end));
      text_.stats().prefill_s = SecondsSince(start);
    }
    if (events_.on_prefill) events_.on_prefill(num_prompt_tokens, num_prompt_tokens);
    return true;
  }

  // The next piece of the tokens before `end`; or fewer tokens than there were, when spilled ones were lost.
  Status ComputePiece(int64_t end, LogitsWanted at_the_end) {
    const int64_t begin = sequence_.num_tokens(), piece_end = moved_.StepEnd(PrefillStepEnd(begin, end));
    const auto start = Clock::now();
    KVIST_TRY(const bool is_computed, Step(begin, piece_end, piece_end == end ? at_the_end : LogitsWanted::kNone));
    if (!is_computed) return {};
    NoteCost(begin, piece_end, SecondsSince(start));
    text_.stats().computed_tokens += piece_end - begin;
    return {};
  }

  // A short step says little of what a token of a long one costs.
  void NoteCost(int64_t begin, int64_t end, double seconds) {
    if (end - begin < kPrefillTokens / 4) return;
    generator_.cache_->NoteComputing(double(begin + end) / 2, seconds / double(end - begin));
  }

  Result<FinishReason> Decode() {
    const auto start = Clock::now();
    while (true) {
      if (const auto reason = text_.WhyFinished(IsCancelled())) return *reason;
      // The last output token is in the text and not yet in the sequence.
      if (text_.num_output_tokens() > 0) {
        while (sequence_.num_tokens() + 1 < text_.num_tokens()) {  // what was lost
          KVIST_TRY_VOID(ComputePiece(text_.num_tokens() - 1, LogitsWanted::kNone));
        }
        KVIST_TRY(const bool is_computed, Step(text_.num_tokens() - 1, text_.num_tokens(), LogitsWanted::kLast));
        if (!is_computed) continue;
        ++text_.stats().decode_steps;
      }
      KVIST_TRY_VOID(text_.Continue(logits_));
      text_.stats().decode_s = SecondsSince(start);
    }
  }

  // False when the sequence has become shorter instead: spilled tokens could not be read back.
  Result<bool> Step(int64_t begin, int64_t end, LogitsWanted wanted) {
    const BatchItem item{.sequence = &sequence_,
                         .tokens = text_.tokens().subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)),
                         .logits = wanted};
    auto logits = generator_.model_->Forward(std::span(&item, 1));
    if (!logits && logits.error().code == ErrorCode::kOutOfMemory) {
      if (const Status spilled = sequence_.Spill(end - begin)) {
        logits = generator_.model_->Forward(std::span(&item, 1));
      } else if (spilled.error().code != ErrorCode::kFailedPrecondition) {
        logits.error().message += "; " + spilled.error().message;
      }
    }
    if (!logits && sequence_.num_tokens() < begin && ++num_losses_ <= kMostLosses) return false;
    if (!logits) return std::unexpected(ExplainStep(std::move(logits.error()), *generator_.cache_, end));
    logits_ = *logits;
    return true;
  }

  Generator& generator_;
  Sequence& sequence_;
  const GenerateEvents& events_;
  Continuation text_;
  ReuseReport reuse_;
  MovedReuse moved_;
  std::span<const float> logits_;
  int num_losses_ = 0;
};

Generator::Generator(Model* model, std::shared_ptr<const Tokenizer> tokenizer, Cache* cache)
    : model_(model), tokenizer_(std::move(tokenizer)), cache_(cache), sequence_(cache->Begin()) {}

Result<Generation> Generator::Generate(std::span<const Token> prompt, const GenerateOptions& options,
                                       const GenerateEvents& events) {
  KVIST_TRY_VOID(CheckRequest(*model_, *cache_, prompt, options));
  KVIST_TRY(Continuation text,
            Continuation::Open(tokenizer_, prompt, options, events.on_text, MaxTextTokens(*model_, *cache_)));
  ReuseReport reuse = KeepCommonPrefix(prompt);
  return Run(*this, events, std::move(text), std::move(reuse)).Go();
}

ReuseReport Generator::KeepCommonPrefix(std::span<const Token> prompt) {
  const auto comparable = ReusableTokens(prompt);
  const auto common = std::ranges::mismatch(sequence_.tokens(), comparable).in2 - comparable.begin();
  // Layers with a sliding window may no longer hold what the prompt's next token sees.
  if (common < sequence_.num_tokens() && !sequence_.Truncate(common)) Forget();
  return sequence_.Reuse(prompt, std::ssize(comparable), true);
}

void Generator::Forget() {
  sequence_ = cache_->Begin();
}

void Generator::Continue(Sequence sequence) {
  sequence_ = std::move(sequence);
}

}  // namespace kvist
