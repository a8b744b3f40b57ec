// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "tier/redis_protocol.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

namespace kvist::redis_protocol_test {
namespace {

using Kind = RedisReply::Kind;

// Gives the reader as many of the bytes as the command's reply takes, piece by piece. The outcome of the last Advance.
Result<bool> Feed(RedisReplyReader& reader, RedisCommand& command, std::string_view& bytes, size_t piece_bytes) {
  Result<bool> outcome = reader.Advance(command);
  while (outcome && !*outcome && !bytes.empty()) {
    size_t num_bytes = 0;
    for (const auto& space : reader.Space()) {
      const size_t count = std::min({space.size(), piece_bytes - num_bytes, bytes.size()});
      std::copy_n(bytes.data(), count, reinterpret_cast<char*>(space.data()));
      bytes.remove_prefix(count);
      num_bytes += count;
    }
    REQUIRE(num_bytes > 0);
    reader.Received(num_bytes);
    outcome = reader.Advance(command);
  }
  return outcome;
}

TEST_CASE("Redis protocol: commands are encoded word by word") {
  CHECK(MakeCommand({"GET", "a key"}, Kind::kString).head == "*2\r\n$3\r\nGET\r\n$5\r\na key\r\n");
  const std::string payload = "pay\r\nload", header = "head";
  const RedisCommand set =
      MakeSet("k", {std::as_bytes(std::span(payload)), std::as_bytes(std::span(header))}, "end", {"EX", "60"});
  CHECK(set.head == "*5\r\n$3\r\nSET\r\n$1\r\nk\r\n$16\r\n");
  CHECK(set.bodies[0].data() == static_cast<const void*>(payload.data()));
  CHECK(set.tail == "end\r\n$2\r\nEX\r\n$2\r\n60\r\n");
}

TEST_CASE("Redis protocol: every kind of reply, in pieces of every size") {
  std::string text(10'000, 'x');
  for (size_t i = 0; i < text.size(); ++i) text[i] = "\r\n$-:ab"[i % 7];
  const std::string stream = "+OK\r\n-ERR no\r\n:-42\r\n$0\r\n\r\n$10000\r\n" + text + "\r\n:7\r\n";
  for (const size_t piece_bytes : {1, 2, 3, 5, 100, 4095, 4096, 4097, 9999, 20'000}) {
    CAPTURE(piece_bytes);
    RedisReplyReader reader;
    std::vector<std::byte> room(10'000);
    RedisCommand commands[6];
    for (RedisCommand& command : commands) command.room = room;
    std::string_view left = stream;
    for (RedisCommand& command : commands) REQUIRE(Feed(reader, command, left, piece_bytes).value());
    CHECK(left.empty());
    CHECK(commands[0].reply.kind == Kind::kStatus);
    CHECK(commands[0].reply.text == "OK");
    CHECK(commands[1].reply.kind == Kind::kError);
    CHECK(commands[1].reply.text == "ERR no");
    CHECK(commands[2].reply.kind == Kind::kInteger);
    CHECK(commands[2].reply.integer == -42);
    CHECK(commands[3].reply.kind == Kind::kString);
    CHECK(commands[3].reply.num_bytes == 0);
    CHECK(commands[4].reply.kind == Kind::kString);
    CHECK(commands[4].reply.num_bytes == text.size());
    CHECK(std::memcmp(room.data(), text.data(), text.size()) == 0);
    CHECK(commands[5].reply.integer == 7);
    CHECK_FALSE(reader.has_more());
  }
}

TEST_CASE("Redis protocol: a string that is cut off is no reply") {
  RedisReplyReader reader;
  std::vector<std::byte> room(100);
  RedisCommand command;
  command.room = room;
  std::string_view bytes = "$100\r\nabc";
  CHECK_FALSE(Feed(reader, command, bytes, 1).value());
  CHECK(command.reply.kind == Kind::kNone);
}

TEST_CASE("Redis protocol: a reply of another kind than the command has is nonsense, an error is not") {
  const auto outcome = [](Kind wanted, std::string_view bytes) {
    RedisReplyReader reader;
    std::vector<std::byte> room(100);
    RedisCommand command = MakeCommand({"X"}, wanted, room);
    return Feed(reader, command, bytes, 100).has_value();
  };
  for (const Kind wanted : {Kind::kStatus, Kind::kInteger, Kind::kString}) {
    CHECK(outcome(wanted, "+OK\r\n") == (wanted == Kind::kStatus));
    CHECK(outcome(wanted, ":1\r\n") == (wanted == Kind::kInteger));
    CHECK(outcome(wanted, "$2\r\nOK\r\n") == (wanted == Kind::kString));
    CHECK(outcome(wanted, "-ERR\r\n"));
  }
}

TEST_CASE("Redis protocol: nonsense is told as soon as it is seen") {
  const std::string endless(5000, 'x'), long_line = "+" + endless;
  for (const std::string_view bytes : std::initializer_list<std::string_view>{
           "\r\n", "OK\r\n", "*1\r\n", "$\r\n", "$x\r\n", "$-1\r\n", "$-2\r\n", "$101\r\n", "$999999999999\r\n",
           "$99999999999999999999999999\r\n", "$1 \r\n", "$3\r\nabcd\r\n", ":\r\n", ":1x\r\n", "%1\r\n", "_\r\n",
           endless, long_line}) {
    for (const size_t piece_bytes : {1, 100'000}) {
      CAPTURE(bytes);
      RedisReplyReader reader;
      std::vector<std::byte> room(100);
      RedisCommand command;
      command.room = room;
      std::string_view left = bytes;
      const auto outcome = Feed(reader, command, left, piece_bytes);
      REQUIRE_FALSE(outcome);
      CHECK(outcome.error().code == ErrorCode::kCorrupt);
      CHECK(command.reply.kind == Kind::kNone);
    }
  }
}

TEST_CASE("Redis protocol: random bytes are replies or nonsense, never written outside the room") {
  std::mt19937 random(5);
  int num_replies = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string bytes;
    for (size_t length = random() % 60; bytes.size() < length;) {
      bytes += random() % 3 == 0 ? std::string("\r\n") : std::string(1, "$+-:*0123456789 a\r\n\0"[random() % 20]);
    }
    std::vector<std::byte> room(random() % 20);
    RedisReplyReader reader;
    RedisCommand command;
    command.room = room;
    std::string_view left = bytes;
    const auto outcome = Feed(reader, command, left, 1 + random() % 60);
    num_replies += outcome && *outcome;
  }
  CHECK(num_replies > 100);
}

}  // namespace
}  // namespace kvist::redis_protocol_test
