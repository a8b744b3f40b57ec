// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "tier/redis_connection.h"

#include <poll.h>

#include <algorithm>

namespace kvist {
namespace {

// A server keeps replies until they are sent: of more than its processor's cache holds, it would send from memory.
constexpr size_t kMaxAwaitedBytes = size_t{1} << 20;
constexpr size_t kMaxPieces = 64;  // of one system call
// Commands are prepared no further ahead: while one is, the server takes what was sent before.
constexpr size_t kMaxBytesReady = size_t{1} << 20;

void AddPiece(std::vector<iovec>& pieces, const void* bytes, size_t num_bytes, size_t& num_skipped) {
  const size_t skipped = std::min(num_skipped, num_bytes);
  num_skipped -= skipped;
  if (skipped == num_bytes) return;
  pieces.push_back({const_cast<char*>(static_cast<const char*>(bytes)) + skipped, num_bytes - skipped});
}

// What of the command is to be sent after its first num_sent bytes.
void AddPieces(std::vector<iovec>& pieces, const RedisCommand& command, size_t num_sent) {
  AddPiece(pieces, command.head.data(), command.head.size(), num_sent);
  for (const auto& body : command.bodies) AddPiece(pieces, body.data(), body.size(), num_sent);
  AddPiece(pieces, command.tail.data(), command.tail.size(), num_sent);
}

size_t WireBytes(const RedisCommand& command) {
  return command.head.size() + command.bodies[0].size() + command.bodies[1].size() + command.tail.size();
}

Status LogIn(RedisConnection& connection, const RedisTierOptions& options,
             RedisConnection::Clock::time_point deadline) {
  constexpr auto kStatus = RedisReply::Kind::kStatus;
  std::vector<RedisCommand> commands;
  if (!options.user.empty()) {
    commands.push_back(MakeCommand({"AUTH", options.user, options.password}, kStatus));
  } else if (!options.password.empty()) {
    commands.push_back(MakeCommand({"AUTH", options.password}, kStatus));
  }
  if (options.database != 0) commands.push_back(MakeCommand({"SELECT", std::to_string(options.database)}, kStatus));
  std::vector<RedisCommand*> pointers;
  for (RedisCommand& command : commands) pointers.push_back(&command);
  connection.Begin(pointers);
  RedisConnection* const connections[] = {&connection};
  KVIST_TRY_VOID(RunCommands(connections, deadline)[0]);
  for (const RedisCommand& command : commands) {
    if (command.reply.kind != kStatus) {
      return Fail(ErrorCode::kIo, "Redis refused the log-in: " + command.reply.text);
    }
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<RedisConnection>> RedisConnection::Open(const RedisAddress& address,
                                                               const RedisTierOptions& options,
                                                               Clock::time_point deadline) {
  KVIST_TRY(auto socket, RedisSocket::Connect(address, options.uses_tls, deadline));
  std::unique_ptr<RedisConnection> connection(new RedisConnection(std::move(socket)));
  KVIST_TRY_VOID(LogIn(*connection, options, deadline));
  return connection;
}

void RedisConnection::Begin(std::vector<RedisCommand*> commands) {
  KVIST_CHECK(is_done() && !is_broken_);
  commands_ = std::move(commands);
  for (RedisCommand* command : commands_) command->reply = {};
  num_allowed_ = next_to_send_ = num_prepared_ = sent_bytes_ = next_to_receive_ = awaited_bytes_ = 0;
  AllowMore();
}

// At least one, however much it asks for.
void RedisConnection::AllowMore() {
  while (num_allowed_ < commands_.size()) {
    const size_t num_bytes = commands_[num_allowed_]->room.size();
    if (awaited_bytes_ > 0 && awaited_bytes_ + num_bytes > kMaxAwaitedBytes) return;
    awaited_bytes_ += num_bytes;
    ++num_allowed_;
  }
}

Status RedisConnection::Step() {
  is_broken_ = true;  // unless all goes well
  bool is_moving = true;
  while (is_moving && !is_done()) {
    KVIST_TRY(const bool has_sent, Send());
    KVIST_TRY(const bool has_received, Receive());
    is_moving = has_sent || has_received;
  }
  is_broken_ = false;
  return {};
}

Result<bool> RedisConnection::Send() {
  if (!MaySend()) return false;
  std::vector<iovec> pieces;
  size_t num_bytes_ready = 0;
  for (size_t i = next_to_send_; i < num_allowed_ && pieces.size() + 4 <= kMaxPieces; ++i) {
    if (num_bytes_ready >= kMaxBytesReady) break;
    PrepareToSend(i);
    AddPieces(pieces, *commands_[i], i == next_to_send_ ? sent_bytes_ : 0);
    num_bytes_ready += WireBytes(*commands_[i]);
  }
  KVIST_TRY(const size_t num_bytes, socket_->Send(pieces));
  Sent(num_bytes);
  return num_bytes > 0;
}

void RedisConnection::PrepareToSend(size_t index) {
  if (index < num_prepared_) return;
  num_prepared_ = index + 1;
  if (commands_[index]->before_sending) commands_[index]->before_sending();
}

void RedisConnection::Sent(size_t num_bytes) {
  sent_bytes_ += num_bytes;
  while (next_to_send_ < num_allowed_ && sent_bytes_ >= WireBytes(*commands_[next_to_send_])) {
    sent_bytes_ -= WireBytes(*commands_[next_to_send_]);
    ++next_to_send_;
  }
}

Result<bool> RedisConnection::Receive() {
  KVIST_TRY(const size_t num_bytes, socket_->Receive(reader_.Space()));
  reader_.Received(num_bytes);
  while (next_to_receive_ < next_to_send_) {
    RedisCommand& command = *commands_[next_to_receive_];
    KVIST_TRY(const bool is_complete, reader_.Advance(command));
    if (!is_complete) return num_bytes > 0;
    awaited_bytes_ -= command.room.size();
    ++next_to_receive_;
    AllowMore();
  }
  if (reader_.has_more()) return Fail(ErrorCode::kCorrupt, "Redis sent more than was asked for");
  return num_bytes > 0;
}

bool RedisConnection::IsUsable() const {
  return is_done() && !is_broken_ && socket_->IsQuiet();
}

std::vector<Status> RunCommands(std::span<RedisConnection* const> connections,
                                RedisConnection::Clock::time_point deadline) {
  std::vector<Status> outcomes(connections.size());
  while (true) {
    std::vector<pollfd> waits;
    for (size_t i = 0; i < connections.size(); ++i) {
      RedisConnection& connection = *connections[i];
      if (!outcomes[i] || connection.is_done()) continue;
      outcomes[i] = connection.Step();
      if (outcomes[i] && !connection.is_done()) waits.push_back({connection.fd(), connection.WantedEvents(), 0});
    }
    if (waits.empty()) return outcomes;
    const auto remaining = std::chrono::ceil<std::chrono::milliseconds>(deadline - RedisConnection::Clock::now());
    if (remaining.count() <= 0) break;
    poll(waits.data(), waits.size(), int(remaining.count()));
  }
  for (size_t i = 0; i < connections.size(); ++i) {
    if (outcomes[i] && !connections[i]->is_done()) outcomes[i] = Fail(ErrorCode::kIo, "Redis did not answer in time");
  }
  return outcomes;
}

}  // namespace kvist
