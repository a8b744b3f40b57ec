// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>

#include "kvist/error.h"

namespace kvist {

// What came back for a command. Our commands get no arrays.
struct RedisReply {
  enum class Kind : uint8_t { kNone, kStatus, kError, kInteger, kString };
  Kind kind = Kind::kNone;
  std::string text;      // of a status or an error
  int64_t integer = 0;   // of an integer
  size_t num_bytes = 0;  // of a string; the bytes are in the command's room
};

// A command as it goes over the wire, and its reply. Large values are sent from where they lie and received where they
// are wanted: the memory of `bodies` and `room` is the caller's until the command is done.
struct RedisCommand {
  std::string head;  // encoded
  std::array<std::span<const std::byte>, 2> bodies;
  std::string tail;  // encoded
  // Called before any of the command is sent, again when it is sent again. May change the bytes of `bodies`.
  std::function<void()> before_sending = {};
  // Besides an error; anything else is nonsense. kNone: anything will do.
  RedisReply::Kind wanted = RedisReply::Kind::kNone;
  std::span<std::byte> room;  // for a string; a longer one than fits is nonsense, as we never ask for so much
  RedisReply reply;
};

RedisCommand MakeCommand(std::initializer_list<std::string_view> words, RedisReply::Kind wanted,
                         std::span<std::byte> room = {});
// SET of a value that is made of the bodies and `rest`, one after another; more words may follow ("EX", "60").
RedisCommand MakeSet(std::string_view key, std::array<std::span<const std::byte>, 2> bodies, std::string_view rest,
                     std::initializer_list<std::string_view> options);

// Takes replies from a stream of bytes that arrive in pieces. Holds at most a few KiB, whatever the peer sends.
class RedisReplyReader {
 public:
  // Where the stream's next bytes belong: in the first span (which may be empty), then in the second.
  std::array<std::span<std::byte>, 2> Space();
  // So many bytes were put there.
  void Received(size_t num_bytes);
  // Goes on with the reply to `command`. True when it is complete, false when more bytes are needed.
  // kCorrupt when the bytes are no reply, or one that the command can't have.
  Result<bool> Advance(RedisCommand& command);
  // Bytes came that belong to no reply so far.
  bool has_more() const { return begin_ < end_; }

 private:
  enum class State : uint8_t { kLine, kString, kStringEnd };
  Result<bool> TakeLine(RedisCommand& command);
  static Result<bool> Complete(RedisCommand& command, RedisReply::Kind kind);
  Result<bool> ParseLine(std::string_view line, RedisCommand& command);
  Result<bool> BeginString(int64_t length, RedisCommand& command);
  void TakeStringBytes();
  Result<bool> TakeStringEnd(RedisCommand& command);

  State state_ = State::kLine;
  std::span<std::byte> missing_;  // of the string that is being received
  std::array<std::byte, 4096> buffer_;
  size_t begin_ = 0, end_ = 0;  // what was received and not taken yet
};

}  // namespace kvist
