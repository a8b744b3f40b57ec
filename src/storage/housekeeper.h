// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "storage/block_pool.h"

namespace kvist {

// A thread that keeps pools tidy: takes memory ahead for blocks that are expected, so that no append waits for it, and
// gives memory back a little after it was freed. Sleeps when there is nothing to do. The pools must outlive it.
class Housekeeper {
 public:
  explicit Housekeeper(std::vector<BlockPool*> pools);
  ~Housekeeper();  // waits for the thread
  Housekeeper(const Housekeeper&) = delete;
  Housekeeper& operator=(const Housekeeper&) = delete;

  void Wake();  // after blocks were released or expected. Thread-safe, does not wait

 private:
  void Run();

  const std::vector<BlockPool*> pools_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool has_work_ = false;
  bool stop_ = false;
  std::thread thread_;  // last: it uses all the others
};

}  // namespace kvist
