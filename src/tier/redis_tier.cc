// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "tier/redis_tier.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "tier/bytes.h"
#include "tier/redis_cluster.h"

// A record is the value: payload, header, and a trailer of two little-endian 64-bit numbers: the bytes of the payload
// and of the header. The payload comes first so that any part of it is at a place that is known without asking, and the
// trailer last so that one command finds it, and with it the header, whatever the payload's size: a read takes one
// round trip. What is read by several commands may be of two records when somebody replaces it meanwhile; the checksums
// tell.
namespace kvist {
namespace {

using namespace std::chrono_literals;
using Bytes = std::span<const std::byte>;
using Kind = RedisReply::Kind;

constexpr size_t kTrailerBytes = 16;
constexpr size_t kMaxHeaderBytes = size_t{64} << 10;
constexpr size_t kMaxValueBytes = size_t{512} << 20;  // what Redis takes unless told otherwise
constexpr size_t kMinTailBytes = 4096;                // read from the end for the header; there is room for most
// The server copies what a command asks for before it sends it: so much stays in its cache.
constexpr size_t kPieceBytes = size_t{512} << 10;
constexpr size_t kBytesPerMillisecond = 100'000;  // what the time-out allows for

std::string EncodeTrailer(uint64_t payload_bytes, uint64_t header_bytes) {
  ByteWriter trailer;
  trailer.Number(payload_bytes);
  trailer.Number(header_bytes);
  return {reinterpret_cast<const char*>(trailer.bytes().data()), trailer.bytes().size()};
}

RedisCommand GetRange(const std::string& key, int64_t first, int64_t last, std::span<std::byte> room) {
  return MakeCommand({"GETRANGE", key, std::to_string(first), std::to_string(last)}, Kind::kString, room);
}

bool HasFilled(const RedisCommand& command, size_t num_bytes) {
  return command.reply.kind == Kind::kString && command.reply.num_bytes == num_bytes;
}

// A read while it is under way: commands for the pieces of the payload, one for the value's end, one for the time it
// is kept.
struct PendingRead {
  TierRead* read;
  std::vector<std::byte> tail;  // room for the end of the value
  size_t num_pieces = 0;
};

// What the end of the value says, if all that was asked for came and fits.
struct Tail {
  bool is_fine = false;
  size_t header_bytes = 0;
  Bytes header;  // empty when the tail was too short for it
};

Tail ParseTail(const PendingRead& pending, const RedisRequest& request) {
  const RedisReply& reply = request.commands[pending.num_pieces].reply;
  if (reply.kind != Kind::kString || reply.num_bytes < kTrailerBytes) return {};
  const Bytes bytes = Bytes(pending.tail).first(reply.num_bytes);
  ByteReader trailer(bytes.last(kTrailerBytes));
  const uint64_t payload_bytes = trailer.Number<uint64_t>();
  const uint64_t header_bytes = trailer.Number<uint64_t>();
  const TierRead& read = *pending.read;
  const bool has_range =
      read.payload_offset <= payload_bytes && read.payload.size() <= payload_bytes - read.payload_offset;
  if (!has_range || payload_bytes > kMaxValueBytes || header_bytes > kMaxHeaderBytes) return {};
  const size_t value_bytes = payload_bytes + header_bytes + kTrailerBytes;
  if (reply.num_bytes != std::min(pending.tail.size(), value_bytes)) return {};
  Tail tail{true, size_t(header_bytes), {}};
  if (tail.header_bytes + kTrailerBytes <= reply.num_bytes) {
    tail.header = bytes.last(tail.header_bytes + kTrailerBytes).first(tail.header_bytes);
  }
  return tail;
}

bool HasPayload(const PendingRead& pending, const RedisRequest& request) {
  for (size_t i = 0; i < pending.num_pieces; ++i) {
    const RedisCommand& piece = request.commands[i];
    if (!HasFilled(piece, piece.room.size())) return false;
  }
  return true;
}

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

