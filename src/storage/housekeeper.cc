// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "storage/housekeeper.h"

#include <algorithm>
#include <utility>

namespace kvist {

Housekeeper::Housekeeper(std::vector<BlockPool*> pools) : pools_(std::move(pools)), thread_([this] { Run(); }) {}

Housekeeper::~Housekeeper() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void Housekeeper::Wake() {
  {
    const std::lock_guard lock(mutex_);
    has_work_ = true;
  }
  wake_.notify_one();
}

void Housekeeper::Run() {
  constexpr auto kNever = BlockPool::Clock::time_point::max();
  auto next = kNever;
  std::unique_lock lock(mutex_);
  while (!stop_) {
    const auto has_news = [this] { return has_work_ || stop_; };
    if (next == kNever) {
      wake_.wait(lock, has_news);
    } else {
      wake_.wait_until(lock, next, has_news);
    }
    has_work_ = false;
    lock.unlock();
    next = kNever;
    for (BlockPool* pool : pools_) {
      next = std::min(next, pool->Tidy(BlockPool::Clock::now()).value_or(kNever));
    }
    lock.lock();
  }
}

}  // namespace kvist
