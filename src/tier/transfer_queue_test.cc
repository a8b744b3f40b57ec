// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "tier/transfer_queue.h"

#include <doctest/doctest.h>

#include <chrono>
#include <latch>
#include <random>
#include <string>

namespace kvist::transfer_queue_test {
namespace {

using enum TransferPriority;

// Occupies one thread of a queue from when it is made until it is opened.
class Gate {
 public:
  Gate(TransferQueue& queue, TransferPriority priority) {
    transfer_ = queue.Submit(priority, 0, [this] {
      entered_.count_down();
      open_.wait();
    });
    entered_.wait();
  }
  void Open() {
    open_.count_down();
    transfer_->Wait();
  }

 private:
  std::latch entered_{1}, open_{1};
  std::shared_ptr<Transfer> transfer_;
};

TEST_CASE("transfer queue: what was submitted runs once, and Wait returns after it") {
  TransferQueue queue(2, 1000);
  int num_runs = 0;
  const auto transfer = queue.Submit(kFetch, 10, [&] { ++num_runs; });
  transfer->Wait();
  CHECK(num_runs == 1);
  CHECK(transfer->is_done());
  CHECK_FALSE(transfer->was_cancelled());
  CHECK_FALSE(transfer->Cancel());
  CHECK(queue.bytes_in_flight() == 0);
}

TEST_CASE("transfer queue: fetches go before prefetches before write-behind, each in the order they came") {
  TransferQueue queue(2, 1000);
  Gate first(queue, kFetch), second(queue, kFetch);
  std::string order;  // only the thread of the first gate writes
  for (const char c : {'a', 'b'}) {
    queue.Submit(kPrefetch, 1, [&order, c] { order += c; });
    queue.Submit(kFetch, 1, [&order, c] { order += char(c - 'a' + 'A'); });
  }
  first.Open();
  queue.Submit(kFetch, 0, [] {})->Wait();
  std::latch last(1);
  queue.Submit(kPrefetch, 0, [&] { last.count_down(); });
  last.wait();
  CHECK(order == "ABab");
  second.Open();
}

TEST_CASE("transfer queue: write-behind waits for prefetches, and a thread stays free of it") {
  TransferQueue queue(2, 1000);
  Gate writes(queue, kWriteBehind);
  std::string order;
  const auto write = queue.Submit(kWriteBehind, 1, [&] { order += 'w'; });
  const auto prefetch = queue.Submit(kPrefetch, 1, [&] { order += 'p'; });
  prefetch->Wait();  // would hang if the second write had taken the other thread
  queue.Submit(kFetch, 1, [&] { order += 'f'; })->Wait();
  CHECK_FALSE(write->is_done());
  writes.Open();
  write->Wait();
  CHECK(order == "pfw");
}

TEST_CASE("transfer queue: a full queue takes only fetches, and has room again when transfers end") {
  TransferQueue queue(2, 100);
  Gate first(queue, kFetch), second(queue, kFetch);
  const auto write = queue.Submit(kWriteBehind, 60, [] {});
  REQUIRE(write);
  CHECK(queue.Submit(kWriteBehind, 41, [] {}) == nullptr);
  CHECK(queue.Submit(kPrefetch, 41, [] {}) == nullptr);
  CHECK(queue.Submit(kPrefetch, SIZE_MAX, [] {}) == nullptr);
  CHECK(queue.bytes_in_flight() == 60);
  CHECK(queue.Submit(kFetch, 80, [] {}) != nullptr);
  CHECK(queue.bytes_in_flight() == 140);
  CHECK(queue.Submit(kWriteBehind, 0, [] {}) == nullptr);
  CHECK(write->Cancel());
  CHECK(queue.bytes_in_flight() == 80);
  CHECK(queue.Submit(kPrefetch, 20, [] {}) != nullptr);
  first.Open();
  second.Open();
  queue.WaitUntilIdle();
  CHECK(queue.bytes_in_flight() == 0);
}

TEST_CASE("transfer queue: a cancelled transfer never runs and is done; one that runs can't be cancelled") {
  TransferQueue queue(2, 1000);
  std::latch open(1), entered(1);
  const auto running = queue.Submit(kFetch, 1, [&] {
    entered.count_down();
    open.wait();
  });
  entered.wait();
  Gate other(queue, kFetch);
  bool has_run = false;
  const auto transfer = queue.Submit(kFetch, 7, [&] { has_run = true; });
  CHECK(transfer->Cancel());
  CHECK(transfer->Cancel());  // and it still was cancelled
  transfer->Wait();
  CHECK(transfer->is_done());
  CHECK(transfer->was_cancelled());
  CHECK_FALSE(running->Cancel());
  CHECK_FALSE(running->was_cancelled());
  open.count_down();
  other.Open();
  queue.WaitUntilIdle();
  CHECK_FALSE(has_run);
}

TEST_CASE("transfer queue: what a transfer holds is gone when Wait returns") {
  TransferQueue queue(2, 1000);
  for (int i = 0; i < 200; ++i) {
    auto held = std::make_shared<int>(i);
    const std::weak_ptr<int> watch = held;
    const auto transfer = queue.Submit(kFetch, 1, [held = std::move(held)] {});
    if (i % 2 == 0) transfer->Cancel();
    transfer->Wait();
    CHECK(watch.expired());
  }
}

TEST_CASE("transfer queue: at its end prefetches are cancelled and all else runs") {
  std::atomic<int> num_fetches = 0, num_writes = 0, num_prefetches = 0;
  auto queue = std::make_unique<TransferQueue>(2, 1000);
  Gate first(*queue, kFetch), second(*queue, kFetch);
  for (int i = 0; i < 10; ++i) queue->Submit(kWriteBehind, 1, [&] { ++num_writes; });
  const auto prefetch = queue->Submit(kPrefetch, 1, [&] { ++num_prefetches; });
  // One that submits more while the queue ends.
  queue->Submit(kFetch, 1, [&, ending = queue.get()] {
    ++num_fetches;
    CHECK(ending->Submit(kPrefetch, 1, [&] { ++num_prefetches; }) == nullptr);
    ending->Submit(kWriteBehind, 1, [&] { ++num_writes; });
  });
  std::thread end([&] { queue.reset(); });
  prefetch->Wait();  // it ends
  first.Open();
  second.Open();
  end.join();
  CHECK(prefetch->was_cancelled());
  CHECK(num_prefetches == 0);
  CHECK(num_fetches == 1);
  CHECK(num_writes == 11);
}

TEST_CASE("transfer queue: the thread that is kept free of write-behind runs it when it is the last one left") {
  auto queue = std::make_unique<TransferQueue>(2, 1000);
  Gate write(*queue, kWriteBehind);
  std::latch entered(1), others_ended(1);
  bool has_run = false;
  queue->Submit(kFetch, 1, [&, ending = queue.get()] {
    entered.count_down();
    others_ended.wait();
    ending->Submit(kWriteBehind, 1, [&] { has_run = true; });
  });
  entered.wait();
  std::thread end([&] { queue.reset(); });
  write.Open();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // the other thread finds nothing and ends
  others_ended.count_down();
  end.join();
  CHECK(has_run);
}

TEST_CASE("transfer queue: it is idle only when nothing runs any more") {
  TransferQueue queue(2, 1000);
  std::latch entered(1);
  bool has_run = false;
  queue.Submit(kWriteBehind, 1, [&] {
    entered.count_down();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    has_run = true;
  });
  entered.wait();
  queue.WaitUntilIdle();
  CHECK(has_run);
}

TEST_CASE("transfer queue: many threads submit, cancel and wait; each transfer runs or was cancelled, none both") {
  TransferQueue queue(3, 200);
  std::atomic<int> num_runs = 0, num_cancelled = 0, num_taken = 0;
  auto submit = [&](unsigned seed) {
    std::mt19937 random(seed);
    for (int i = 0; i < 1000; ++i) {
      const auto transfer = queue.Submit(TransferPriority(random() % 3), random() % 50, [&] { ++num_runs; });
      if (!transfer) continue;
      ++num_taken;
      if (random() % 3 == 0 && transfer->Cancel()) ++num_cancelled;
      if (random() % 3 == 0) transfer->Wait();
    }
  };
  std::vector<std::thread> threads;
  for (unsigned seed = 0; seed < 4; ++seed) threads.emplace_back(submit, seed);
  for (std::thread& thread : threads) thread.join();
  queue.WaitUntilIdle();
  CHECK(queue.bytes_in_flight() == 0);
  CHECK(num_runs + num_cancelled == num_taken);
  CHECK(num_runs > 0);
}

}  // namespace
}  // namespace kvist::transfer_queue_test
