// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "engine/scheduler.h"

#include <algorithm>
#include <chrono>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>

#include "engine/active_request.h"
#include "engine/admission.h"
#include "engine/generator.h"
#include "engine/limits.h"
#include "engine/step_plan.h"

namespace kvist {
namespace {

SchedulerOptions Clamp(SchedulerOptions options) {
  options.max_batch_tokens = std::clamp<int64_t>(options.max_batch_tokens, 1, Model::kMaxBatchTokens);
  const auto most = static_cast<int>(std::max<int64_t>(1, options.max_batch_tokens / 2));
  options.max_running = std::clamp(options.max_running, 1, most);
  return options;
}

}  // namespace

class Scheduler::State {
 public:
  State(Model* model, std::shared_ptr<const Tokenizer> tokenizer, Cache* cache, const SchedulerOptions& options)
      : model_(model),
        tokenizer_(std::move(tokenizer)),
        cache_(cache),
        options_(Clamp(options)),
        step_tokens_(std::min(Generator::kPrefillTokens, options_.max_batch_tokens)),
        admission_(*cache, step_tokens_) {}

  Result<RequestId> Submit(Request request);
  void Cancel(RequestId id);
  std::vector<Finished> Step();
  bool has_work() const;
  SchedulerStats stats() const;

 private:
  void TakeArrived();
  void EndCancelled(Line& line);
  void AdmitWaiting();
  void RunStep();
  void ParkLast();
  bool MakeRoom(std::optional<int64_t>& num_spilled);
  static bool HaveLostTokens(const StepPlan& plan);
  void FailAll(const StepPlan& plan, const Error& error);
  void TakeLogits(const StepPlan& plan, std::span<const float> logits);
  void GiveUpTokens();
  void NoteComputing(const StepPlan& plan, double seconds);
  void End(ActiveRequest& request, Result<Generation> generation);
  std::vector<Finished> Publish();

  Model* const model_;
  const std::shared_ptr<const Tokenizer> tokenizer_;
  Cache* const cache_;
  const SchedulerOptions options_;
  const int64_t step_tokens_;  // of one request, at most
  const Admission admission_;

