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
#include "policy/sealing.h"

namespace kvist {
namespace {

using Clock = std::chrono::steady_clock;

// The last token of a prompt is always computed: its logits say what comes next.
std::span<const Token> ReusableTokens(std::span<const Token> prompt) {
  return prompt.first(prompt.size() - 1);
}

// Where to cut a sequence of which so many tokens are wanted: before a block that may be sealed. It would take no more
// tokens, and what follows a block that is not full can't be shared, stored or spilled.
int64_t CutOf(const Cache& cache, const Sequence& sequence, int64_t num_wanted) {
  const CacheOptions& options = cache.options();
  const bool is_quantised = IsQuantised(options.form) || std::ranges::any_of(options.layer_forms, [](const Form& form) {
                              return IsQuantised(form);
                            });
  const int64_t block_tokens = cache.geometry().block_tokens, begin = num_wanted / block_tokens * block_tokens;
  const bool may_be_sealed =
      is_quantised && SealedFrom(options.sealing, begin, begin + block_tokens) <= sequence.num_tokens();
  return may_be_sealed ? begin : num_wanted;
}

}  // namespace

// One call of Generate.
class Generator::Run {
 public:
  Run(Generator& generator, const GenerateEvents& events, bool selects_pages, Continuation text, ReuseReport reuse)
      : generator_(generator),
        sequence_(generator.sequence_),
        events_(events),
        selects_pages_(selects_pages),
        text_(std::move(text)),
        reuse_(std::move(reuse)) {}

  int64_t num_stored() const { return generator_.num_stored_tokens(); }

  Result<Generation> Go() {
    text_.stats().reused_tokens = num_stored();
    const auto& stream = generator_.stream_;
    const int64_t most_at_once = stream ? stream->options().window_tokens : INT64_MAX;
    KVIST_TRY_VOID(
        CheckPromptFits(*generator_.cache_, std::min(text_.num_prompt_tokens(), most_at_once), kPrefillTokens));
    KVIST_TRY(const bool is_computed, Prefill());
    if (!is_computed) return Finish(FinishReason::kCancelled);
    // Tokens are given up once the logits have been used: kvzip asks the model itself, and its logits take their place.
    if (!text_.WhyFinished(IsCancelled())) KVIST_TRY_VOID(text_.Continue(logits_));
    if (generator_.retainer_) {
      KVIST_TRY_VOID(generator_.retainer_->EndPrompt(sequence_, text_.num_prompt_tokens(), goes_on_));
    }
    KVIST_TRY(const FinishReason reason, Decode());
    return Finish(reason);
  }

 private:
  Generation Finish(FinishReason reason) {
    moved_.CountInto(reuse_, sequence_);
    Generation generation = text_.Finish(reason);
    generation.reuse = std::move(reuse_);
    if (generator_.retainer_) generation.retained = generator_.retainer_->stats();
    if (generator_.stream_) generation.stream = generator_.stream_->stats();
    return generation;
  }

  bool IsCancelled() const { return events_.cancel != nullptr && *events_.cancel; }

  // True when the whole prompt is in the sequence, false when it was cancelled.
  Result<bool> Prefill() {
    const auto start = Clock::now();
    const int64_t num_prompt_tokens = text_.num_prompt_tokens();
    const LogitsWanted at_the_end = text_.wants_output() ? LogitsWanted::kLast : LogitsWanted::kNone;
    while (num_stored() < num_prompt_tokens) {
      if (IsCancelled()) return false;
      if (!generator_.stream_) {
        text_.stats().reused_tokens += moved_.Take(sequence_, ReusableTokens(text_.tokens()));
      }
      if (events_.on_prefill) events_.on_prefill(num_stored(), num_prompt_tokens);
      KVIST_TRY_VOID(ComputePiece(num_prompt_tokens, at_the_end));
      text_.stats().prefill_s = SecondsSince(start);
    }
    if (events_.on_prefill) events_.on_prefill(num_prompt_tokens, num_prompt_tokens);
    return true;
  }

  // The next piece of the tokens before `end`; or fewer tokens than there were, when spilled ones were lost.
  Status ComputePiece(int64_t end, LogitsWanted at_the_end) {
    const int64_t begin = num_stored();
    int64_t piece_end = moved_.StepEnd(PrefillStepEnd(begin, end));
    if (generator_.stream_) piece_end = std::min(piece_end, begin + generator_.stream_->max_step_tokens());
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
      while (num_stored() + 1 < text_.num_tokens()) {  // what was lost
        KVIST_TRY_VOID(ComputePiece(text_.num_tokens() - 1, LogitsWanted::kNone));
      }
      KVIST_TRY(const bool is_computed, Step(text_.num_tokens() - 1, text_.num_tokens(), LogitsWanted::kLast));
      if (!is_computed) continue;
      ++text_.stats().decode_steps;
      if (selects_pages_) text_.stats().pages.Count(sequence_);
      KVIST_TRY_VOID(text_.Continue(logits_));
      if (generator_.retainer_) KVIST_TRY_VOID(generator_.retainer_->EndStep(sequence_, goes_on_));
      text_.stats().decode_s = SecondsSince(start);
    }
  }

