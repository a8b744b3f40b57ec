// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <string>

namespace kvist {

// What a tier holds, and what it has done since it was opened. A tier that fails (a full disk, a dead peer) never makes
// a caller fail: it misses and declines, and here that is counted.
struct TierStats {
  uint64_t num_records = 0;               // held now; 0 where that is unknown
  uint64_t bytes = 0;                     // held now, all that the tier takes; 0 where that is unknown
  uint64_t limit_bytes = 0;               // 0: none of its own
  uint64_t num_hits = 0, num_misses = 0;  // records that were to be read
  uint64_t bytes_read = 0, bytes_written = 0;
  uint64_t num_written = 0;       // records
  uint64_t num_declined = 0;      // records that were not stored: no room, too slow, broken
  uint64_t num_evicted = 0;       // records
  uint64_t num_failures = 0;      // calls that the system or the peer failed
  std::string last_failure = {};  // of these: what could not be done, and why
};

}  // namespace kvist
