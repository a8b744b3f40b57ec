// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include <numeric>
#include <utility>

#include "tier/disk_tier_state.h"

namespace kvist {

Status HeldRecord::ReadPart(size_t index, std::span<std::byte> part) const {
  const auto before = std::span(header.part_bytes).first(index);
  const uint64_t offset = std::accumulate(before.begin(), before.end(), payload_offset);
  KVIST_TRY_VOID(ReadAt(*file, offset, part));
  return VerifyPart(header, index, part);
}

Status HeldRecord::ReadPayload(std::span<std::byte> payload) const {
  KVIST_TRY_VOID(ReadAt(*file, payload_offset, payload));
  return VerifyParts(header, payload);
}

Result<std::shared_ptr<const File>> DiskTier::State::OpenToHold(Segment& segment) {
  {
    const Lock lock(mutex);
    if (auto file = segment.held_file.lock()) return file;
  }
  KVIST_TRY(File opened, OpenSegment(segment));
  auto file = std::make_shared<const File>(std::move(opened));
  const Lock lock(mutex);
  segment.held_file = file;
  return file;
}

Result<std::shared_ptr<const HeldRecord>> DiskTier::State::HoldAt(const RecordKey& key,
                                                                  const SegmentIndex::Place& place) {
  KVIST_TRY(auto file, OpenToHold(*place.segment));
  std::vector<std::byte> bytes(place.entry().header_bytes);
  KVIST_TRY_VOID(ReadAt(*file, place.entry().header_offset, bytes));
  KVIST_TRY(RecordHeader header, DecodeHeader(bytes));
  if (header.payload_bytes() != place.entry().payload_bytes) {
    return Fail(ErrorCode::kCorrupt, "the record's header and its segment's table give its payload other sizes");
  }
  return std::make_shared<const HeldRecord>(key, std::move(header), std::move(file), place.entry().payload_offset);
}

Result<std::shared_ptr<const HeldRecord>> DiskTier::Hold(const RecordKey& key) {
  const auto find = [&] {
    const State::Lock lock(state_->mutex);
    return state_->index.Find(key);
  };
  auto place = find();
  if (!place) {
    state_->RefreshAfterMiss();
    place = find();
  }
  if (!place) return Fail(ErrorCode::kNotFound, "the disk tier has no record " + RecordKeyName(key));
  auto held = state_->HoldAt(key, *place);
  if (!held) state_->NoteFailure(place->segment, held.error());
  if (held) state_->Touch(*place->segment);
  return held;
}

}  // namespace kvist
