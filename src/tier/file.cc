// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "tier/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <filesystem>
#include <system_error>
#include <utility>

#include "base/round_up.h"

namespace kvist {
namespace {

constexpr size_t kDiskPageBytes = 4096;

// As the system knows it now; for messages.
std::string PathOf(const File& file) {
  std::error_code error;
  const auto path = std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(file.descriptor()), error);
  return error ? "a file" : path.string();
}

}  // namespace

File::File(File&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

File& File::operator=(File&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

File::~File() {
  if (is_open()) close(descriptor_);
}

std::unexpected<Error> SystemFailure(const std::string& what) {
  return Fail(ErrorCode::kIo, what + ": " + std::generic_category().message(errno));
}

std::unexpected<Error> SystemFailure(const std::string& what, const File& file_or_folder) {
  const int error = errno;
  const std::string path = PathOf(file_or_folder);
  errno = error;
  return SystemFailure(what + " " + path);
}

Result<File> OpenToRead(const File& folder, const std::string& name) {
  // Without blocking, for a pipe would wait for its other end.
  const int flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
  File file(openat(folder.descriptor(), name.c_str(), flags));
  if (!file.is_open()) {
    if (errno == ENOENT || errno == ELOOP || errno == ENXIO) return Fail(ErrorCode::kNotFound, name + " is not there");
    return SystemFailure("can't open " + name + " in", folder);
  }
  KVIST_TRY(const struct stat stat, StatOf(file));
  if (!S_ISREG(stat.st_mode)) return Fail(ErrorCode::kNotFound, name + " is not a file");
  return file;
}

Result<File> OpenFolder(const std::string& path) {
  File folder(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder.is_open()) return SystemFailure("can't open the folder " + path);
  return folder;
}

Result<std::vector<std::string>> ListNames(const File& folder) {
  // Opened anew: a position in the listing belongs to the open folder.
  const int descriptor = openat(folder.descriptor(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* listing = descriptor < 0 ? nullptr : fdopendir(descriptor);
  if (!listing) {
    const auto failure = SystemFailure("can't list the folder", folder);
    if (descriptor >= 0) close(descriptor);
    return failure;
  }
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = readdir(listing)) {
    if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
  }
  const int error = errno;
  closedir(listing);
  errno = error;
  if (error != 0) return SystemFailure("can't list the folder", folder);
  return names;
}

std::optional<struct stat> StatOf(const File& folder, const std::string& name) {
  struct stat stat;
  if (fstatat(folder.descriptor(), name.c_str(), &stat, AT_SYMLINK_NOFOLLOW) != 0) return std::nullopt;
  if (!S_ISREG(stat.st_mode)) return std::nullopt;
  return stat;
}

Result<struct stat> StatOf(const File& file) {
  struct stat stat;
  if (fstat(file.descriptor(), &stat) != 0) return SystemFailure("can't look at", file);
  return stat;
}

Status ReadAt(const File& file, uint64_t offset, std::span<std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t num_read = pread(file.descriptor(), bytes.data(), bytes.size(), off_t(offset));
    if (num_read < 0 && errno == EINTR) continue;
    if (num_read < 0) return SystemFailure("can't read", file);
    if (num_read == 0) return Fail(ErrorCode::kCorrupt, "the file is too short");
    offset += uint64_t(num_read);
    bytes = bytes.subspan(size_t(num_read));
  }
  return {};
}

Status WriteAt(const File& file, uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t num_written = pwrite(file.descriptor(), bytes.data(), bytes.size(), off_t(offset));
    if (num_written < 0 && errno == EINTR) continue;
    if (num_written == 0) errno = ENOSPC;
    if (num_written <= 0) return SystemFailure("can't write", file);
    offset += uint64_t(num_written);
    bytes = bytes.subspan(size_t(num_written));
  }
  return {};
}

Status Sync(const File& file_or_folder) {
  while (fsync(file_or_folder.descriptor()) != 0) {
    if (errno != EINTR) return SystemFailure("can't bring to the disk", file_or_folder);
  }
  return {};
}

int64_t NanosecondsOf(const timespec& time) {
  const int64_t most = INT64_MAX / kNanosecondsPerSecond - 1;
  return std::clamp<int64_t>(time.tv_sec, -most, most) * kNanosecondsPerSecond + time.tv_nsec;
}

int64_t NowNanoseconds() {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return NanosecondsOf(now);
}

int64_t ModifiedAt(const struct stat& stat) {
  return NanosecondsOf(stat.st_mtim);
}

namespace {

timespec TimeOf(int64_t nanoseconds) {
  int64_t seconds = nanoseconds / kNanosecondsPerSecond, rest = nanoseconds % kNanosecondsPerSecond;
  if (rest < 0) --seconds, rest += kNanosecondsPerSecond;
  return {seconds, rest};
}

}  // namespace

void SetModifiedAt(const File& file, int64_t nanoseconds) {
  const timespec times[2] = {{0, UTIME_OMIT}, TimeOf(nanoseconds)};
  futimens(file.descriptor(), times);
}

void SetModifiedAt(const File& folder, const std::string& name, int64_t nanoseconds) {
  const timespec times[2] = {{0, UTIME_OMIT}, TimeOf(nanoseconds)};
  utimensat(folder.descriptor(), name.c_str(), times, AT_SYMLINK_NOFOLLOW);
}

uint64_t DiskBytes(uint64_t file_bytes) {
  return RoundUp(file_bytes, kDiskPageBytes);
}

}  // namespace kvist
