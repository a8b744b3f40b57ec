// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "tier/redis_node.h"

#include <algorithm>

namespace kvist {

void RedisNode::Tell(const Status& outcome) {
  if (outcome) return breaker_.Succeeded();
  if (IsBusy(outcome.error())) return breaker_.Withdrawn();
  breaker_.Failed(Clock::now());
  // What one connection met, the idle ones would meet, too.
  std::vector<std::unique_ptr<RedisConnection>> dropped;
  const Lock lock(mutex_);
  dropped.swap(idle_);
}

Result<RedisNode::Lent> RedisNode::Lend(Clock::time_point deadline) {
  Lock lock(mutex_);
  if (!returned_.wait_until(lock, deadline, [this] { return num_lent_ < kMaxConnections; })) {
    return Fail(ErrorCode::kFailedPrecondition, "all connections to Redis are in use");
  }
  ++num_lent_;
  while (!idle_.empty()) {
    std::unique_ptr<RedisConnection> idle = std::move(idle_.back());
    idle_.pop_back();
    if (idle->IsUsable()) return Lent(idle.release(), GiveBack{this});
  }
  lock.unlock();
  auto opened = RedisConnection::Open(address_, options_, std::min(deadline, Clock::now() + options_.connect_timeout));
  if (opened) return Lent(opened->release(), GiveBack{this});
  TakeBack(nullptr);
  return std::unexpected(opened.error());
}

void RedisNode::TakeBack(RedisConnection* connection) {
  std::unique_ptr<RedisConnection> owned(connection);
  const bool is_usable = owned && owned->IsUsable();
  const Lock lock(mutex_);
  if (is_usable) idle_.push_back(std::move(owned));
  --num_lent_;
  returned_.notify_one();
}

}  // namespace kvist
