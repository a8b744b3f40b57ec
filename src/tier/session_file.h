// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kvist/error.h"
#include "tier/file.h"
#include "tier/folder.h"
#include "tier/record.h"

namespace kvist {

// A session file as docs/formats.md has it: a table, then the manifest.
struct SessionTable {
  struct Key {
    RecordKey key;
    uint32_t segment = 0;  // of `segments`: where the record was when the session was saved
  };
  std::vector<FileId> segments;  // that must not be evicted
  std::vector<Key> keys;
  uint64_t manifest_bytes = 0;
  Checksum manifest_checksum;
};

inline constexpr uint64_t kMaxManifestBytes = uint64_t{64} << 20;
inline constexpr uint64_t kMaxSessionKeys = uint64_t{1} << 20;

bool IsSessionName(std::string_view name);
std::string SessionFileName(const std::string& name);
std::optional<std::string> ParseSessionFileName(std::string_view file_name);

// With the manifest's checksum and number of bytes in it, and as long as the file will be less the manifest.
std::vector<std::byte> EncodeSessionTable(const SessionTable& table);

// kNotFound for a file that is no session of ours; kCorrupt for a damaged or truncated one; kUnsupported for one of a
// newer format version; kIo.
Result<SessionTable> ReadSessionTable(const File& file);
// As ReadSessionTable, and kCorrupt when its checksum is another.
Result<std::vector<std::byte>> ReadManifest(const File& file);

}  // namespace kvist
