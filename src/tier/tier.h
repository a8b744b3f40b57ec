// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "kvist/tier_stats.h"
#include "tier/record.h"

namespace kvist {

// A record to be written. The bytes are the caller's until Write returns.
struct TierWrite {
  RecordKey key;
  std::span<const std::byte> header;  // encoded; its size does not change any more
  std::span<const std::byte> payload;
  // Puts the payload's checksums into the header, if they aren't there; a tier calls it just before it writes the
  // payload, which then is still in the processor's cache. May be called again.
  std::function<void()> complete_header = {};
};

// A record to be read, or a piece of its payload.
struct TierRead {
  RecordKey key;
  std::span<std::byte> payload;  // room for bytes [payload_offset, + payload.size()) of the payload
  size_t payload_offset = 0;
  bool wants_header = true;

  bool is_hit = false;            // out
  std::vector<std::byte> header;  // out, encoded, if it is wanted
};

// A place for records outside the memory of the cache. It may decline to store, may forget and may miss; what it does
// return may be wrong (a flipped bit, another's record): the caller verifies checksums and compares the digest.
// A tier that fails (a full disk, a dead peer) declines and misses and counts it; it never makes its caller fail and
// never blocks it for longer than the time-outs it was given.
// Thread-safe: several calls may run at once.
class Tier {
 public:
  virtual ~Tier() = default;

  virtual std::string name() const = 0;  // "disk", "redis": as in options, reports and statistics

  // Which of the keys are held now, as far as the tier knows without reading them: [key]. What it says may be outdated
  // at once.
  virtual std::vector<bool> Contains(std::span<const RecordKey> keys) = 0;

  // Reads each of the records that is there and whose payload has the bytes that are asked for; is_hit says so. Whether
  // or not it is, the bytes of `payload` may have changed. Takes all at once, so that a tier can order or pipeline
  // them.
  virtual void Read(std::span<TierRead> reads) = 0;

  // How many bytes a Read should be asked for when more are wanted: so few that they are still in the processor's cache
  // when the caller verifies them. All at once where each Read costs a round trip.
  virtual size_t best_read_bytes() const { return SIZE_MAX; }

  // Stores the records, replacing those of the same key. Returns how many it stored; the others are declined.
  // Records that are written together tend to be read and forgotten together: give those of one sequence in one call.
  virtual size_t Write(std::span<const TierWrite> writes) = 0;

  // Forgets the records; those that aren't there don't matter.
  virtual void Erase(std::span<const RecordKey> keys) = 0;

  virtual TierStats stats() const = 0;
};

}  // namespace kvist
