// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tier/redis_node.h"

namespace kvist {

constexpr size_t kNumRedisSlots = 16384;
// Of a cluster's key: CRC16 of it, or of what is in its first braces if that is not empty.
uint16_t RedisSlot(std::string_view key);

// "MOVED 3999 127.0.0.1:6381": the slot is there now. "ASK ...": this time only, and after ASKING.
struct RedisRedirect {
  bool is_ask = false;
  uint16_t slot = 0;
  RedisAddress address;
};
// Nothing for any other error. Without a host in it, the host is the one that answered.
std::optional<RedisRedirect> ParseRedirect(std::string_view error, const RedisAddress& from);

// Which slots a server has, of the answer to CLUSTER NODES. Lines that make no sense are left out.
struct RedisSlotRange {
  uint16_t first = 0, last = 0;
  RedisAddress address;
};
std::vector<RedisSlotRange> ParseClusterNodes(std::string_view text, const RedisAddress& from);

// Commands about one key, which go to one server, one after another.
struct RedisRequest {
  std::string key;
  std::vector<RedisCommand> commands;
};

// Sends requests to the servers that have their keys: to the one it was given, and where redirects lead from there. A
// server that is no cluster never redirects.
// Thread-safe.
class RedisCluster {
 public:
  using Clock = RedisNode::Clock;
  explicit RedisCluster(RedisTierOptions options);

  // Fills the replies; RedisReply::kNone where none came. The first thing that failed: a connection, the time, or an
  // answer that was an error. A server that rests, because it failed before, is not asked; that is no failure.
  Status Run(std::span<RedisRequest> requests, Clock::time_point deadline);

 private:
  struct Errand {  // a request on its way to a server
    RedisRequest* request;
    RedisNode* node;
    bool is_after_ask = false;
  };
  using Errands = std::vector<Errand>;
  Status RunOnce(const Errands& errands, Clock::time_point deadline);
  std::optional<Errand> Redirected(const Errand& errand);
  void LearnSlots(RedisNode* from, Clock::time_point deadline);
  void ForgetSlots(const RedisNode* node);
  RedisNode* NodeOf(std::string_view key);
  RedisNode* NodeAt(const RedisAddress& address);

  const RedisTierOptions options_;
  std::mutex mutex_;                                          // of all that follows
  std::map<RedisAddress, std::unique_ptr<RedisNode>> nodes_;  // none is ever removed
  RedisNode* first_ = nullptr;                                // the one that the options name
  std::vector<RedisNode*> slot_to_node_;                      // null: unknown; empty while nothing was redirected
};

}  // namespace kvist
