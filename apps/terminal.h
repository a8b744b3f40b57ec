// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace kvist {

// Standard output, flushed after every write. Remembers a failure, after which it writes nothing more.
class Output {
 public:
  void Write(std::string_view text);
  bool failed() const { return errno_ != 0; }
  // `code`, or that of a failure, which is told: but for a reader that went away, as `head` does.
  int ExitCode(int code) const;

 private:
  int errno_ = 0;
};

// From here on Ctrl-C sets interrupted() instead of ending the program, and interrupts a blocking read. With
// `only_once` a second Ctrl-C ends the program.
void CatchInterrupts(bool only_once);
std::atomic<bool>& interrupted();

// How far something is, on one line of stderr that is written over. Shown once it has run for a second, if stderr is a
// terminal; `always` shows it elsewhere, too, as a line now and then.
class Progress {
 public:
  Progress(std::string what, std::string unit, bool always);
  ~Progress() { Clear(); }
  void Show(int64_t done, int64_t all);
  void Clear();  // takes the line away

 private:
  std::string what_;
  std::string unit_;
  bool on_terminal_;
  bool is_wanted_;
  bool is_shown_ = false;
  std::chrono::steady_clock::time_point next_time_;
};

std::string BytesText(double bytes);  // "22.5 KiB"

}  // namespace kvist