  std::string KeyOf(const RecordKey& key) const { return prefix + RecordKeyName(key); }
  void Run(std::span<RedisRequest> requests, size_t num_bytes);
  RedisRequest RequestOf(PendingRead& pending);
  RedisRequest RequestOf(const TierWrite& write) const;
  void FinishRead(PendingRead& pending, Bytes header);
  void ReadLongHeaders(std::vector<PendingRead*> pending, const std::vector<size_t>& header_bytes);

  const std::string prefix;
  const int64_t ttl_s;
  const std::chrono::milliseconds timeout;
  RedisCluster cluster;
  // What is read from the end: room for the longest header so far.
  std::atomic<size_t> tail_bytes = kMinTailBytes;
  std::atomic<uint64_t> num_hits = 0, num_misses = 0, bytes_read = 0, bytes_written = 0;
  std::atomic<uint64_t> num_written = 0, num_declined = 0, num_failures = 0;
};

RedisTier::RedisTier(std::unique_ptr<State> state) : state_(std::move(state)) {}
RedisTier::~RedisTier() = default;

Result<std::unique_ptr<RedisTier>> RedisTier::Open(const RedisTierOptions& options) {
  KVIST_TRY_VOID(CheckOptions(options));
  return std::unique_ptr<RedisTier>(new RedisTier(std::make_unique<State>(options)));
}

void RedisTier::State::Run(std::span<RedisRequest> requests, size_t num_bytes) {
  const std::chrono::milliseconds for_bytes(num_bytes / kBytesPerMillisecond);
  if (!cluster.Run(requests, RedisCluster::Clock::now() + timeout + for_bytes)) ++num_failures;
}

std::vector<bool> RedisTier::Contains(std::span<const RecordKey> keys) {
  std::vector<RedisRequest> requests;
  for (const RecordKey& key : keys) {
    const std::string name = state_->KeyOf(key);
    requests.push_back({name, {MakeCommand({"EXISTS", name}, Kind::kInteger)}});
  }
  state_->Run(requests, 0);
  std::vector<bool> is_held;
  for (const RedisRequest& request : requests) {
    const RedisReply& reply = request.commands[0].reply;
    is_held.push_back(reply.kind == Kind::kInteger && reply.integer == 1);
  }
  return is_held;
}

void RedisTier::Erase(std::span<const RecordKey> keys) {
  std::vector<RedisRequest> requests;
  for (const RecordKey& key : keys) {
    const std::string name = state_->KeyOf(key);
    requests.push_back({name, {MakeCommand({"UNLINK", name}, Kind::kInteger)}});
  }
  state_->Run(requests, 0);
}

RedisRequest RedisTier::State::RequestOf(const TierWrite& write) const {
  RedisRequest request{KeyOf(write.key), {}};
  const std::string trailer = EncodeTrailer(write.payload.size(), write.header.size());
  const std::string ttl = std::to_string(ttl_s);
  request.commands.push_back(ttl_s == 0 ? MakeSet(request.key, {write.payload, write.header}, trailer, {})
                                        : MakeSet(request.key, {write.payload, write.header}, trailer, {"EX", ttl}));
  return request;
}

size_t RedisTier::Write(std::span<const TierWrite> writes) {
  std::vector<RedisRequest> requests;
  std::vector<const TierWrite*> sent;  // [request]
  size_t num_bytes = 0;
  for (const TierWrite& write : writes) {
    if (write.header.size() > kMaxHeaderBytes || write.payload.size() > kMaxValueBytes - 2 * kMaxHeaderBytes) continue;
    num_bytes += write.payload.size() + write.header.size();
    requests.push_back(state_->RequestOf(write));
    sent.push_back(&write);
  }
  state_->Run(requests, num_bytes);
  size_t num_written = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    if (requests[i].commands[0].reply.kind != Kind::kStatus) continue;
    ++num_written;
    state_->bytes_written += sent[i]->payload.size() + sent[i]->header.size();
  }
  state_->num_written += num_written;
  state_->num_declined += writes.size() - num_written;
  return num_written;
}

