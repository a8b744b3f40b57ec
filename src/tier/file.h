// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <sys/stat.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kvist/error.h"

namespace kvist {

inline constexpr int64_t kNanosecondsPerSecond = 1'000'000'000;

// An open file or folder, closed when it goes. Not inherited by programs that are started.
class File {
 public:
  File() = default;
  explicit File(int descriptor) : descriptor_(descriptor) {}
  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;
  ~File();
  int descriptor() const { return descriptor_; }
  bool is_open() const { return descriptor_ >= 0; }

 private:
  int descriptor_ = -1;
};

// kIo: what could not be done, to which file or folder, and the reason that errno gives.
std::unexpected<Error> SystemFailure(const std::string& what);
std::unexpected<Error> SystemFailure(const std::string& what, const File& file_or_folder);

// Opens a regular file of the folder. kNotFound when there is none: links, pipes and folders don't count.
Result<File> OpenToRead(const File& folder, const std::string& name);
Result<File> OpenFolder(const std::string& path);
// Names of all that is in the folder, in no order.
Result<std::vector<std::string>> ListNames(const File& folder);

// A regular file of the folder, or of a file that is open.
std::optional<struct stat> StatOf(const File& folder, const std::string& name);
Result<struct stat> StatOf(const File& file);

// All the bytes: kCorrupt when the file ends before them. Interrupted and partial calls are gone on with.
Status ReadAt(const File& file, uint64_t offset, std::span<std::byte> bytes);
Status WriteAt(const File& file, uint64_t offset, std::span<const std::byte> bytes);
Status Sync(const File& file_or_folder);  // to the disk: a power failure no longer takes it

// Nanoseconds since 1970; times beyond what 64 bits hold become the nearest one.
int64_t NanosecondsOf(const timespec& time);
int64_t NowNanoseconds();
int64_t ModifiedAt(const struct stat& stat);
// As far as it is allowed: of a file that is open, or of one of the folder.
void SetModifiedAt(const File& file, int64_t nanoseconds);
void SetModifiedAt(const File& folder, const std::string& name, int64_t nanoseconds);

// What a file takes of the disk: whole pages of it.
uint64_t DiskBytes(uint64_t file_bytes);

}  // namespace kvist
