// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "read_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace kvist {
namespace {

Error ReadError(const std::string& path) {
  if (errno == EINTR) return {ErrorCode::kCancelled, "interrupted"};
  const ErrorCode code = errno == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo;
  return {code, "the file '" + path + "' can't be read: " + std::strerror(errno)};
}

}  // namespace

Result<std::string> ReadFile(const std::string& path) {
  const bool is_stdin = path == "-";
  const int file = is_stdin ? STDIN_FILENO : open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return std::unexpected(ReadError(path));
  std::string text;
  char buffer[1 << 16];
  ssize_t num_read;
  while ((num_read = read(file, buffer, sizeof(buffer))) > 0) text.append(buffer, static_cast<size_t>(num_read));
  Result<std::string> result = std::move(text);
  if (num_read < 0) result = std::unexpected(ReadError(path));
  if (!is_stdin) close(file);
  return result;
}

}  // namespace kvist
