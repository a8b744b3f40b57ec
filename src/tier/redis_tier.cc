// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "tier/redis_tier.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <numeric>
#include <utility>

#include "tier/redis_value.h"

namespace kvist {
namespace {

using Kind = RedisReply::Kind;

constexpr size_t kMinTailBytes = 4096;            // read from the end for the header; there is room for most
constexpr size_t kBytesPerMillisecond = 100'000;  // what the time-out allows for

Status CheckRange(const char* name, int64_t value, int64_t min, int64_t max) {
  if (value >= min && value <= max) return {};
  return Fail(ErrorCode::kInvalidArgument, std::string("Redis: ") + name + " is " + std::to_string(value) +
                                               " but must be " + std::to_string(min) + " to " + std::to_string(max));
}

Status CheckOptions(const RedisTierOptions& options) {
  if (options.host.empty()) return Fail(ErrorCode::kInvalidArgument, "Redis: the host is empty");
  KVIST_TRY_VOID(CheckRange("the port", options.port, 1, 65535));
  KVIST_TRY_VOID(CheckRange("the database", options.database, 0, INT32_MAX));
  KVIST_TRY_VOID(CheckRange("the time to live in seconds", options.ttl.count(), 0, INT32_MAX));
  KVIST_TRY_VOID(CheckRange("the time-out for connecting in ms", options.connect_timeout.count(), 1, 3'600'000));
  KVIST_TRY_VOID(CheckRange("the time-out in ms", options.timeout.count(), 1, 3'600'000));
  KVIST_TRY_VOID(CheckRange("the number of failures to rest", options.failures_to_rest, 1, 1'000'000));
  KVIST_TRY_VOID(CheckRange("the time of rest in ms", options.rest.count(), 0, INT32_MAX));
  if (!HasRedis()) return Fail(ErrorCode::kUnsupported, "this build can't talk to Redis: hiredis was missing");
  if (options.uses_tls && !HasRedisTls()) {
    return Fail(ErrorCode::kUnsupported, "this build can't do TLS with Redis: hiredis was built without it");
  }
  return {};
}

}  // namespace

struct RedisTier::State {
  explicit State(const RedisTierOptions& options)
      : prefix(options.prefix), ttl_s(options.ttl.count()), timeout(options.timeout), cluster(options) {}

  std::string NameOf(const RecordKey& key) const { return prefix + RecordKeyName(key); }
  void Run(std::span<RedisRequest> requests, size_t num_bytes);
  std::vector<RedisRequest> RunForEach(std::string_view word, std::span<const RecordKey> keys);
  void Finish(TierRead& read, std::span<const std::byte> header);
  void ReadLongHeaders(std::span<RedisRead* const> reads);

  const std::string prefix;
  const int64_t ttl_s;
  const std::chrono::milliseconds timeout;
  RedisCluster cluster;
  // What is read from the end of a value: room for the longest header so far.
  std::atomic<size_t> tail_bytes = kMinTailBytes;
  std::atomic<uint64_t> num_hits = 0, num_misses = 0, bytes_read = 0, bytes_written = 0;
  std::atomic<uint64_t> num_written = 0, num_declined = 0, num_failures = 0;
  std::mutex last_failure_mutex;
  std::string last_failure;
};

RedisTier::RedisTier(std::unique_ptr<State> state) : state_(std::move(state)) {}
RedisTier::~RedisTier() = default;

Result<std::unique_ptr<RedisTier>> RedisTier::Open(const RedisTierOptions& options) {
  KVIST_TRY_VOID(CheckOptions(options));
  return std::unique_ptr<RedisTier>(new RedisTier(std::make_unique<State>(options)));
}

void RedisTier::State::Run(std::span<RedisRequest> requests, size_t num_bytes) {
  const std::chrono::milliseconds for_bytes(num_bytes / kBytesPerMillisecond);
  Status outcome = cluster.Run(requests, RedisCluster::Clock::now() + timeout + for_bytes);
  if (outcome) return;
  ++num_failures;
  const std::lock_guard lock(last_failure_mutex);
  last_failure = std::move(outcome).error().message;
}

// The word as a command, for each of the keys. All these are answered with a number.
std::vector<RedisRequest> RedisTier::State::RunForEach(std::string_view word, std::span<const RecordKey> keys) {
  std::vector<RedisRequest> requests;
  for (const RecordKey& key : keys) {
    const std::string name = NameOf(key);
    requests.push_back({name, {MakeCommand({word, name}, Kind::kInteger)}});
  }
  Run(requests, 0);
  return requests;
}

std::vector<bool> RedisTier::Contains(std::span<const RecordKey> keys) {
  std::vector<bool> is_held;
  for (const RedisRequest& request : state_->RunForEach("EXISTS", keys)) {
    const RedisReply& reply = request.commands[0].reply;
    is_held.push_back(reply.kind == Kind::kInteger && reply.integer == 1);
  }
  return is_held;
}

void RedisTier::Erase(std::span<const RecordKey> keys) {
  state_->RunForEach("UNLINK", keys);
}

size_t RedisTier::Write(std::span<const TierWrite> writes) {
  std::vector<RedisRequest> requests;
  std::vector<size_t> write_bytes;  // [request]
  for (const TierWrite& write : writes) {
    if (!FitsRedis(write)) continue;
    requests.push_back(MakeWriteRequest(state_->NameOf(write.key), write, state_->ttl_s));
    write_bytes.push_back(write.payload.size() + write.header.size());
  }
  state_->Run(requests, std::reduce(write_bytes.begin(), write_bytes.end()));
  size_t num_written = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    if (requests[i].commands[0].reply.kind != Kind::kStatus) continue;
    ++num_written;
    state_->bytes_written += write_bytes[i];
  }
  state_->num_written += num_written;
  state_->num_declined += writes.size() - num_written;
  return num_written;
}

