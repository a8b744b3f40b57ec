// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "cache/session_manifest.h"
#include "kvist/error.h"
#include "tier/disk_tier.h"
#include "tier/file.h"
#include "tier/record.h"
#include "tier/segment_index.h"
#include "tier/session_file.h"

namespace kvist {

// Whether the path is a folder of a disk tier: one that has segments/ and sessions/.
bool IsStore(const std::string& path);
// kNotFound when there is nothing at the path, kInvalidArgument when it is no store, kIo when that can't be seen.
Status CheckStore(const std::string& path);

// What a disk tier's folder holds, read by its files: nothing is made, locked, touched, evicted or tidied away, where
// DiskTier::Open would remove damaged segments and what dead processes left. What others remove meanwhile is left out,
// what they add since Open is not seen.
class StoreView {
 public:
  // Reads the tables of all segments and sessions. Errors as CheckStore; kIo.
  static Result<StoreView> Open(const std::string& path);

  const std::string& path() const { return path_; }
  uint64_t bytes() const;  // on the disk, of segments and sessions
  uint64_t num_records() const { return index_.num_records(); }
  uint64_t num_damaged_files() const { return damaged_.size(); }  // by their tables
  uint64_t num_newer_files() const { return num_newer_files_; }   // of a newer format version, not looked at

  struct Session {
    std::string name;
    uint64_t bytes = 0;  // of the segments it keeps from being evicted, and its own
    int64_t saved_at_s = 0;
    uint64_t num_records = 0;
    uint64_t num_missing_records = 0;
    std::optional<Error> fault;  // what is wrong with its file: kUnsupported when it is of a newer format version
    SessionManifest manifest;    // unless something is wrong
  };
  std::vector<std::string> SessionNames() const;
  Result<Session> ReadSession(const std::string& name) const;  // kNotFound

  // In the order they were written; those whose header is damaged are left out.
  void ForEachRecord(const std::function<void(const DiskTier::Stored&)>& visit) const;

  // Reads everything but records that newer ones have taken the place of. Returns the number of records that are fine.
  uint64_t Verify(const std::function<void(const std::string& file, const std::string& what)>& fault,
                  const std::function<void(int64_t done, int64_t all)>& progress) const;

 private:
  struct SessionFile {
    uint64_t file_bytes = 0;
    int64_t saved_at_s = 0;
    SessionTable table;  // empty when it is damaged
  };
  void LoadSegments(const std::vector<std::string>& names);
  void LoadSessions(const std::vector<std::string>& names);
  void NoteFailure(const std::string& file, const Error& error);
  bool IsFound(const Segment& segment, uint32_t record) const;

  std::string path_;
  File segments_, sessions_;  // the folders
  SegmentIndex index_;
  std::map<std::string, SessionFile> name_to_session_;
  std::unordered_set<RecordKey, RecordKeyHash> keys_of_sessions_;
  std::map<std::string, std::string> damaged_;  // file to what is wrong with it
  uint64_t num_newer_files_ = 0;
};

}  // namespace kvist
