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

void PagesStats::Count(const Sequence& sequence, const PageSelection& selection, double kept_tokens) {
  if (selection.num_tokens == 0) return;
  ++num_steps;
  const double stored = sequence.num_held_tokens() - kept_tokens;
  const auto read = static_cast<double>(selection.num_tokens);
  // A step that leaves out something makes the sequence an approximate one.
  if (stored <= read || sequence.num_spilled_tokens() > 0 || !sequence.is_approximate()) return;
  ++num_selecting_steps;
  read_tokens += read;
  stored_tokens += stored;
}

PagesStats& PagesStats::operator+=(const PagesStats& other) {
  num_steps += other.num_steps;
  num_selecting_steps += other.num_selecting_steps;
  read_tokens += other.read_tokens;
  stored_tokens += other.stored_tokens;
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
