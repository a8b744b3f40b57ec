// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "terminal.h"

#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "report.h"

namespace kvist {
namespace {

std::atomic<bool> g_interrupted = false;  // a signal handler can reach nothing else
static_assert(std::atomic<bool>::is_always_lock_free);

void OnInterrupt(int) {
  g_interrupted = true;
}

}  // namespace

void Output::Write(std::string_view text) {
  if (failed() || text.empty()) return;
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    errno_ = errno != 0 ? errno : EIO;
  }
}

int Output::ExitCode(int code) const {
  if (!failed()) return code;
  if (errno_ == EPIPE) return kExitFailure;
  return Report({ErrorCode::kIo, std::string("the output can't be written: ") + std::strerror(errno_)});
}

void CatchInterrupts(bool only_once) {
  struct sigaction action = {};
  action.sa_handler = OnInterrupt;
  action.sa_flags = only_once ? static_cast<int>(SA_RESETHAND) : 0;  // no SA_RESTART: it interrupts a read
  sigaction(SIGINT, &action, nullptr);
}

std::atomic<bool>& interrupted() {
  return g_interrupted;
}

Progress::Progress(std::string what, std::string unit, bool always)
    : what_(std::move(what)),
      unit_(std::move(unit)),
      on_terminal_(isatty(STDERR_FILENO) != 0),
      is_wanted_(on_terminal_ || always),
      next_time_(std::chrono::steady_clock::now() + std::chrono::seconds(1)) {}

void Progress::Show(int64_t done, int64_t all) {
  const auto now = std::chrono::steady_clock::now();
  if (!is_wanted_ || now < next_time_) return;
  std::fprintf(stderr, "%s%s: %lld of %lld %s (%d %%)%s", on_terminal_ ? "\r\033[K" : "", what_.c_str(),
               static_cast<long long>(done), static_cast<long long>(all), unit_.c_str(),
               static_cast<int>(all > 0 ? 100 * done / all : 100), on_terminal_ ? "" : "\n");
  is_shown_ = true;
  next_time_ = now + (on_terminal_ ? std::chrono::milliseconds(100) : std::chrono::milliseconds(2000));
}

void Progress::Clear() {
  if (std::exchange(is_shown_, false) && on_terminal_) std::fputs("\r\033[K", stderr);
}

std::string BytesText(double bytes) {
  const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  size_t unit = 0;
  while (bytes >= 1024 && unit + 1 < std::size(units)) {
    bytes /= 1024;
    ++unit;
  }
  char text[32];
  std::snprintf(text, sizeof(text), unit == 0 ? "%.0f %s" : "%.4g %s", bytes, units[unit]);
  return text;
}

}  // namespace kvist
