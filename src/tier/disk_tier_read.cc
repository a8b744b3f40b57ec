// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include <algorithm>
#include <tuple>

#include "tier/disk_tier_state.h"

namespace kvist {
namespace {

constexpr std::chrono::seconds kTouchInterval{1};

bool HasBytes(const SegmentRecord& entry, const TierRead& read) {
  return read.payload_offset <= entry.payload_bytes && read.payload.size() <= entry.payload_bytes - read.payload_offset;
}

bool IsOfSameSegment(const Wanted& a, const Wanted& b) {
  return a.place.segment == b.place.segment;
}

// As they lie on the disk.
bool LiesBefore(const Wanted& a, const Wanted& b) {
  return std::tuple(a.place.segment->table.order, a.place.segment->id, a.file_offset()) <
         std::tuple(b.place.segment->table.order, b.place.segment->id, b.file_offset());
}

// One after the other in the file and in memory: they can be read at once.
bool Continues(const Wanted& before, const Wanted& next) {
  return next.file_offset() == before.file_offset() + before.read->payload.size() &&
         next.read->payload.data() == before.read->payload.data() + before.read->payload.size();
}

// How many from the front of `all` belong together, by a relation of neighbours.
size_t RunLength(std::span<const Wanted> all, auto belong_together) {
  size_t length = 1;
  while (length < all.size() && belong_together(all[length - 1], all[length])) ++length;
  return length;
}

// One piece of the file, and the headers of its records.
Status ReadRun(const File& file, std::span<const Wanted> run) {
  size_t bytes = 0;
  for (const Wanted& wanted : run) {
    bytes += wanted.read->payload.size();
    if (!wanted.read->wants_header) continue;
    wanted.read->header.resize(wanted.place.entry().header_bytes);
    KVIST_TRY_VOID(ReadAt(file, wanted.place.entry().header_offset, wanted.read->header));
  }
  return ReadAt(file, run.front().file_offset(), {run.front().read->payload.data(), bytes});
}

}  // namespace

Result<File> DiskTier::State::OpenSegment(const Segment& segment) const {
  KVIST_TRY(File file, OpenToRead(folder.segments, SegmentFileName(segment.id)));
  KVIST_TRY(const struct stat stat, StatOf(file));
  if (uint64_t(stat.st_size) == segment.table.file_bytes) return file;
  return Fail(ErrorCode::kCorrupt, "it has another size than it was written with");
}

std::vector<size_t> DiskTier::State::ReadFound(std::span<TierRead> reads, std::span<const size_t> which) {
  std::vector<Wanted> wanted;
  {
    const Lock lock(mutex);
    for (const size_t i : which) {
      reads[i].is_hit = false;
      auto place = index.Find(reads[i].key);
      if (place && HasBytes(place->entry(), reads[i])) wanted.push_back({&reads[i], *std::move(place)});
    }
  }
  std::ranges::sort(wanted, LiesBefore);
  for (std::span<const Wanted> left = wanted; !left.empty();) {
    const size_t length = RunLength(left, IsOfSameSegment);
    ReadSegment(left.first(length));
    left = left.subspan(length);
  }
  std::vector<size_t> missing;
  for (const size_t i : which) {
    if (!reads[i].is_hit) missing.push_back(i);
  }
  return missing;
}

void DiskTier::State::ReadSegment(std::span<const Wanted> wanted) {
  const std::shared_ptr<Segment>& segment = wanted.front().place.segment;
  // Opened for each call, which costs 3 us: a file that is kept open would keep its place on the disk after another
  // process has evicted it.
  const auto file = OpenSegment(*segment);
  if (!file) return NoteFailure(segment, file.error());
  bool has_hit = false;
  for (std::span<const Wanted> left = wanted; !left.empty();) {
    const auto run = left.first(RunLength(left, Continues));
    left = left.subspan(run.size());
    if (const Status read = ReadRun(*file, run); !read) {
      NoteFailure(segment, read.error());
      // What can't be read is missing, so that an older one is found, or it is written anew.
      const Lock lock(mutex);
      for (const Wanted& lost : run) index.Erase(lost.place);
      continue;
    }
    has_hit = true;
    const Lock lock(mutex);
    for (const Wanted& hit : run) {
      hit.read->is_hit = true;
      ++segment->num_hits[hit.place.record];
      stats.bytes_read += hit.read->payload.size() + hit.read->header.size();
    }
  }
  if (has_hit) Touch(*segment);
}

void DiskTier::State::NoteFailure(const std::shared_ptr<Segment>& segment, const Error& error) {
  const Lock lock(mutex);
  if (error.code == ErrorCode::kNotFound) return index.Remove(segment->id);  // another process has evicted it
  ++stats.num_failures;
  stats.last_failure = SegmentFileName(segment->id) + ": " + error.message;
  if (error.code == ErrorCode::kCorrupt) index.Forget(segment);
}

void DiskTier::State::Touch(Segment& segment) {
  const int64_t now_ns = NowNanoseconds();
  {
    const Lock lock(mutex);
    segment.used_at_ns = now_ns;
    const auto now = Clock::now();
    if (now - segment.touched_at < kTouchInterval) return;
    segment.touched_at = now;
    segment.modified_at_ns = now_ns;
  }
  SetModifiedAt(folder.segments, SegmentFileName(segment.id), now_ns);
}

}  // namespace kvist