  mutable std::mutex mutex_;
  // With the lock:
  Line arrived_;
  std::unordered_map<RequestId, std::shared_ptr<ActiveRequest>> id_to_request_;  // of all that have not ended
  RequestId last_id_ = 0;
  SchedulerStats published_;  // as of the last step
  // Of whoever steps:
  Line waiting_;
  Line running_;
  std::vector<Finished> finished_;  // in this step
  SchedulerStats stats_;
};

Result<RequestId> Scheduler::State::Submit(Request request) {
  KVIST_TRY_VOID(CheckRequest(*model_, *cache_, request.prompt, request.options));
  if (request.options.stream) {
    return Fail(ErrorCode::kInvalidArgument, "a stream has no end and is no request for a scheduler; use a Generator");
  }
  KVIST_TRY_VOID(CheckPromptFits(*cache_, std::ssize(request.prompt), Generator::kPrefillTokens));
  KVIST_TRY(Continuation text,
            Continuation::Open(tokenizer_, request.prompt, request.options, std::move(request.on_text),
                               MaxTextTokens(*model_, *cache_, request.options)));
  std::optional<Retainer> retainer;
  if (request.options.retain.is_on()) {
    retainer.emplace(model_, tokenizer_, request.options.retain);
    KVIST_TRY_VOID(retainer->CheckPrompt(std::ssize(request.prompt)));
  }
  cache_->Prefetch(request.prompt, request.salt);
  const std::lock_guard lock(mutex_);
  const RequestId id = ++last_id_;
  auto active = std::make_shared<ActiveRequest>(id, request.priority, std::move(request.salt), std::move(text),
                                                request.options.sequence, std::move(retainer));
  id_to_request_.emplace(id, active);
  arrived_.push_back(std::move(active));
  return id;
}

void Scheduler::State::Cancel(RequestId id) {
  const std::lock_guard lock(mutex_);
  const auto found = id_to_request_.find(id);
  if (found != id_to_request_.end()) found->second->is_cancelled = true;
}

bool Scheduler::State::has_work() const {
  const std::lock_guard lock(mutex_);
  return !id_to_request_.empty();
}

SchedulerStats Scheduler::State::stats() const {
  const std::lock_guard lock(mutex_);
  SchedulerStats stats = published_;
  stats.num_waiting += arrived_.size();
  return stats;
}

std::vector<Finished> Scheduler::State::Step() {
  TakeArrived();
  EndCancelled(waiting_);
  EndCancelled(running_);
  AdmitWaiting();
  if (!running_.empty()) RunStep();
  return Publish();
}

void Scheduler::State::TakeArrived() {
  const std::lock_guard lock(mutex_);
  for (auto& request : std::exchange(arrived_, {})) Insert(std::move(request), waiting_);
}

// Returns what has ended, and only then forgets it: until then it counts as work.
std::vector<Finished> Scheduler::State::Publish() {
  stats_.num_waiting = waiting_.size();
  stats_.num_running = running_.size();
  const std::lock_guard lock(mutex_);
  published_ = stats_;
  for (const Finished& each : finished_) id_to_request_.erase(each.id);
  return std::exchange(finished_, {});
}

void Scheduler::State::EndCancelled(Line& line) {
  std::erase_if(line, [this](const auto& request) {
    if (!request->is_cancelled) return false;
    End(*request, request->text.Finish(FinishReason::kCancelled));
    return true;
  });
}

void Scheduler::State::AdmitWaiting() {
  size_t num_admitted = 0;
  while (num_admitted < waiting_.size() && std::ssize(running_) < options_.max_running) {
    auto& next = waiting_[num_admitted];
    // The first gets whatever there is: something has to run.
    if (!running_.empty() && !admission_.HasRoomFor(*next, running_)) break;
    stats_.num_reused_tokens += static_cast<uint64_t>(next->Admit(*cache_));
    Insert(std::move(next), running_);
    ++num_admitted;
  }
  waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<int64_t>(num_admitted));
}

