// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace kvist {

using Token = int32_t;

// Why the tokens after the reused ones were not found.
enum class MissReason : uint8_t {
  kNone,           // nothing was missing
  kUnshared,       // nothing was looked for: the cache does not share prefixes, or what the sequence has is none
  kNothingStored,  // nobody has stored a text that goes on there
  kOtherToken,     // the stored text that has most in common goes on with another token
  kEvicted,        // it was there and had to make room
  kOtherSalt,      // the text begins as one that was stored under another salt
  kOtherModel,     // the session was saved with another model, geometry or sealing
  kOtherForm,      // the session was saved in another form
  kWindow,         // layers with a sliding window no longer hold what the next query would see
  kDamaged,        // what a tier returned was not what had been stored
  kSlower,         // loading it would have taken longer than computing it
  kNoRoom,         // the budget has no room for it
};
// "none", "nothing_stored", "other_token", ... as used in JSON output.
const char* MissReasonName(MissReason reason);

// Where the tokens of a prompt came from, and why no more of them.
struct ReuseReport {
  struct FromTier {
    std::string tier;  // "disk", "redis"
    int64_t tokens = 0;
    uint64_t bytes = 0;
    double seconds = 0;
  };
  int64_t own_tokens = 0;     // were in the sequence before
  int64_t shared_tokens = 0;  // in memory: blocks of other sequences, or of ended ones
  std::vector<FromTier> loaded;
  int64_t spilled_tokens = 0;  // stay in the disk tier, where every step reads them
  // In memory, computed at another position behind other tokens (Sequence::ReuseMoved): counted by whoever attached
  // them, as the engine does. What follows them is an approximation.
  int64_t moved_tokens = 0;
  int64_t moved_chunks = 0;
  bool is_approximate = false;  // because of these, or of such tokens among its own (Sequence::is_approximate)
  MissReason reason = MissReason::kNone;
  int64_t miss_position = 0;          // of the first token that was not found
  std::optional<Token> wanted_token;  // kOtherToken: what the prompt has there
  std::optional<Token> stored_token;  // and what the stored text has

  int64_t num_tokens() const;  // all that need not be computed
};

}  // namespace kvist
