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

void PagesStats::Count(const Sequence& sequence) {
  ++num_steps;
  const double read = sequence.num_read_tokens(), held = sequence.num_held_tokens();
  if (read >= held) return;
  ++num_selecting_steps;
  read_tokens += read;
  held_tokens += held;
}

PagesStats& PagesStats::operator+=(const PagesStats& other) {
  num_steps += other.num_steps;
  num_selecting_steps += other.num_selecting_steps;
  read_tokens += other.read_tokens;
  held_tokens += other.held_tokens;
  return *this;
}

GenerationStats& GenerationStats::operator+=(const GenerationStats& other) {
  prompt_tokens += other.prompt_tokens;
  reused_tokens += other.reused_tokens;
  computed_tokens += other.computed_tokens;
  output_tokens += other.output_tokens;
  decode_steps += other.decode_steps;
  prefill_s += other.prefill_s;
  decode_s += other.decode_s;
  pages += other.pages;
  return *this;
}

}  // namespace kvist
