// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "tier/folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/random.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "tier/record.h"

namespace kvist {
namespace {

constexpr char kLockName[] = "lock";
constexpr int kHexDigits = 32;

Status MakeRoot(const std::filesystem::path& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) return {};
  std::filesystem::path whole = std::filesystem::absolute(path, error).lexically_normal();
  if (!whole.has_filename()) whole = whole.parent_path();  // it ended with a slash
  const std::filesystem::path parent = whole.parent_path();
  std::filesystem::create_directories(parent, error);
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return SystemFailure("can't make the folder " + path.string());
  // A power failure must not take the folder from under a saved session.
  KVIST_TRY(const File opened_parent, OpenFolder(parent));
  return Sync(opened_parent);
}

File MakeSubfolder(const File& root, const char* name, bool& has_made) {
  if (mkdirat(root.descriptor(), name, 0700) == 0) has_made = true;
  return File(openat(root.descriptor(), name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
}

uint64_t ReadNumber(const File& file) {
  uint64_t number = 0;
  if (!ReadAt(file, 0, std::as_writable_bytes(std::span(&number, 1)))) return 0;
  return number <= kMaxOrder ? number : 0;
}

// False when another has it.
bool TryLock(const File& file) {
  return flock(file.descriptor(), LOCK_EX | LOCK_NB) == 0;
}

Status LockBefore(const File& file, std::chrono::steady_clock::time_point deadline) {
  auto pause = std::chrono::microseconds(100);
  while (!TryLock(file)) {
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) return SystemFailure("can't lock", file);
    if (std::chrono::steady_clock::now() > deadline) {
      return Fail(ErrorCode::kIo, "another process has the folder locked for too long");
    }
    std::this_thread::sleep_for(pause);
    pause = std::min(pause * 2, std::chrono::microseconds(4000));
  }
  return {};
}

// Takes it all at once, which makes the writes faster. False where the file system can't, or has no more.
bool TakeDiskSpace(const File& file, uint64_t bytes) {
  return bytes > 0 && fallocate(file.descriptor(), 0, 0, off_t(bytes)) == 0;
}

// Somebody may have removed the file while we waited; who locks it now has another one.
bool IsStillThere(const File& file, const File& folder, const char* name) {
  const auto there = StatOf(folder, name);
  const auto ours = StatOf(file);
  return there && ours && there->st_ino == ours->st_ino && there->st_dev == ours->st_dev;
}

}  // namespace

Result<Folder> Folder::Open(const std::string& path) {
  KVIST_TRY_VOID(MakeRoot(path));
  KVIST_TRY(File root, OpenFolder(path));
  Folder folder;
  folder.root = std::move(root);
  bool has_made = false;
  folder.segments = MakeSubfolder(folder.root, "segments", has_made);
  folder.sessions = MakeSubfolder(folder.root, "sessions", has_made);
  folder.tmp = MakeSubfolder(folder.root, "tmp", has_made);
  if (has_made) KVIST_TRY_VOID(Sync(folder.root));
  return folder;
}

FolderStamp Folder::Stamp() const {
  FolderStamp stamp;
  if (const auto lock = OpenToRead(root, kLockName)) stamp.num_changes = ReadNumber(*lock);
  if (const auto stat = StatOf(segments)) stamp.segments_modified_at = ModifiedAt(*stat);
  if (const auto stat = StatOf(sessions)) stamp.sessions_modified_at = ModifiedAt(*stat);
  return stamp;
}

Result<FolderLock> FolderLock::Take(const Folder& folder, std::chrono::milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (true) {
    const int flags = O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
    File file(openat(folder.root.descriptor(), kLockName, flags, 0600));
    if (!file.is_open()) return SystemFailure("can't make the lock in", folder.root);
    if (const auto stat = StatOf(file); !stat || !S_ISREG(stat->st_mode)) {
      return Fail(ErrorCode::kIo, "the folder's lock is not a file");
    }
    KVIST_TRY_VOID(LockBefore(file, deadline));
    if (IsStillThere(file, folder.root, kLockName)) {
      const uint64_t num_changes = ReadNumber(file);
      return FolderLock(std::move(file), num_changes);
    }
  }
}

Status FolderLock::CountChange(uint64_t at_least) {
  const uint64_t next = std::max(num_changes_, at_least) + 1;
  KVIST_TRY_VOID(WriteAt(file_, 0, std::as_bytes(std::span(&next, 1))));
  num_changes_ = next;
  return {};
}

Result<File> HoldOffChanges(const Folder& folder) {
  auto file = OpenToRead(folder.root, kLockName);
  // Where nobody ever made a lock nobody changes anything.
  if (!file && file.error().code == ErrorCode::kNotFound) return File();
  if (file && flock(file->descriptor(), LOCK_SH | LOCK_NB) != 0) return SystemFailure("can't lock", *file);
  return file;
}

FileId RandomFileId() {
  FileId id;
  // Does not fail and is not interrupted for so few bytes once the system is up.
  KVIST_CHECK(getrandom(&id, sizeof id, 0) == ssize_t(sizeof id));
  return id;
}

std::string HexOf(const FileId& id) {
  return RecordKeyName({.low = id.low, .high = id.high});
}

std::optional<FileId> ParseHex(std::string_view name) {
  if (name.size() != kHexDigits) return std::nullopt;
  FileId id;
  const char* middle = name.data() + kHexDigits / 2;
  std::from_chars(name.data(), middle, id.high, 16);
  std::from_chars(middle, name.data() + kHexDigits, id.low, 16);
  // Nothing but the digits that we write ourselves.
  if (HexOf(id) != name) return std::nullopt;
  return id;
}

Result<TempFile> TempFile::Make(const Folder& folder, uint64_t bytes, const FolderLock&) {
  const FileId id = RandomFileId();
  const int flags = O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW;
  File file(openat(folder.tmp.descriptor(), HexOf(id).c_str(), flags, 0600));
  if (!file.is_open()) return SystemFailure("can't make a temporary file in", folder.tmp);
  TempFile made(&folder.tmp, id, std::move(file));
  if (!TryLock(made.file_)) return SystemFailure("can't lock a temporary file in", folder.tmp);
  if (!TakeDiskSpace(made.file_, bytes) && ftruncate(made.file_.descriptor(), off_t(bytes)) != 0) {
    return SystemFailure("can't make a temporary file in", folder.tmp);
  }
  return made;
}

TempFile::~TempFile() {
  if (file_.is_open()) unlinkat(tmp_->descriptor(), HexOf(id_).c_str(), 0);
}

Status TempFile::MoveTo(const File& folder, const std::string& name, const FolderLock&) {
  if (renameat(tmp_->descriptor(), HexOf(id_).c_str(), folder.descriptor(), name.c_str()) != 0) {
    return SystemFailure("can't move " + name + " to", folder);
  }
  file_ = File();
  return {};
}

uint64_t TidyTempFiles(const Folder& folder, const FolderLock&) {
  uint64_t bytes = 0;
  const auto names = ListNames(folder.tmp);
  if (!names) return 0;
  for (const std::string& name : *names) {
    if (!ParseHex(name)) continue;
    const auto file = OpenToRead(folder.tmp, name);
    if (!file) continue;
    if (TryLock(*file)) {
      unlinkat(folder.tmp.descriptor(), name.c_str(), 0);
    } else if (const auto stat = StatOf(*file)) {
      bytes += DiskBytes(uint64_t(stat->st_size));
    }
  }
  return bytes;
}

}  // namespace kvist
