// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "tier/file.h"
#include "tier/record.h"

namespace kvist {

// A record on disk that stays readable for whoever holds it, whatever becomes of it in its tier: the file is kept open,
// so it keeps its place on the disk when it is evicted, even by another process. Any thread may read it.
struct HeldRecord {
  RecordKey key;
  RecordHeader header;
  std::shared_ptr<const File> file;  // of all held records of a segment
  uint64_t payload_offset = 0;       // in the file

  // Part `index` of the payload into `part`, which has its size, verified. kIo; kCorrupt when it is not what was
  // stored.
  Status ReadPart(size_t index, std::span<std::byte> part) const;
  // The same of all of the payload.
  Status ReadPayload(std::span<std::byte> payload) const;
};

}  // namespace kvist
