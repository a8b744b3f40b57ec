// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "cache/known_sessions.h"

namespace kvist {

Result<std::vector<std::byte>> KnownSessions::Read(DiskTier& disk, const std::string& name) {
  const std::lock_guard lock(mutex_);
  auto manifest = disk.ReadSession(name);
  if (manifest) seen_[name] = ChecksumOf(*manifest);
  if (!manifest && manifest.error().code == ErrorCode::kNotFound) seen_[name] = std::nullopt;
  return manifest;
}

Status KnownSessions::Remove(DiskTier& disk, const std::string& name) {
  const std::lock_guard lock(mutex_);
  const Status removed = disk.RemoveSession(name);
  if (removed || removed.error().code == ErrorCode::kNotFound) seen_.erase(name);
  return removed;
}

Status KnownSessions::Save(DiskTier& disk, const std::string& name, const std::vector<std::byte>& manifest,
                           std::span<const RecordKey> keys) {
  const std::lock_guard lock(mutex_);
  const auto seen = seen_.find(name);
  const Status saved = disk.SaveSession(name, manifest, keys, seen == seen_.end() ? nullptr : &seen->second);
  const Checksum checksum = ChecksumOf(manifest);
  // When the system could not say that it is durable, it may be in its place all the same.
  const auto is_in_place = [&] {
    const auto stored = disk.ReadSession(name);
    return stored && ChecksumOf(*stored) == checksum;
  };
  if (saved || (saved.error().code == ErrorCode::kIo && is_in_place())) seen_[name] = checksum;
  return saved;
}

}  // namespace kvist
