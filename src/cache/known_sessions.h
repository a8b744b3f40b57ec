// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstddef>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tier/disk_tier.h"

namespace kvist {

// What a cache has last seen under each session's name, so that it replaces nothing it does not know. Thread-safe.
class KnownSessions {
 public:
  // As DiskTier::ReadSession and RemoveSession.
  Result<std::vector<std::byte>> Read(DiskTier& disk, const std::string& name);
  Status Remove(DiskTier& disk, const std::string& name);
  // As DiskTier::SaveSession, in the place of what has been noted, whatever it is where nothing has been.
  Status Save(DiskTier& disk, const std::string& name, const std::vector<std::byte>& manifest,
              std::span<const RecordKey> keys);

 private:
  std::mutex mutex_;  // held while the disk is at work, so that what is noted is what is there
  std::map<std::string, std::optional<Checksum>> seen_;  // the manifest's; nothing where there was no session
};

}  // namespace kvist