RedisRequest RedisTier::State::RequestOf(PendingRead& pending) {
  const TierRead& read = *pending.read;
  RedisRequest request{KeyOf(read.key), {}};
  for (size_t begin = 0; begin < read.payload.size(); begin += kPieceBytes) {
    const auto piece = read.payload.subspan(begin, std::min(kPieceBytes, read.payload.size() - begin));
    const int64_t first = int64_t(read.payload_offset + begin);
    request.commands.push_back(GetRange(request.key, first, first + int64_t(piece.size()) - 1, piece));
  }
  pending.num_pieces = request.commands.size();
  pending.tail.resize(read.wants_header ? tail_bytes.load() : kTrailerBytes);
  request.commands.push_back(GetRange(request.key, -int64_t(pending.tail.size()), -1, pending.tail));
  if (ttl_s > 0)
    request.commands.push_back(MakeCommand({"EXPIRE", request.key, std::to_string(ttl_s)}, Kind::kInteger));
  return request;
}

void RedisTier::State::FinishRead(PendingRead& pending, Bytes header) {
  TierRead& read = *pending.read;
  read.is_hit = true;
  if (read.wants_header) read.header.assign(header.begin(), header.end());
  ++num_hits;
  bytes_read += read.payload.size() + read.header.size();
}

void RedisTier::Read(std::span<TierRead> reads) {
  std::vector<PendingRead> pending;
  std::vector<RedisRequest> requests;
  size_t num_bytes = 0;
  pending.reserve(reads.size());
  for (TierRead& read : reads) {
    read.is_hit = false;
    read.header.clear();
    if (read.payload_offset > kMaxValueBytes || read.payload.size() > kMaxValueBytes) continue;
    num_bytes += read.payload.size();
    requests.push_back(state_->RequestOf(pending.emplace_back(PendingRead{&read, {}})));
  }
  state_->Run(requests, num_bytes);
  std::vector<PendingRead*> long_ones;
  std::vector<size_t> header_bytes;  // [long one]
  for (size_t i = 0; i < pending.size(); ++i) {
    const Tail tail = ParseTail(pending[i], requests[i]);
    if (!tail.is_fine || !HasPayload(pending[i], requests[i])) continue;
    if (pending[i].read->wants_header && tail.header.size() < tail.header_bytes) {
      long_ones.push_back(&pending[i]);
      header_bytes.push_back(tail.header_bytes);
    } else {
      state_->FinishRead(pending[i], tail.header);
    }
  }
  if (!long_ones.empty()) state_->ReadLongHeaders(std::move(long_ones), header_bytes);
  state_->num_misses += size_t(std::ranges::count(reads, false, &TierRead::is_hit));
}

// Headers that were longer than what was read for them take another round trip, this time; the next ones don't.
void RedisTier::State::ReadLongHeaders(std::vector<PendingRead*> pending, const std::vector<size_t>& header_bytes) {
  std::vector<RedisRequest> requests;
  for (size_t i = 0; i < pending.size(); ++i) {
    const std::string key = KeyOf(pending[i]->read->key);
    pending[i]->tail.resize(header_bytes[i]);
    const int64_t begin = -int64_t(header_bytes[i] + kTrailerBytes);
    requests.push_back({key, {GetRange(key, begin, -int64_t(kTrailerBytes) - 1, pending[i]->tail)}});
    tail_bytes = std::max(tail_bytes.load(), header_bytes[i] + kTrailerBytes);
  }
  Run(requests, 0);
  for (size_t i = 0; i < pending.size(); ++i) {
    if (HasFilled(requests[i].commands[0], header_bytes[i])) FinishRead(*pending[i], pending[i]->tail);
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
  return stats;
}

}  // namespace kvist
