// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "kvist/cache.h"
#include "kvist/error.h"
#include "kvist/geometry.h"
#include "model/gguf.h"
#include "model/model_config.h"
#include "model/weights.h"

namespace kvist {

struct ModelOptions {
  int num_threads = 0;  // that compute together; 0: as many as the machine runs at once
  WeightsForm weights = WeightsForm::kFile;
};

enum class LogitsWanted : uint8_t {
  kNone,  // the tokens only enter the cache: all but the last piece of a long prompt
  kLast,  // of the last token: what comes next
  kAll,   // of every token, for scoring text
};

// Tokens to append to one sequence in one step.
struct BatchItem {
  Sequence* sequence;
  std::span<const Token> tokens;  // at positions sequence->num_tokens() and on
  LogitsWanted logits = LogitsWanted::kLast;
};

// 128 bits that differ when the weights differ.
struct Fingerprint {
  uint64_t low = 0;
  uint64_t high = 0;
  bool operator==(const Fingerprint&) const = default;
};

// A transformer language model whose keys and values live in a Cache. One step takes tokens of any number of
// sequences through one graph; a token's logits are the same to the last bit whichever pieces the text is fed in,
// whatever else is in the batch, and however many threads compute.
// Forward: one thread at a time (it uses its own pool of threads). Everything else may be read from any thread.
class Model {
 public:
  // Tokens that one Forward takes; longer prompts are fed in pieces. Bounds the memory of a step.
  static constexpr int kMaxBatchTokens = 2048;

  // Errors as ReadModelConfig and Weights::Load; kInvalidArgument for a number of threads out of range.
  static Result<std::unique_ptr<Model>> Open(std::shared_ptr<const GgufFile> file, const ModelOptions& options);
  ~Model();
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  // Appends every item's tokens to its sequence and returns the logits asked for: rows of num_vocabulary() numbers, in
  // the order of items and tokens, valid until the next Forward.
  // REQUIRES: the sequences are of a cache that was opened with geometry().
  // kInvalidArgument for no tokens, too many, an unknown token or a sequence that is in the batch twice; kOutOfRange
  // past the context length; kOutOfMemory when the cache's budget or the machine's memory is used up. After an error no
  // sequence has changed, but one whose spilled blocks could not be read back (kIo, kCorrupt) has become shorter: see
  // Sequence::Commit.
  Result<std::span<const float>> Forward(std::span<const BatchItem> batch);

  const CacheGeometry& geometry() const;
  int num_vocabulary() const;
  int context_length() const;
  int num_threads() const;

  // Of the file's bytes and the form the weights are used in. Reads the whole file the first time (about 1 ms a MB),
  // then remembers. Thread-safe.
  Fingerprint fingerprint() const;

 private:
  struct State;
  explicit Model(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace kvist