void Scheduler::State::RunStep() {
  std::optional<int64_t> num_spilled;
  while (true) {
    const StepPlan plan = PlanStep(running_, options_.max_batch_tokens, cache_->geometry().block_tokens);
    stats_.num_reused_tokens += static_cast<uint64_t>(plan.num_reused_tokens);
    std::vector<BatchItem> batch;
    for (const Piece& piece : plan.pieces) {
      const auto tokens = piece.request->text.tokens().subspan(static_cast<size_t>(piece.begin),
                                                               static_cast<size_t>(piece.end - piece.begin));
      batch.push_back({&piece.request->sequence(), tokens, piece.logits_wanted()});
    }
    const auto start = std::chrono::steady_clock::now();
    const auto logits = model_->Forward(batch);
    if (logits) {
      NoteComputing(plan, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
      TakeLogits(plan, *logits);
      return;
    }
    if (HaveLostTokens(plan)) continue;
    if (logits.error().code != ErrorCode::kOutOfMemory || !MakeRoom(num_spilled)) return FailAll(plan, logits.error());
  }
}

// Whether spilled tokens of requests could not be read back, of none too often: they are computed again.
bool Scheduler::State::HaveLostTokens(const StepPlan& plan) {
  bool any = false;
  for (const Piece& piece : plan.pieces) {
    if (piece.request->num_stored() >= piece.begin) continue;
    if (++piece.request->num_losses > kMostLosses) return false;
    any = true;
  }
  return any;
}

// After a step that did not fit; false when nothing can be done about it. num_spilled: tokens of the only request after
// the last attempt in this step: one that spills nothing more may have found room elsewhere, but not twice.
bool Scheduler::State::MakeRoom(std::optional<int64_t>& num_spilled) {
  if (running_.size() > 1) {
    ParkLast();
    return true;
  }
  ActiveRequest& alone = *running_.front();
  const Status spilled = alone.sequence().Spill(step_tokens_);
  const auto before = std::exchange(num_spilled, alone.sequence().num_spilled_tokens());
  if (spilled && num_spilled != before) return true;
  if (alone.is_frugal() || !admission_.FitsAlone(alone.text.num_tokens())) return false;
  alone.StartOver(*cache_);
  num_spilled.reset();
  return true;
}

void Scheduler::State::ParkLast() {
  running_.back()->Park();
  Insert(std::move(running_.back()), waiting_);
  running_.pop_back();
  ++stats_.num_parked;
}

void Scheduler::State::FailAll(const StepPlan& plan, const Error& error) {
  for (const Piece& piece : plan.pieces) {
    End(*piece.request, std::unexpected(ExplainStep(error, *cache_, piece.end)));
    std::erase_if(running_, [&](const auto& request) { return request.get() == piece.request; });
  }
}

void Scheduler::State::TakeLogits(const StepPlan& plan, std::span<const float> logits) {
  const auto row_size = static_cast<size_t>(model_->num_vocabulary());
  ++stats_.num_steps;
  stats_.num_computed_tokens += static_cast<uint64_t>(plan.num_tokens);
  stats_.num_shared_waits += static_cast<uint64_t>(plan.num_shared_waits);
  for (const Piece& piece : plan.pieces) {
    ActiveRequest& request = *piece.request;
    const bool is_complete = piece.end == request.text.num_tokens();
    const bool has_row = piece.logits_wanted() == LogitsWanted::kLast;
    request.NoteComputed(piece.begin, piece.end);
    if (!is_complete) continue;
    Status status;
    if (has_row) status = request.text.Continue(logits.first(row_size));
    if (has_row) logits = logits.subspan(row_size);
    const auto reason = request.text.WhyFinished(request.is_cancelled);
    if (status && !reason) continue;
    if (status) {
      End(request, request.text.Finish(*reason));
    } else {
      End(request, std::unexpected(status.error()));
    }
    std::erase_if(running_, [&](const auto& each) { return each.get() == &request; });
  }
  GiveUpTokens();
}

// After the logits have been used: kvzip asks the model itself, and the next step's would take their place.
void Scheduler::State::GiveUpTokens() {
  std::erase_if(running_, [this](const auto& request) {
    const Status retained = request->GiveUpTokens();
    if (!retained) End(*request, std::unexpected(retained.error()));
    return !retained;
  });
}

// The cost of a prompt's tokens; a step of few says little about it.
void Scheduler::State::NoteComputing(const StepPlan& plan, double seconds) {
  for (const Piece& piece : plan.pieces) {
    if (piece.end - piece.begin < cache_->geometry().block_tokens) continue;
    cache_->NoteComputing(static_cast<double>(piece.begin + piece.end) / 2,
                          seconds / static_cast<double>(plan.num_tokens));
  }
}

void Scheduler::State::End(ActiveRequest& request, Result<Generation> generation) {
  if (generation) generation->retained = request.retained();
  request.Park();
  ++stats_.num_finished;
  finished_.push_back({request.id(), std::move(generation), request.first_reuse()});
}

Scheduler::Scheduler(Model* model, std::shared_ptr<const Tokenizer> tokenizer, Cache* cache,
                     const SchedulerOptions& options)
    : state_(std::make_unique<State>(model, std::move(tokenizer), cache, options)) {}
Scheduler::~Scheduler() = default;

Result<RequestId> Scheduler::Submit(Request request) {
  return state_->Submit(std::move(request));
}
void Scheduler::Cancel(RequestId id) {
  state_->Cancel(id);
}
std::vector<Finished> Scheduler::Step() {
  return state_->Step();
}
bool Scheduler::has_work() const {
  return state_->has_work();
}
SchedulerStats Scheduler::stats() const {
  return state_->stats();
}

}  // namespace kvist
