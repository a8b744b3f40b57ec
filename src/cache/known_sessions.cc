// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "cache/known_sessions.h"

namespace kvist {

void KnownSessions::Note(const std::string& name, std::optional<Checksum> manifest) {
  const std::lock_guard lock(mutex_);
  seen_[name] = manifest;
}

void KnownSessions::Forget(const std::string& name) {
  const std::lock_guard lock(mutex_);
  seen_.erase(name);
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
