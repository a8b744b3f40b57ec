// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "cache/session_manifest.h"
#include "kvist/error.h"
#include "tier/disk_tier.h"
#include "tier/file.h"

namespace kvist {

// A session as one file, to be kept or taken to another machine: its name, its manifest, and every record that the
// manifest names, in the manifest's order (docs/formats.md). Tokens, salt and notes are in it as they are, not
// encrypted.
//
// Checksums tell damage, not malice: an import is believed as to what a model computed for its tokens, and sequences of
// the session's salt that begin alike will use it. Import only what you would run.
//
// What both directions cost: one record in memory (an import writes those of up to 16 MiB together), the file's bytes
// read or written once, and by an import read once more before.

struct SessionExport {
  std::string name;
  uint64_t num_records = 0;
  uint64_t file_bytes = 0;
};

// Called after each record; false stops it with kCancelled.
using RecordProgress = std::function<bool(int64_t done, int64_t all)>;

struct ExportOptions {
  bool replaces = false;  // a file of that name
  RecordProgress progress = {};
};

// Writes the session to the file at `path`: under another name beside it, brought to the disk, then renamed; 0600.
// A failure leaves no file, and an earlier one as it was. Every record is verified: what is written can be imported.
// kNotFound for the session, or for a record of it that has gone; kCorrupt for a damaged one; kFailedPrecondition when
// the file is there and is not to be replaced; kInvalidArgument when the path is of something else; kIo.
Result<SessionExport> ExportSession(DiskTier& disk, const std::string& name, const std::string& path,
                                    const ExportOptions& options = {});

// An exported session whose every byte was found to be right, open to be stored.
// One thread at a time.
class SessionImport {
 public:
  // Reads the whole file. The error names the file and says what is wrong, and at which byte: kCorrupt for a file that
  // is none of ours, is cut off, has bytes after its end or differs in any bit from what was written; kUnsupported for
  // one of a newer format version; kNotFound, kInvalidArgument (no regular file), kIo, kCancelled.
  static Result<SessionImport> Open(const std::string& path, const RecordProgress& progress = {});

  const SessionExport& facts() const { return facts_; }
  const SessionManifest& manifest() const { return manifest_; }

  struct Options {
    std::string name = {};  // empty: the one it was exported under
    bool replaces = false;  // a session of that name
    RecordProgress progress = {};
  };
  // Writes the records to the tier and saves the session. kFailedPrecondition when there is one of that name and it is
  // not to be replaced; kIo when the tier declines records; kCorrupt when the file has changed since Open; errors as
  // DiskTier::SaveSession. When it fails there is no new session, and an earlier one is as it was; records that were
  // written stay, to be evicted.
  Status StoreIn(DiskTier& disk, const Options& options) const;

 private:
  SessionImport() = default;

  std::string path_;
  File file_;
  uint64_t first_record_offset_ = 0;
  SessionExport facts_;
  std::vector<std::byte> manifest_bytes_;
  SessionManifest manifest_;
};

}  // namespace kvist
