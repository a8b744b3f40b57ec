// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <chrono>
#include <memory>
#include <span>
#include <vector>

#include "kvist/error.h"
#include "tier/redis_protocol.h"
#include "tier/redis_socket.h"
#include "tier/redis_tier.h"

namespace kvist {

// A connection to one server, logged in, and the commands that are under way on it: all are sent one after another
// without waiting for replies (pipelined), but no more than the server can answer out of its processor's cache.
// For one thread at a time.
class RedisConnection {
 public:
  using Clock = RedisSocket::Clock;
  // Connects, logs in and selects the database by the deadline. kIo; kCorrupt for nonsense; kFailedPrecondition when
  // the server refuses the log-in.
  static Result<std::unique_ptr<RedisConnection>> Open(const RedisAddress& address, const RedisTierOptions& options,
                                                       Clock::time_point deadline);

  // Puts the commands under way, whose replies are forgotten. REQUIRES: nothing is under way.
  void Begin(std::vector<RedisCommand*> commands);
  // Sends and receives what can be without waiting. After an error the connection is of no use any more; the commands
  // that have a reply are done, the others may have been carried out or not.
  Status Step();
  bool is_done() const { return next_to_receive_ == commands_.size(); }
  // Whether it can take other commands: all were done, and the peer did nothing unexpected since.
  bool IsUsable() const;

  int fd() const { return socket_->fd(); }
  short WantedEvents() const { return socket_->WantedEvents(MaySend()); }

 private:
  explicit RedisConnection(std::unique_ptr<RedisSocket> socket) : socket_(std::move(socket)) {}
  void PrepareToSend(size_t index);
  bool MaySend() const { return next_to_send_ < num_allowed_; }
  void AllowMore();
  Result<bool> Send();
  void Sent(size_t num_bytes);
  Result<bool> Receive();

  std::unique_ptr<RedisSocket> socket_;
  RedisReplyReader reader_;
  std::vector<RedisCommand*> commands_;
  size_t num_allowed_ = 0;      // commands that may be sent, so that not too many bytes are awaited
  size_t next_to_send_ = 0;     // command
  size_t num_prepared_ = 0;     // commands whose before_sending has been called
  size_t sent_bytes_ = 0;       // of that command
  size_t next_to_receive_ = 0;  // command
  size_t awaited_bytes_ = 0;    // that the replies to commands allowed and not answered may have
  bool is_broken_ = false;
};

// Steps the connections, all at once, until each is done or broken or the time is over, which breaks those that aren't
// done: [connection].
std::vector<Status> RunCommands(std::span<RedisConnection* const> connections,
                                RedisConnection::Clock::time_point deadline);

}  // namespace kvist
