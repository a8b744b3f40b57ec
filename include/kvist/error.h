// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <expected>
#include <string>
#include <utility>

namespace kvist {

// What kind of failure it was, for programs; Error::message is for people.
enum class ErrorCode : uint8_t {
  kInvalidArgument,     // the caller's value is out of its allowed range; the message names the range
  kNotFound,            // a file, model, session or key does not exist
  kOutOfMemory,         // the byte budget or the machine's memory is used up; nothing changed
  kOutOfRange,          // past the end: longer than the context, the capacity or the file
  kFailedPrecondition,  // valid in itself, but not in this state
  kCorrupt,             // stored bytes contradict their own format or checksum
  kUnsupported,         // well-formed, but not something this build can do
  kIo,                  // the operating system refused; the message carries its reason
  kCancelled,           // the user or the caller asked to stop
};

// "invalid_argument", "not_found", ... as used in JSON output.
const char* ErrorCodeName(ErrorCode code);

// A failure a correct program can meet: a code and one sentence that says what, where and what to do.
struct Error {
  ErrorCode code;
  std::string message;
};

// A value or an Error. The library neither prints nor throws.
template <class T>
using Result = std::expected<T, Error>;
using Status = Result<void>;

inline std::unexpected<Error> Fail(ErrorCode code, std::string message) {
  return std::unexpected(Error{code, std::move(message)});
}

namespace internal {
[[noreturn]] inline void CheckFailed(const char* file, int line, const char* what) {
  std::fprintf(stderr, "%s:%d: internal error, please report: %s\n", file, line, what);
  std::abort();
}
[[noreturn]] inline void RequirementFailed(const std::string& what) {
  std::fprintf(stderr, "kvist: %s (a mistake of the calling program; see what the call requires)\n", what.c_str());
  std::abort();
}
}  // namespace internal

}  // namespace kvist

#define KVIST_CONCAT_INNER(a, b) a##b
#define KVIST_CONCAT(a, b) KVIST_CONCAT_INNER(a, b)

// KVIST_TRY(auto x, F()): x is F's value, or the enclosing function returns F's error.
#define KVIST_TRY(declaration, ...) KVIST_TRY_INNER(KVIST_CONCAT(kvist_result_, __LINE__), declaration, __VA_ARGS__)
#define KVIST_TRY_INNER(result, declaration, ...)                 \
  auto result = (__VA_ARGS__);                                    \
  if (!result) return std::unexpected(std::move(result).error()); \
  declaration = *std::move(result)

// The same for a Status: goes on when it is fine, returns its error when not.
#define KVIST_TRY_VOID(...)                                                                                        \
  do {                                                                                                             \
    if (auto kvist_status = (__VA_ARGS__); !kvist_status) return std::unexpected(std::move(kvist_status).error()); \
  } while (false)

// Stops the process where a call that can't fail is made as it must not be, in every build. what: made only then.
#define KVIST_REQUIRE(condition, what) ((condition) ? void(0) : ::kvist::internal::RequirementFailed(what))

// Stops the process on our own bugs, in every build: serving another sequence's keys is worse than stopping.
#define KVIST_CHECK(condition) ((condition) ? void(0) : ::kvist::internal::CheckFailed(__FILE__, __LINE__, #condition))
