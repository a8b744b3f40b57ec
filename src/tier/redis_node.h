// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

#include "tier/circuit_breaker.h"
#include "tier/redis_connection.h"

namespace kvist {

// One server and the connections to it, each used by one call at a time.
// Thread-safe; must outlive the connections it lends.
class RedisNode {
 public:
  using Clock = RedisConnection::Clock;
  static constexpr int kMaxConnections = 4;
  struct GiveBack {
    RedisNode* node = nullptr;
    void operator()(RedisConnection* connection) const { node->TakeBack(connection); }
  };
  using Lent = std::unique_ptr<RedisConnection, GiveBack>;

  // The options must outlive the node.
  RedisNode(RedisAddress address, const RedisTierOptions& options)
      : address_(std::move(address)), options_(options), breaker_(options.failures_to_rest, options.rest) {}

  const RedisAddress& address() const { return address_; }
  // Whether to call the server now (CircuitBreaker): then tell the outcome.
  bool Allows() { return breaker_.Allows(Clock::now()); }
  bool is_resting() const { return breaker_.is_resting(); }
  void Tell(const Status& outcome);

  // An idle connection or a new one; waits for one when all are in use. Fails as RedisConnection::Open, and with an
  // error that IsBusy when the time is over: nothing that the server has to do with.
  static bool IsBusy(const Error& error) { return error.code == ErrorCode::kFailedPrecondition; }
  Result<Lent> Lend(Clock::time_point deadline);

 private:
  using Lock = std::unique_lock<std::mutex>;
  void TakeBack(RedisConnection* connection);

  const RedisAddress address_;
  const RedisTierOptions& options_;
  CircuitBreaker breaker_;
  std::mutex mutex_;
  std::condition_variable returned_;
  std::vector<std::unique_ptr<RedisConnection>> idle_;
  int num_lent_ = 0;  // and being made
};

}  // namespace kvist
