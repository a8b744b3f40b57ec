// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tier/tier.h"

namespace kvist {

struct RedisTierOptions {
  std::string host = "127.0.0.1";
  int port = 6379;
  std::string user;  // AUTH, with the password; empty: the default user
  std::string password;
  int database = 0;  // SELECT
  bool uses_tls = false;
  std::string prefix = "kvist:";            // of every key
  std::chrono::seconds ttl{7 * 24 * 3600};  // of a record since it was written or read; 0: none
  std::chrono::milliseconds connect_timeout{200};
  std::chrono::milliseconds timeout{1000};  // of a call that reads or writes, plus 1 ms for every 100 KB
  // After so many failures in a row the peer is left alone for `rest`, then tried with one call.
  int failures_to_rest = 3;
  std::chrono::milliseconds rest{1000};
};

// Records in Redis or Valkey, one string a record. Several engines may share one: records are found by what they are,
// not by who wrote them. Follows MOVED and ASK, so any node of a cluster will do as the address.
// Calls pipeline their requests over a pool of connections. A peer that is dead, slow, full or that answers nonsense
// is a miss or a declined write, and counted.
class RedisTier : public Tier {
 public:
  // Does not connect: a peer that is down now may be up later.
  // kInvalidArgument for an option out of range; kUnsupported for TLS where hiredis was built without it.
  static Result<std::unique_ptr<RedisTier>> Open(const RedisTierOptions& options);
  ~RedisTier() override;

  std::string name() const override { return "redis"; }
  std::vector<bool> Contains(std::span<const RecordKey> keys) override;
  void Read(std::span<TierRead> reads) override;
  size_t Write(std::span<const TierWrite> writes) override;
  void Erase(std::span<const RecordKey> keys) override;
  TierStats stats() const override;

 private:
  struct State;
  explicit RedisTier(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Whether this build can talk to Redis at all, and with TLS.
bool HasRedis();
bool HasRedisTls();

}  // namespace kvist
