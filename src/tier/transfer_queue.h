// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace kvist {

// What somebody waits for goes before what somebody may want soon, and that before what only has to be kept.
enum class TransferPriority : uint8_t { kFetch, kPrefetch, kWriteBehind };

// One transfer that was put into a queue; shared by the queue and whoever waits. It may outlive the queue.
// Thread-safe.
class Transfer {
 public:
  void Wait();           // until it has run, or was cancelled
  bool is_done() const;  // has run, or was cancelled
  bool was_cancelled() const;
  // Keeps it from running if it has not begun. True when it was cancelled, by this call or an earlier one.
  bool Cancel();

 private:
  friend class TransferQueue;
  using Lock = std::unique_lock<std::mutex>;
  using ByteCount = std::shared_ptr<std::atomic<size_t>>;
  enum class State : uint8_t { kWaiting, kTaken, kDone };
  Transfer(size_t bytes, ByteCount bytes_in_flight, std::function<void()> run);
  void RunUnlessCancelled();
  void Finish(std::function<void()> run);

  const size_t bytes_;
  const ByteCount bytes_in_flight_;  // the queue's; from it the bytes are taken when the transfer is done
  mutable std::mutex mutex_;
  std::condition_variable done_;
  State state_ = State::kWaiting;
  bool was_cancelled_ = false;
  std::function<void()> run_;
};

// Reads and writes of tiers, run by a few threads so that nobody else waits for them. Within a priority: first come,
// first served; a thread is kept free of write-behind, so that a fetch never waits for one.
// Thread-safe.
class TransferQueue {
 public:
  // max_bytes: of transfers that wait or run; a fetch is always taken. num_threads: 2 or more.
  TransferQueue(int num_threads, size_t max_bytes);
  ~TransferQueue() { Stop(); }
  // Cancels prefetches, runs all other transfers, ends the threads.
  void Stop();

  // Queues it; null when the queue is full (back-pressure: the caller drops the transfer or does without).
  // `run` must not throw; it is destroyed after it ran or was cancelled, and before Wait returns. It may submit
  // transfers, but not wait for them: its thread might be the one that would run them.
  std::shared_ptr<Transfer> Submit(TransferPriority priority, size_t bytes, std::function<void()> run);
  void WaitUntilIdle();                                      // until nothing waits or runs
  bool WaitUntilIdleFor(std::chrono::milliseconds longest);  // the same; whether it came to that in time
  void CancelWriteBehind();                                  // what has not begun
  size_t bytes_in_flight() const { return *bytes_in_flight_; }

 private:
  using Lock = std::unique_lock<std::mutex>;
  using Line = std::deque<std::shared_ptr<Transfer>>;
  void RunTransfers(bool takes_write_behind);
  Line* NextLine(bool takes_write_behind, const Lock&);
  Line& line(TransferPriority priority) { return waiting_[size_t(priority)]; }

  const size_t max_bytes_;
  // Added to with the lock held, so that max_bytes_ holds; taken from without.
  const Transfer::ByteCount bytes_in_flight_ = std::make_shared<std::atomic<size_t>>(0);
  std::mutex mutex_;
  std::condition_variable wake_, idle_;
  Line waiting_[3];  // [priority]; cancelled ones, too, until their turn comes
  int num_running_ = 0;
  bool stops_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace kvist
