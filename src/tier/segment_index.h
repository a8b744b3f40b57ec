// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <unordered_map>
#include <vector>

#include "tier/segment.h"

namespace kvist {

// A segment file that this process knows.
struct Segment {
  using Clock = std::chrono::steady_clock;
  // position: of the first record's first token in its sequence; it counts when segments are evicted.
  Segment(FileId id, uint64_t file_bytes, SegmentTable table, uint64_t position);

  const FileId id;
  const uint64_t bytes;                 // on the disk
  const SegmentTable table;             // without records when it is damaged
  const int64_t depth_ns;               // how much earlier it counts as used than the beginning of its text
  size_t num_live = 0;                  // records that are neither erased nor known to be damaged
  std::vector<uint64_t> num_hits;       // [record]
  int64_t used_at_ns = 0;               // what the eviction goes by, with the depth
  int64_t modified_at_ns = 0;           // of the file when we last looked: later uses by others show in it
  Clock::time_point touched_at{};       // when we last wrote the use to the file
  bool is_synced = false;               // by this process
  int num_holds = 0;                    // by who needs all that it writes (SegmentHold)
  std::weak_ptr<const File> held_file;  // while somebody holds records of it
};

// Where the records are: of several of the same key, in the newest segment; when that goes, in the next.
// Not thread-safe.
class SegmentIndex {
 public:
  struct Place {
    std::shared_ptr<Segment> segment;
    uint32_t record = 0;
    const SegmentRecord& entry() const { return segment->table.records[record]; }
  };

  void Add(std::shared_ptr<Segment> segment);  // nothing happens when it is there
  void Remove(const FileId& id);               // nor when it isn't
  // Its records are no longer found; it stays, as useless.
  void Forget(const std::shared_ptr<Segment>& segment);
  void Erase(const RecordKey& key);  // in all segments
  void Erase(const Place& place);    // this one only; nothing happens when it isn't there

  std::optional<Place> Find(const RecordKey& key) const;
  std::shared_ptr<Segment> Find(const FileId& id) const;  // null
  const std::map<FileId, std::shared_ptr<Segment>>& segments() const { return segments_; }
  // Those without a record that could be found: erased or damaged.
  const std::set<FileId>& useless() const { return useless_; }
  uint64_t bytes() const { return bytes_; }
  uint64_t num_records() const { return newest_.size(); }
  uint64_t max_order() const { return max_order_; }  // that ever was

 private:
  static bool IsNewer(const Place& a, const Place& b);
  void AddPlace(const RecordKey& key, Place place);
  bool RemovePlace(const RecordKey& key, const Segment* segment, uint32_t record);  // whether it was there
  void DropLive(Segment& segment, size_t num_records);
  void ReplaceNewest(std::unordered_map<RecordKey, Place, RecordKeyHash>::iterator newest);

  std::map<FileId, std::shared_ptr<Segment>> segments_;
  std::unordered_map<RecordKey, Place, RecordKeyHash> newest_;
  std::unordered_multimap<RecordKey, Place, RecordKeyHash> older_;  // seldom any
  std::set<FileId> useless_;
  uint64_t bytes_ = 0;
  uint64_t max_order_ = 0;
};

}  // namespace kvist
