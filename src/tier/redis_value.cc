// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "tier/redis_value.h"

#include <algorithm>
#include <utility>

#include "tier/bytes.h"

namespace kvist {
namespace {

using Kind = RedisReply::Kind;

// The server copies what a command asks for before it sends it: so much is still in its processor's cache then.
constexpr size_t kPieceBytes = size_t{512} << 10;

RedisCommand GetRange(const std::string& key, int64_t first, int64_t last, std::span<std::byte> room) {
  return MakeCommand({"GETRANGE", key, std::to_string(first), std::to_string(last)}, Kind::kString, room);
}

// Redis sends less when the value is shorter.
bool IsFilled(const RedisCommand& command) {
  return command.reply.kind == Kind::kString && command.reply.num_bytes == command.room.size();
}

}  // namespace

bool FitsRedis(const TierWrite& write) {
  return write.header.size() <= kMaxRedisHeaderBytes && write.payload.size() <= kMaxRedisPayloadBytes;
}

RedisRequest MakeWriteRequest(std::string key, const TierWrite& write, int64_t ttl_s) {
  ByteWriter trailer;
  trailer.Number(uint64_t(write.payload.size()));
  trailer.Number(uint64_t(write.header.size()));
  const std::string_view rest(reinterpret_cast<const char*>(trailer.bytes().data()), trailer.bytes().size());
  RedisRequest request{std::move(key), {}};
  const std::array bodies{write.payload, write.header};
  request.commands.push_back(ttl_s == 0 ? MakeSet(request.key, bodies, rest, {})
                                        : MakeSet(request.key, bodies, rest, {"EX", std::to_string(ttl_s)}));
  request.commands.back().before_sending = write.complete_header;
  return request;
}

bool MayBeInRedis(const TierRead& read) {
  return read.payload_offset <= kMaxRedisPayloadBytes && read.payload.size() <= kMaxRedisPayloadBytes;
}

RedisRequest MakeReadRequest(std::string key, RedisRead& read, size_t tail_bytes, int64_t ttl_s) {
  RedisRequest request{std::move(key), {}};
  const std::span<std::byte> payload = read.read->payload;
  for (size_t begin = 0; begin < payload.size(); begin += kPieceBytes) {
    const auto piece = payload.subspan(begin, std::min(kPieceBytes, payload.size() - begin));
    const int64_t first = int64_t(read.read->payload_offset + begin);
    request.commands.push_back(GetRange(request.key, first, first + int64_t(piece.size()) - 1, piece));
  }
  read.num_pieces = request.commands.size();
  read.tail.resize(read.read->wants_header ? tail_bytes : kRedisTrailerBytes);
  request.commands.push_back(GetRange(request.key, -int64_t(read.tail.size()), -1, read.tail));
  if (ttl_s > 0) {
    request.commands.push_back(MakeCommand({"EXPIRE", request.key, std::to_string(ttl_s)}, Kind::kInteger));
  }
  return request;
}

std::optional<RedisFound> FindRecord(const RedisRead& read, const RedisRequest& request) {
  const std::span commands(request.commands);
  if (!std::ranges::all_of(commands.first(read.num_pieces), IsFilled)) return {};
  const RedisReply& reply = commands[read.num_pieces].reply;
  if (reply.kind != Kind::kString || reply.num_bytes < kRedisTrailerBytes) return {};
  const auto tail = std::span(read.tail).first(reply.num_bytes);
  ByteReader trailer(tail.last(kRedisTrailerBytes));
  const uint64_t payload_bytes = trailer.Number<uint64_t>(), header_bytes = trailer.Number<uint64_t>();
  if (payload_bytes > kMaxRedisPayloadBytes || header_bytes > kMaxRedisHeaderBytes) return {};
  if (read.read->payload_offset + read.read->payload.size() > payload_bytes) return {};
  const size_t end_bytes = header_bytes + kRedisTrailerBytes;
  if (reply.num_bytes != std::min(read.tail.size(), payload_bytes + end_bytes)) return {};
  RedisFound found{header_bytes, {}};
  if (end_bytes <= tail.size()) found.header = tail.last(end_bytes).first(header_bytes);
  return found;
}

RedisRequest MakeHeaderRequest(std::string key, std::span<std::byte> room) {
  RedisRequest request{std::move(key), {}};
  const int64_t first = -int64_t(room.size() + kRedisTrailerBytes), last = -int64_t(kRedisTrailerBytes) - 1;
  request.commands.push_back(GetRange(request.key, first, last, room));
  return request;
}

bool HasHeader(const RedisRequest& request) {
  return IsFilled(request.commands[0]);
}

}  // namespace kvist
