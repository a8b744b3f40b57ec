// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "tier/segment_index.h"

#include <algorithm>
#include <utility>

namespace kvist {
namespace {

// What stands later in a text is of no use without what stands before it, so it has to go first, though it is written
// last: for each token it counts as used so much earlier. That is more than writing or reading a token takes, and
// for a text of 100,000 tokens it is a quarter of an hour.
constexpr int64_t kDepthNsAToken = 10'000'000;
constexpr uint64_t kDeepestToken = uint64_t{1} << 20;

}  // namespace

Segment::Segment(FileId file_id, uint64_t file_bytes, SegmentTable file_table, uint64_t position)
    : id(file_id),
      bytes(DiskBytes(file_bytes)),
      table(std::move(file_table)),
      depth_ns(int64_t(std::min(position, kDeepestToken)) * kDepthNsAToken),
      num_hits(table.records.size()) {}

bool SegmentIndex::IsNewer(const Place& a, const Place& b) {
  return std::pair(a.segment->table.order, a.record) > std::pair(b.segment->table.order, b.record);
}

void SegmentIndex::Add(std::shared_ptr<Segment> segment) {
  if (!segments_.emplace(segment->id, segment).second) return;
  bytes_ += segment->bytes;
  max_order_ = std::max(max_order_, segment->table.order);
  segment->num_live = segment->table.records.size();
  DropLive(*segment, 0);
  for (uint32_t i = 0; i < segment->table.records.size(); ++i) AddPlace(segment->table.records[i].key, {segment, i});
}

void SegmentIndex::AddPlace(const RecordKey& key, Place place) {
  const auto [newest, is_first] = newest_.try_emplace(key, place);
  if (is_first) return;
  if (IsNewer(place, newest->second)) std::swap(place, newest->second);
  older_.emplace(key, std::move(place));
}

void SegmentIndex::Forget(const std::shared_ptr<Segment>& segment) {
  for (uint32_t i = 0; i < segment->table.records.size(); ++i) {
    RemovePlace(segment->table.records[i].key, segment.get(), i);
  }
  DropLive(*segment, segment->num_live);
}

void SegmentIndex::DropLive(Segment& segment, size_t num_records) {
  segment.num_live -= num_records;
  // It may have been removed before its reader found it damaged.
  if (segment.num_live == 0 && segments_.contains(segment.id)) useless_.insert(segment.id);
}

bool SegmentIndex::RemovePlace(const RecordKey& key, const Segment* segment, uint32_t record) {
  const auto is_it = [&](const auto& entry) {
    return entry.second.segment.get() == segment && entry.second.record == record;
  };
  if (const auto newest = newest_.find(key); newest != newest_.end() && is_it(*newest)) {
    ReplaceNewest(newest);
    return true;
  }
  const auto [begin, end] = older_.equal_range(key);
  const auto older = std::find_if(begin, end, is_it);
  if (older == end) return false;
  older_.erase(older);
  return true;
}

void SegmentIndex::Erase(const Place& place) {
  if (RemovePlace(place.entry().key, place.segment.get(), place.record)) DropLive(*place.segment, 1);
}

void SegmentIndex::ReplaceNewest(std::unordered_map<RecordKey, Place, RecordKeyHash>::iterator newest) {
  const auto [begin, end] = older_.equal_range(newest->first);
  const auto next =
      std::max_element(begin, end, [](const auto& a, const auto& b) { return IsNewer(b.second, a.second); });
  if (next == end) {
    newest_.erase(newest);
    return;
  }
  newest->second = std::move(next->second);
  older_.erase(next);
}

void SegmentIndex::Remove(const FileId& id) {
  const auto found = segments_.find(id);
  if (found == segments_.end()) return;
  bytes_ -= found->second->bytes;
  Forget(found->second);
  useless_.erase(id);
  segments_.erase(found);
}

void SegmentIndex::Erase(const RecordKey& key) {
  const auto newest = newest_.find(key);
  if (newest == newest_.end()) return;
  DropLive(*newest->second.segment, 1);
  newest_.erase(newest);
  const auto [begin, end] = older_.equal_range(key);
  for (auto older = begin; older != end; ++older) DropLive(*older->second.segment, 1);
  older_.erase(begin, end);
}

std::optional<SegmentIndex::Place> SegmentIndex::Find(const RecordKey& key) const {
  const auto newest = newest_.find(key);
  return newest == newest_.end() ? std::nullopt : std::optional(newest->second);
}

std::shared_ptr<Segment> SegmentIndex::Find(const FileId& id) const {
  const auto found = segments_.find(id);
  return found == segments_.end() ? nullptr : found->second;
}

}  // namespace kvist
