// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "tier/transfer_queue.h"

#include <utility>

#include "kvist/error.h"

namespace kvist {

Transfer::Transfer(size_t bytes, ByteCount bytes_in_flight, std::function<void()> run)
    : bytes_(bytes), bytes_in_flight_(std::move(bytes_in_flight)), run_(std::move(run)) {}

void Transfer::Wait() {
  Lock lock(mutex_);
  done_.wait(lock, [this] { return state_ == State::kDone; });
}

bool Transfer::is_done() const {
  const Lock lock(mutex_);
  return state_ == State::kDone;
}

bool Transfer::was_cancelled() const {
  const Lock lock(mutex_);
  return was_cancelled_;
}

bool Transfer::Cancel() {
  Lock lock(mutex_);
  if (state_ != State::kWaiting) return was_cancelled_;
  state_ = State::kTaken;
  was_cancelled_ = true;
  std::function<void()> run = std::move(run_);
  lock.unlock();
  Finish(std::move(run));
  return true;
}

void Transfer::RunUnlessCancelled() {
  Lock lock(mutex_);
  if (state_ != State::kWaiting) return;
  state_ = State::kTaken;
  std::function<void()> run = std::move(run_);
  lock.unlock();
  run();
  Finish(std::move(run));
}

// What `run` holds goes without the lock: its destructors are the caller's code.
void Transfer::Finish(std::function<void()> run) {
  run = nullptr;
  *bytes_in_flight_ -= bytes_;
  const Lock lock(mutex_);
  state_ = State::kDone;
  done_.notify_all();
}

TransferQueue::TransferQueue(int num_threads, size_t max_bytes) : max_bytes_(max_bytes) {
  KVIST_CHECK(num_threads >= 2);
  for (int i = 0; i < num_threads; ++i) threads_.emplace_back([this, i] { RunTransfers(i > 0); });
}

void TransferQueue::Stop() {
  Line prefetches;
  {
    const Lock lock(mutex_);
    stops_ = true;
    prefetches.swap(line(TransferPriority::kPrefetch));
  }
  wake_.notify_all();
  for (const auto& prefetch : prefetches) prefetch->Cancel();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

std::shared_ptr<Transfer> TransferQueue::Submit(TransferPriority priority, size_t bytes, std::function<void()> run) {
  const Lock lock(mutex_);
  const size_t in_flight = *bytes_in_flight_;
  const bool is_full = in_flight > max_bytes_ || bytes > max_bytes_ - in_flight;
  if (is_full && priority != TransferPriority::kFetch) return nullptr;
  if (stops_ && priority == TransferPriority::kPrefetch) return nullptr;
  *bytes_in_flight_ += bytes;
  std::shared_ptr<Transfer> transfer(new Transfer(bytes, bytes_in_flight_, std::move(run)));
  line(priority).push_back(transfer);
  // All: the thread that doesn't take write-behind might be the only one to wake.
  wake_.notify_all();
  return transfer;
}

TransferQueue::Line* TransferQueue::NextLine(bool takes_write_behind, const Lock&) {
  for (const auto priority : {TransferPriority::kFetch, TransferPriority::kPrefetch}) {
    if (!line(priority).empty()) return &line(priority);
  }
  Line& write_behind = line(TransferPriority::kWriteBehind);
  return takes_write_behind && !write_behind.empty() ? &write_behind : nullptr;
}

void TransferQueue::RunTransfers(bool takes_write_behind) {
  Lock lock(mutex_);
  while (true) {
    // At the end every thread takes everything: a transfer that runs may submit another when all other threads ended.
    Line* next = NextLine(takes_write_behind || stops_, lock);
    if (next == nullptr) {
      if (stops_) return;
      wake_.wait(lock);
      continue;
    }
    std::shared_ptr<Transfer> transfer = std::move(next->front());
    next->pop_front();
    ++num_running_;
    lock.unlock();
    transfer->RunUnlessCancelled();
    transfer.reset();
    lock.lock();
    if (--num_running_ == 0) idle_.notify_all();
  }
}

bool TransferQueue::WaitUntilIdleFor(std::chrono::milliseconds longest) {
  Lock lock(mutex_);
  return idle_.wait_for(lock, longest, [this, &lock] { return num_running_ == 0 && NextLine(true, lock) == nullptr; });
}

void TransferQueue::CancelWriteBehind() {
  Line cancelled;
  {
    Lock lock(mutex_);
    cancelled.swap(line(TransferPriority::kWriteBehind));
    if (num_running_ == 0 && NextLine(true, lock) == nullptr) idle_.notify_all();
  }
  for (const auto& transfer : cancelled) transfer->Cancel();
}

void TransferQueue::WaitUntilIdle() {
  Lock lock(mutex_);
  idle_.wait(lock, [this, &lock] { return num_running_ == 0 && NextLine(true, lock) == nullptr; });
}

}  // namespace kvist
