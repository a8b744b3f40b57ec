// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "tier/record.h"

namespace kvist {

// What a cache has last seen under each session's name, so that it replaces nothing it does not know. Thread-safe.
class KnownSessions {
 public:
  // manifest: its checksum, or nothing where there was no session.
  void Note(const std::string& name, std::optional<Checksum> manifest) {
    const std::lock_guard lock(mutex_);
    seen_[name] = manifest;
  }
  void Forget(const std::string& name) {
    const std::lock_guard lock(mutex_);
    seen_.erase(name);
  }
  // Nothing when it has not looked.
  std::optional<std::optional<Checksum>> Find(const std::string& name) const {
    const std::lock_guard lock(mutex_);
    const auto seen = seen_.find(name);
    if (seen == seen_.end()) return std::nullopt;
    return std::optional<std::optional<Checksum>>(std::in_place, seen->second);
  }

 private:
  mutable std::mutex mutex_;
  std::map<std::string, std::optional<Checksum>> seen_;
};

}  // namespace kvist
