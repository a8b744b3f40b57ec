// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <chrono>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "tier/file.h"

namespace kvist {

// The highest number that changes are counted to; more can only be damage.
inline constexpr uint64_t kMaxOrder = INT64_MAX;

// Changes when the folder's segments or sessions do.
struct FolderStamp {
  uint64_t num_changes = 0;                                    // counted by those who keep to the lock
  int64_t segments_modified_at = 0, sessions_modified_at = 0;  // for what others do
  bool operator==(const FolderStamp&) const = default;
};

// A disk tier's folder: PATH/segments, PATH/sessions, PATH/tmp and the file PATH/lock.
struct Folder {
  // Makes what is missing if it can. kIo when PATH is no folder that can be read.
  static Result<Folder> Open(const std::string& path);
  FolderStamp Stamp() const;

  File root, segments, sessions, tmp;  // those that could not be made are not open
};

// Held by whoever changes segments/ or sessions/ or makes a file in tmp/: one thread of all processes at a time. The
// system releases it when the process dies. The file has a number in it that counts the changes.
class FolderLock {
 public:
  // kIo when it can't be had, or not in time.
  static Result<FolderLock> Take(const Folder& folder, std::chrono::milliseconds timeout = std::chrono::seconds(2));
  // To be called before a change, so that the others look again even if we die amid it. Counts on from `at_least`.
  Status CountChange(uint64_t at_least);
  uint64_t num_changes() const { return num_changes_; }

 private:
  FolderLock(File file, uint64_t num_changes) : file_(std::move(file)), num_changes_(num_changes) {}
  File file_;
  uint64_t num_changes_;
};

// While the file is open nobody has the lock. kIo when somebody has it now.
Result<File> HoldOffChanges(const Folder& folder);

// 128 random bits, as a file's name: 32 hexadecimal digits.
struct FileId {
  uint64_t high = 0, low = 0;
  auto operator<=>(const FileId&) const = default;
};
FileId RandomFileId();
std::string HexOf(const FileId& id);
std::optional<FileId> ParseHex(std::string_view name);

// A file of tmp/ that is being written. Locked, so that others see that its writer lives. Removed when it goes, unless
// it was moved to its place.
class TempFile {
 public:
  // Of that size from the beginning, so that others count its bytes before they are written.
  static Result<TempFile> Make(const Folder& folder, uint64_t bytes, const FolderLock&);
  TempFile(TempFile&&) = default;
  ~TempFile();
  const FileId& id() const { return id_; }
  const File& file() const { return file_; }
  Status MoveTo(const File& folder, const std::string& name, const FolderLock&);

 private:
  TempFile(const File* tmp, FileId id, File file) : tmp_(tmp), id_(id), file_(std::move(file)) {}
  const File* tmp_;
  FileId id_;
  File file_;
};

// Removes files of tmp/ whose writers are dead; returns the bytes on disk of the others.
uint64_t TidyTempFiles(const Folder& folder, const FolderLock&);

}  // namespace kvist
