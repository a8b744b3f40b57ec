// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "kvist/reuse.h"

namespace kvist {

const char* MissReasonName(MissReason reason) {
  switch (reason) {
    case MissReason::kNone:
      return "none";
    case MissReason::kUnshared:
      return "unshared";
    case MissReason::kNothingStored:
      return "nothing_stored";
    case MissReason::kOtherToken:
      return "other_token";
    case MissReason::kEvicted:
      return "evicted";
    case MissReason::kOtherSalt:
      return "other_salt";
    case MissReason::kOtherModel:
      return "other_model";
    case MissReason::kOtherForm:
      return "other_form";
    case MissReason::kWindow:
      return "window";
    case MissReason::kDamaged:
      return "damaged";
    case MissReason::kSlower:
      return "slower";
    case MissReason::kNoRoom:
      return "no_room";
  }
  return "unknown";
}

int64_t ReuseReport::num_tokens() const {
  int64_t num_tokens = own_tokens + shared_tokens + spilled_tokens + moved_tokens;
  for (const FromTier& from : loaded) num_tokens += from.tokens;
  return num_tokens;
}

}  // namespace kvist