  // False when the sequence has become shorter instead: spilled tokens could not be read back.
  Result<bool> Step(int64_t begin, int64_t end, LogitsWanted wanted) {
    if (generator_.stream_) KVIST_TRY_VOID(generator_.stream_->MakeRoom(end - begin, sequence_));
    const BatchItem item{.sequence = &sequence_,
                         .tokens = text_.tokens().subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)),
                         .logits = wanted};
    auto logits = generator_.model_->Forward(std::span(&item, 1));
    while (!logits && logits.error().code == ErrorCode::kOutOfMemory && events_.on_no_room && events_.on_no_room()) {
      logits = generator_.model_->Forward(std::span(&item, 1));
    }
    if (!logits && logits.error().code == ErrorCode::kOutOfMemory) {
      if (const Status spilled = sequence_.Spill(end - begin)) {
        logits = generator_.model_->Forward(std::span(&item, 1));
      } else if (spilled.error().code != ErrorCode::kFailedPrecondition) {
        logits.error().message += "; " + spilled.error().message;
      }
    }
    if (!logits && num_stored() < begin && ++num_losses_ <= kMostLosses) return false;
    if (!logits) return std::unexpected(ExplainStep(std::move(logits.error()), *generator_.cache_, end));
    logits_ = *logits;
    return true;
  }

  Generator& generator_;
  Sequence& sequence_;
  const GenerateEvents& events_;
  const bool selects_pages_;
  Continuation text_;
  ReuseReport reuse_;
  MovedReuse moved_;
  const Retainer::GoesOn goes_on_ = [this] { return !text_.WhyFinished(IsCancelled()); };
  std::span<const float> logits_;
  int num_losses_ = 0;
};

Generator::Generator(Model* model, std::shared_ptr<const Tokenizer> tokenizer, Cache* cache)
    : model_(model), tokenizer_(std::move(tokenizer)), cache_(cache), sequence_(cache->Begin()) {}

Result<Generation> Generator::Generate(std::span<const Token> prompt, const GenerateOptions& options,
                                       const GenerateEvents& events) {
  KVIST_TRY_VOID(CheckRequest(*model_, *cache_, prompt, options));
  KVIST_TRY(Continuation text,
            Continuation::Open(tokenizer_, prompt, options, events.on_text, MaxTextTokens(*model_, *cache_, options)));
  if (options.retain.is_on()) {
    KVIST_TRY_VOID(Retainer(model_, tokenizer_, options.retain).CheckPrompt(std::ssize(prompt)));
  }
  KVIST_TRY(ReuseReport reuse, KeepCommonPrefix(prompt, options));
  if (retainer_) KVIST_TRY_VOID(retainer_->Begin(sequence_));
  return Run(*this, events, options.sequence.pages.num_tokens > 0, std::move(text), std::move(reuse)).Go();
}

int64_t Generator::num_stored_tokens() const {
  return sequence_.num_tokens() + (stream_ ? stream_->num_retired_tokens() : 0);
}

std::vector<Token> Generator::stored_tokens() const {
  if (stream_) return stream_->full_context(sequence_);
  return {sequence_.tokens().begin(), sequence_.tokens().end()};
}

Result<ReuseReport> Generator::KeepCommonPrefix(std::span<const Token> prompt, const GenerateOptions& options) {
  const auto comparable = ReusableTokens(prompt);
  const std::vector<Token> stored = stored_tokens();
  int64_t common = std::ranges::mismatch(stored, comparable).in2 - comparable.begin();
  if (std::cmp_less(common, stored.size())) common = CutOf(*cache_, sequence_, common);
  const bool streams_alike =
      stream_.has_value() == options.stream.has_value() && (!stream_ || stream_->options() == *options.stream);
  const bool has_slid = stream_ && stream_->num_slides() > 0;
  // A window can be given up only as a whole: of a stream that has slid, what is left depends on all there was.
  const bool can_go_on = std::cmp_equal(common, stored.size()) || (!has_slid && sequence_.Truncate(common));
  if (!can_go_on || (!streams_alike && has_slid)) Forget();
  KVIST_TRY_VOID(options.sequence.Apply(sequence_));
  // What has been evicted so far stays evicted; from here on it goes as the options say.
  if (!options.retain.is_on()) {
    retainer_.reset();
  } else if (!retainer_ || retainer_->settings() != options.retain) {
    retainer_.emplace(model_, tokenizer_, options.retain);
  }
  if (!options.stream) stream_.reset();
  if (options.stream && (!stream_ || stream_->options() != *options.stream)) stream_.emplace(*options.stream);
  if (stream_ && stream_->num_slides() > 0) {  // the window is no prefix of anything
    ReuseReport report;
    report.own_tokens = report.miss_position = num_stored_tokens();
    report.reason = MissReason::kUnshared;
    return report;
  }
  int64_t max_tokens = std::ssize(comparable);
  if (retainer_) max_tokens = std::min(max_tokens, retainer_->MaxReusedTokens(std::ssize(prompt)));
  if (stream_) max_tokens = std::min(max_tokens, stream_->options().window_tokens);
  return sequence_.Reuse(prompt, max_tokens, true);
}

void Generator::Forget() {
  sequence_ = cache_->Begin();
  retainer_.reset();
  stream_.reset();
}

void Generator::Continue(Sequence sequence) {
  Forget();
  sequence_ = std::move(sequence);
}

}  // namespace kvist
