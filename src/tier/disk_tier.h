// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tier/held_record.h"
#include "tier/tier.h"

namespace kvist {

class SegmentHold;

struct DiskTierOptions {
  uint64_t limit_bytes = uint64_t{8} << 30;  // of the folder; at least 1 MiB
  // A Write is divided into files of about so many bytes (4 KiB to 1 GiB), or an eighth of the limit if that is less.
  uint64_t segment_bytes = uint64_t{64} << 20;
};

// What is known of a stored session without reading its records.
struct StoredSession {
  std::string name;
  uint64_t bytes = 0;      // of the segments it keeps from being evicted, and its own
  int64_t saved_at_s = 0;  // seconds since 1970, by the file system
};

// Records in files of one folder (docs/formats.md). Each Write makes new files (segments) that never change afterwards:
// written under a temporary name, renamed; so a process that is killed at any instant leaves whole files and temporary
// ones, and the latter are removed by whoever writes or opens the folder next (if the process that wrote them is gone).
// The least recently used segments are removed when the folder would exceed its limit, but none that a session needs.
// Of records that are used together those go first that stand later in their text (by the headers' positions): what is
// left of a text is its beginning.
// A use is kept as the file's modification time, at most once a second: it outlives the process and others see it.
// Opening reads the segments' tables and first headers, nothing else. Files are 0600, the folder that it creates 0700.
//
// Several processes may use one folder at once: each finds what the others wrote (it looks again when it misses and the
// folder has changed, as long as that takes no more than a tenth of the time), and the limit holds for all of them
// together. Changes are made under a lock on the folder; who can't get it within 2 s declines.
//
// A folder that can't be written to (read-only, full) is read from and declines writes. Foreign files are left alone
// and don't count. A file of a newer format version is left alone, not counted and missed. A segment that is damaged is
// removed, but kept when a session needs it; a damaged session is kept, but what it needed may be evicted. While a
// session can't be read (no permission, no file descriptors) nothing is evicted.
// Of several records of one key the newest is found; when that has gone, the next.
class DiskTier : public Tier {
 public:
  // kIo when the folder can't be made or read; kInvalidArgument for an option out of range.
  static Result<std::unique_ptr<DiskTier>> Open(const std::string& path, const DiskTierOptions& options);
  ~DiskTier() override;

  std::string name() const override { return "disk"; }
  std::vector<bool> Contains(std::span<const RecordKey> keys) override;  // a use of those that are there
  void Read(std::span<TierRead> reads) override;
  size_t best_read_bytes() const override { return size_t{2} << 20; }
  size_t Write(std::span<const TierWrite> writes) override;  // fast: survives a killed process, not a power failure
  // A segment is removed with the last of its records, but not while a session needs it. Nothing else is written: who
  // opens the folder anew finds the erased records of segments that are still there, and other processes go on finding
  // them.
  void Erase(std::span<const RecordKey> keys) override;
  TierStats stats() const override;

  // What is written, or found to be there, with it is not evicted by this process while it lives: for who needs all of
  // several records. The tier must outlive it.
  class Keeper {
   public:
    explicit Keeper(DiskTier& tier);
    ~Keeper();
    std::vector<bool> Contains(std::span<const RecordKey> keys);
    size_t Write(std::span<const TierWrite> writes);

   private:
    DiskTier& tier_;
    std::unique_ptr<SegmentHold> hold_;
  };

  // A record that stays readable until it is let go of: for blocks that a running sequence needs. What is held and
  // evicted takes space on the disk beyond the limit. Each segment that records of are held of is an open file.
  // kNotFound; kIo; kCorrupt for a damaged header (payloads are verified when they are read).
  Result<std::shared_ptr<const HeldRecord>> Hold(const RecordKey& key);

  // --- sessions: named lists of records that are never evicted, with bytes of the caller's own ---

  // Stores `manifest` (any bytes, at most 64 MiB) under the name, in place of an earlier one, and keeps the records of
  // `keys` until the session is removed or saved without them. When it returns, all of it survives a power failure;
  // when it fails, the earlier session of that name is as it was.
  // Names are 1 to 100 of letters, digits, - _ . and don't begin with a dot: kInvalidArgument.
  // At most 2^20 keys; the segments that the records are in are kept as a whole.
  // kNotFound when a record of `keys` is not there (any more); kIo with the reason when it can't be written;
  // kUnsupported when a session of a newer format version has the name.
  // kOutOfMemory when all sessions together would exceed the limit: it says which is the largest. The earlier session
  // of the name must have room beside the new one.
  // replaces: what the caller knows under the name, the checksum of a manifest or nothing; kFailedPrecondition when
  // another session is there that is not damaged. Null: whatever is there is replaced.
  Status SaveSession(const std::string& name, std::span<const std::byte> manifest, std::span<const RecordKey> keys,
                     const std::optional<Checksum>* replaces = nullptr);
  // The manifest. kNotFound; kCorrupt when its checksum is another; kUnsupported for a newer format version.
  Result<std::vector<std::byte>> ReadSession(const std::string& name);
  // kNotFound; kIo; kUnsupported. Its records may be evicted from now on.
  Status RemoveSession(const std::string& name);
  std::vector<StoredSession> ListSessions();  // damaged ones, too, but none of a newer format version

  // --- looking at what is there ---

  struct Stored {
    RecordKey key;
    RecordHeader header;
    uint64_t bytes = 0;        // of the record in its file
    int64_t written_at_s = 0;  // seconds since 1970
    int64_t used_at_s = 0;     // last hit, or when it was written
    uint64_t num_hits = 0;     // since this process opened the folder
    bool is_of_session = false;
  };
  // Calls visit for every record that can be found and whose header is whole, those written together one after another.
  // Reads each header.
  void ForEach(const std::function<void(const Stored&)>& visit);
  // Reads everything and verifies every checksum; calls `fault` with the file and what is wrong with it. Changes
  // nothing. Returns the number of records that are fine, less those that were replaced or erased.
  uint64_t Verify(const std::function<void(const std::string& file, const std::string& what)>& fault);

 private:
  struct State;
  explicit DiskTier(std::unique_ptr<State> state);
  std::vector<bool> Contains(std::span<const RecordKey> keys, SegmentHold* hold);
  size_t Write(std::span<const TierWrite> writes, SegmentHold* hold);
  std::unique_ptr<State> state_;
};

}  // namespace kvist
