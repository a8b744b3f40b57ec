// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tier/redis_cluster.h"
#include "tier/tier.h"

namespace kvist {

// How a record lies in a value of Redis: payload, header, and a trailer of two little-endian 64-bit numbers, the bytes
// of the payload and of the header. The payload comes first so that any part of it is at a place that is known without
// asking, and the trailer last so that one command finds it, and with it the header, whatever the payload's size: a
// read takes one round trip. What is read by several commands may be of two records when somebody replaces it
// meanwhile; the checksums tell.
constexpr size_t kRedisTrailerBytes = 16;
constexpr size_t kMaxRedisHeaderBytes = size_t{64} << 10;
constexpr size_t kMaxRedisPayloadBytes = size_t{511} << 20;  // the value then is below Redis' limit of 512 MiB

bool FitsRedis(const TierWrite& write);
// ttl_s: how long it is kept; 0 for ever.
RedisRequest MakeWriteRequest(std::string key, const TierWrite& write, int64_t ttl_s);

// A read that is under way.
struct RedisRead {
  TierRead* read = nullptr;
  std::vector<std::byte> tail;  // room for the end of the value
  size_t num_pieces = 0;        // that the payload is read in
};

bool MayBeInRedis(const TierRead& read);
// Asks for the pieces of the payload and for the end of the value, tail_bytes if the header is wanted, and renews the
// time that the record is kept.
RedisRequest MakeReadRequest(std::string key, RedisRead& read, size_t tail_bytes, int64_t ttl_s);

// What has come, if it is all that was asked for and in keeping with the value's lengths.
struct RedisFound {
  size_t header_bytes = 0;
  std::optional<std::span<const std::byte>> header;  // nothing when the tail was too short for it
};
std::optional<RedisFound> FindRecord(const RedisRead& read, const RedisRequest& request);

// For a header that didn't fit: `room` is as large as it.
RedisRequest MakeHeaderRequest(std::string key, std::span<std::byte> room);
bool HasHeader(const RedisRequest& request);

}  // namespace kvist
