// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "engine/generation.h"

namespace kvist {

Status SequenceSettings::Validate() const {
  if (growth) KVIST_TRY_VOID(growth->Validate());
  return pages.Validate();
}

Status SequenceSettings::Apply(Sequence& sequence) const {
  sequence.SetSealing(is_sealing);
  if (growth) KVIST_TRY_VOID(sequence.SetGrowth(*growth));
  return sequence.SelectPages(pages);
}

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

}  // namespace kvist
