// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "engine/quality.h"
#include "kvist/cache.h"
#include "model/model.h"

namespace kvist {

// What reusing a document behind another beginning does to a model's predictions.
//
// A text is cut into rounds of other beginning, beginning, document, continuation. The document is computed behind the
// other beginning and stored; then a sequence computes the beginning and the document's first tokens, goes on with the
// stored rest (Sequence::ReuseMoved), and predicts the continuation, token by token of the text. That is compared with
// the same after computing everything. The beginnings have different lengths, so blocks and positions differ.
struct MovedOptions {
  int64_t other_beginning_tokens = 300;
  int64_t beginning_tokens = 200;
  int64_t document_tokens = 512;
  int64_t continuation_tokens = 64;
  int num_rounds = 8;
  std::vector<int64_t> recomputed_tokens = {0, 16, 32, 64, 128};  // of the document, one contestant each
  CacheOptions cache = {};                                        // its sharing options don't count
  std::optional<Token> bos = {};  // before every beginning, for models that were trained to see it there
};

struct MovedPoint {
  std::optional<int64_t> recomputed_tokens;  // nothing: the document and its continuation without any beginning
  FormQuality quality;
  double document_ms = 0;  // mean time until the document is in the sequence
};

struct MovedReport {
  double computed_document_ms = 0;  // the same when all of it is computed
  std::vector<MovedPoint> points;
};

// kInvalidArgument for a text or document that is too short, kCancelled when progress(done, all) says false; else as
// Cache::Open and Model::Forward.
Result<MovedReport> MeasureMoved(Model& model, std::span<const Token> text, const MovedOptions& options,
                                 const std::function<bool(int64_t, int64_t)>& progress = {});

}  // namespace kvist