void RedisTier::Read(std::span<TierRead> reads) {
  std::vector<RedisRead> under_way;
  std::vector<RedisRequest> requests;  // [read under way]
  size_t num_bytes = 0;
  for (TierRead& read : reads) {
    read.is_hit = false;
    read.header.clear();
    if (!MayBeInRedis(read)) continue;
    num_bytes += read.payload.size();
    under_way.push_back({&read, {}});
    requests.push_back(MakeReadRequest(state_->NameOf(read.key), under_way.back(), state_->tail_bytes, state_->ttl_s));
  }
  state_->Run(requests, num_bytes);
  std::vector<RedisRead*> lacking_header;
  for (size_t i = 0; i < requests.size(); ++i) {
    const auto found = FindRecord(under_way[i], requests[i]);
    if (!found) continue;
    TierRead& read = *under_way[i].read;
    if (!read.wants_header || found->header) {
      state_->Finish(read, read.wants_header ? *found->header : std::span<const std::byte>());
    } else {
      under_way[i].tail.resize(found->header_bytes);
      lacking_header.push_back(&under_way[i]);
    }
  }
  if (!lacking_header.empty()) state_->ReadLongHeaders(lacking_header);
  state_->num_misses += size_t(std::ranges::count(reads, false, &TierRead::is_hit));
}

void RedisTier::State::Finish(TierRead& read, std::span<const std::byte> header) {
  read.is_hit = true;
  read.header.assign(header.begin(), header.end());
  ++num_hits;
  bytes_read += read.payload.size() + header.size();
}

// Headers that were longer than what was read for them take another round trip, this time; the next ones don't.
void RedisTier::State::ReadLongHeaders(std::span<RedisRead* const> reads) {
  std::vector<RedisRequest> requests;
  for (RedisRead* const read : reads) {
    requests.push_back(MakeHeaderRequest(NameOf(read->read->key), read->tail));
    tail_bytes = std::max(tail_bytes.load(), read->tail.size() + kRedisTrailerBytes);
  }
  Run(requests, 0);
  for (size_t i = 0; i < reads.size(); ++i) {
    if (HasHeader(requests[i])) Finish(*reads[i]->read, reads[i]->tail);
  }
}

TierStats RedisTier::stats() const {
  TierStats stats;
  stats.num_hits = state_->num_hits;
  stats.num_misses = state_->num_misses;
  stats.bytes_read = state_->bytes_read;
  stats.bytes_written = state_->bytes_written;
  stats.num_written = state_->num_written;
  stats.num_declined = state_->num_declined;
  stats.num_failures = state_->num_failures;
  const std::lock_guard lock(state_->last_failure_mutex);
  stats.last_failure = state_->last_failure;
  return stats;
}

}  // namespace kvist
