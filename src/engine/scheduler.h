// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/generation.h"
#include "kvist/cache.h"
#include "model/model.h"
#include "model/tokenizer.h"

namespace kvist {

// One text to continue.
struct Request {
  std::vector<Token> prompt;
  GenerateOptions options;
  std::string salt = {};  // shares prefixes with requests of the same salt only
  int priority = 0;       // a higher one is admitted earlier and parked later
  // The next whole characters, called by Step; may be empty. It may call Submit and Cancel. false: stop.
  std::function<bool(std::string_view text)> on_text = {};
};

using RequestId = uint64_t;

struct SchedulerOptions {
  // Of a step of the model: every running request's next token, then pieces of prompts. 1 to Model::kMaxBatchTokens;
  // what lies outside counts as the nearest of them.
  int64_t max_batch_tokens = 256;
  // Requests that have memory at once; at least one, and no more than half of max_batch_tokens, so that prompts always
  // get a share of the steps.
  int max_running = 64;
};

struct SchedulerStats {
  size_t num_waiting = 0;  // not begun, or parked
  size_t num_running = 0;
  uint64_t num_finished = 0;
  uint64_t num_parked = 0;  // times that a request had to give its memory up
  uint64_t num_steps = 0;   // of the model
  uint64_t num_computed_tokens = 0;
  uint64_t num_reused_tokens = 0;
  uint64_t num_shared_waits = 0;  // steps that a request let pass because another was computing what both need
};

// What became of a request.
struct Finished {
  RequestId id = 0;
  Result<Generation> generation;
  ReuseReport reuse = {};  // of the prompt, when it was first admitted; chunks of another position, of all times
};

// Runs many requests through one model at once (continuous batching, prompts in pieces between the tokens of others),
// in whatever memory the cache's budget allows. Requests stand in one line, by priority and then by arrival. The first
// that waits is admitted when there is room for its prompt and the next block of everyone; nobody overtakes it. When
// there is no memory for the next step, the last in line of those that run is parked: its sequence is let go, so that
// its blocks become idle prefixes, and it waits again, where it stood, to begin from what is left of them; what it has
// said already is kept and never said twice. Since all others are parked before the first in line, that one always goes
// on. One that has more tokens than the memory holds runs alone, spilled to the disk tier if there is one; a request
// fails only when that is impossible.
// Requests whose prompts begin alike compute the common part once: who comes second waits for the first's blocks.
// The text of a request is the same to the last bit whatever else runs, in lossless forms (but where the cache reuses
// moved chunks: then it depends on which are stored). Of its GenerationStats,
// computed tokens count again when they had to be computed again, and the times begin when it was first admitted.
// Submit, Cancel, has_work and stats: any thread. Step: one thread at a time.
class Scheduler {
 public:
  // REQUIRES: the cache was opened with the model's geometry and shares prefixes. All are borrowed.
  Scheduler(Model* model, std::shared_ptr<const Tokenizer> tokenizer, Cache* cache, const SchedulerOptions& options);
  ~Scheduler();

  // Errors as Generator::Generate: of an empty prompt, an option out of range, a prompt longer than the context, or one
  // that does not fit the budget even alone (kOutOfMemory).
  Result<RequestId> Submit(Request request);
  // The request ends with what it has (FinishReason::kCancelled) in the next step. Nothing happens when it has ended.
  void Cancel(RequestId id);

  // One step of the model. Returns the requests that ended in it; whether anything is left to do: has_work().
  std::vector<Finished> Step();
  bool has_work() const;
  SchedulerStats stats() const;

 private:
  class State;
  std::unique_ptr<State> state_;
};

}  // namespace kvist
