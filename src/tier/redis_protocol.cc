// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "tier/redis_protocol.h"

#include <algorithm>
#include <charconv>
#include <cstring>

namespace kvist {
namespace {

using namespace std::string_view_literals;
using Kind = RedisReply::Kind;

constexpr std::string_view kLineEnd = "\r\n";

void AppendCount(std::string& text, char type, size_t count) {
  text += type;
  text += std::to_string(count);
  text += kLineEnd;
}

void AppendWord(std::string& text, std::string_view word) {
  AppendCount(text, '$', word.size());
  text += word;
  text += kLineEnd;
}

bool ParseInteger(std::string_view text, int64_t& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

RedisCommand MakeCommand(std::initializer_list<std::string_view> words, RedisReply::Kind wanted,
                         std::span<std::byte> room) {
  RedisCommand command;
  AppendCount(command.head, '*', words.size());
  for (const std::string_view word : words) AppendWord(command.head, word);
  command.wanted = wanted;
  command.room = room;
  return command;
}

RedisCommand MakeSet(std::string_view key, std::array<std::span<const std::byte>, 2> bodies, std::string_view rest,
                     std::initializer_list<std::string_view> options) {
  RedisCommand command;
  AppendCount(command.head, '*', 3 + options.size());
  AppendWord(command.head, "SET"sv);
  AppendWord(command.head, key);
  AppendCount(command.head, '$', bodies[0].size() + bodies[1].size() + rest.size());
  command.wanted = Kind::kStatus;
  command.bodies = bodies;
  command.tail += rest;
  command.tail += kLineEnd;
  for (const std::string_view option : options) AppendWord(command.tail, option);
  return command;
}

std::array<std::span<std::byte>, 2> RedisReplyReader::Space() {
  std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
  end_ -= begin_;
  begin_ = 0;
  return {missing_, std::span(buffer_).subspan(end_)};
}

void RedisReplyReader::Received(size_t num_bytes) {
  const size_t of_string = std::min(num_bytes, missing_.size());
  missing_ = missing_.subspan(of_string);
  end_ += num_bytes - of_string;
}

Result<bool> RedisReplyReader::Advance(RedisCommand& command) {
  if (state_ == State::kLine) {
    KVIST_TRY(const bool is_complete, TakeLine(command));
    if (is_complete || state_ == State::kLine) return is_complete;
  }
  TakeStringBytes();
  return missing_.empty() ? TakeStringEnd(command) : false;
}

// The kind is told only now: a connection may break in the middle of a string.
Result<bool> RedisReplyReader::Complete(RedisCommand& command, Kind kind) {
  if (kind != Kind::kError && command.wanted != Kind::kNone && kind != command.wanted) {
    return Fail(ErrorCode::kCorrupt, "Redis sent another kind of reply than the command has");
  }
  command.reply.kind = kind;
  return true;
}

Result<bool> RedisReplyReader::TakeLine(RedisCommand& command) {
  const std::string_view received(reinterpret_cast<const char*>(buffer_.data()) + begin_, end_ - begin_);
  const size_t length = received.find(kLineEnd);
  if (length == received.npos) {
    if (received.size() == buffer_.size()) return Fail(ErrorCode::kCorrupt, "Redis sent a line without an end");
    return false;
  }
  begin_ += length + kLineEnd.size();
  return ParseLine(received.substr(0, length), command);
}

Result<bool> RedisReplyReader::ParseLine(std::string_view line, RedisCommand& command) {
  const char type = line.empty() ? ' ' : line[0];
  line.remove_prefix(std::min<size_t>(line.size(), 1));
  if (type == '+' || type == '-') {
    command.reply.text = line;
    return Complete(command, type == '+' ? Kind::kStatus : Kind::kError);
  }
  int64_t number = 0;
  if (type == '$' && ParseInteger(line, number)) return BeginString(number, command);
  if (type == ':' && ParseInteger(line, command.reply.integer)) return Complete(command, Kind::kInteger);
  return Fail(ErrorCode::kCorrupt, "Redis sent something that is no reply to our commands");
}

Result<bool> RedisReplyReader::BeginString(int64_t length, RedisCommand& command) {
  if (length < 0 || uint64_t(length) > command.room.size()) {
    return Fail(ErrorCode::kCorrupt, "Redis sends a string of " + std::to_string(length) + " bytes where at most " +
                                         std::to_string(command.room.size()) + " were asked for");
  }
  command.reply.num_bytes = size_t(length);
  missing_ = command.room.first(size_t(length));
  state_ = State::kString;
  return false;
}

void RedisReplyReader::TakeStringBytes() {
  const size_t num_bytes = std::min(missing_.size(), end_ - begin_);
  std::copy_n(buffer_.begin() + begin_, num_bytes, missing_.begin());
  missing_ = missing_.subspan(num_bytes);
  begin_ += num_bytes;
}

Result<bool> RedisReplyReader::TakeStringEnd(RedisCommand& command) {
  state_ = State::kStringEnd;
  if (end_ - begin_ < kLineEnd.size()) return false;
  if (std::memcmp(buffer_.data() + begin_, kLineEnd.data(), kLineEnd.size()) != 0) {
    return Fail(ErrorCode::kCorrupt, "Redis sent a string that is longer than it said");
  }
  begin_ += kLineEnd.size();
  state_ = State::kLine;
  return Complete(command, Kind::kString);
}

}  // namespace kvist
