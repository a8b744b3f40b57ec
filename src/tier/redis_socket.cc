// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "tier/redis_socket.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "tier/redis_tier.h"

#ifdef KVIST_HAS_HIREDIS
#include <hiredis/hiredis.h>
#else
struct redisContext;
#endif
#include "tier/redis_tls.h"

// hiredis makes the connection. What goes over it we send and receive ourselves, from and to where the records lie:
// through its buffers each byte would be copied once more.
namespace kvist {

bool HasRedisTls() {
  return RedisTls::kIsSupported;
}

struct RedisSocket::State {
  redisContext* context = nullptr;
  int fd = -1;
  std::unique_ptr<RedisTls> tls;
};

RedisSocket::RedisSocket(std::unique_ptr<State> state) : state_(std::move(state)) {}

int RedisSocket::fd() const {
  return state_->fd;
}

#ifdef KVIST_HAS_HIREDIS

bool HasRedis() {
  return true;
}

namespace {

Status WaitUntilConnected(int fd, RedisSocket::Clock::time_point deadline) {
  const auto remaining = std::chrono::ceil<std::chrono::milliseconds>(deadline - RedisSocket::Clock::now());
  pollfd wait{fd, POLLOUT, 0};
  if (poll(&wait, 1, int(std::max<int64_t>(remaining.count(), 0))) != 1)
    return Fail(ErrorCode::kIo, "no answer in time");
  int error = 0;
  socklen_t size = sizeof error;
  getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
  return error == 0 ? Status{} : Fail(ErrorCode::kIo, std::strerror(error));
}

Status CannotConnect(const RedisAddress& address, const std::string& reason) {
  return Fail(ErrorCode::kIo,
              "can't connect to Redis at " + address.host + ":" + std::to_string(address.port) + ": " + reason);
}

}  // namespace

Result<std::unique_ptr<RedisSocket>> RedisSocket::Connect(const RedisAddress& address, bool uses_tls,
                                                          Clock::time_point deadline) {
  std::unique_ptr<RedisSocket> socket(new RedisSocket(std::make_unique<State>()));
  State& state = *socket->state_;
  state.context = redisConnectNonBlock(address.host.c_str(), address.port);
  if (state.context == nullptr || state.context->err != 0) {
    KVIST_TRY_VOID(CannotConnect(address, state.context ? state.context->errstr : "out of memory"));
  }
  state.fd = state.context->fd;
  const Status connected = WaitUntilConnected(state.fd, deadline);
  if (!connected) KVIST_TRY_VOID(CannotConnect(address, connected.error().message));
  // Newer versions of hiredis leave it to us; without it each command may wait 40 ms for an acknowledgement.
  const int yes = 1;
  setsockopt(state.fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  if (uses_tls) {
    KVIST_TRY(state.tls, RedisTls::Begin(state.context, address.host));
  }
  return socket;
}

RedisSocket::~RedisSocket() {
  state_->tls.reset();
  if (state_->context != nullptr) redisFree(state_->context);
}

#else

bool HasRedis() {
  return false;
}

Result<std::unique_ptr<RedisSocket>> RedisSocket::Connect(const RedisAddress&, bool, Clock::time_point) {
  return Fail(ErrorCode::kUnsupported, "this build can't talk to Redis: hiredis was missing");
}

RedisSocket::~RedisSocket() = default;

#endif

namespace {

// The outcome of a system call on a socket that must not wait.
Result<size_t> Moved(ssize_t num_bytes) {
  if (num_bytes >= 0) return size_t(num_bytes);
  if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) return 0;
  return Fail(ErrorCode::kIo, std::string("the connection to Redis broke: ") + std::strerror(errno));
}

}  // namespace

Result<size_t> RedisSocket::Send(std::span<const iovec> pieces) {
  if (state_->tls) return state_->tls->Send(pieces);
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(pieces.data());
  message.msg_iovlen = pieces.size();
  return Moved(sendmsg(state_->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT));
}

Result<size_t> RedisSocket::Receive(const std::array<std::span<std::byte>, 2>& space) {
  if (state_->tls) return state_->tls->Receive(space[0].empty() ? space[1] : space[0]);
  iovec pieces[2] = {{space[0].data(), space[0].size()}, {space[1].data(), space[1].size()}};
  msghdr message{};
  message.msg_iov = pieces;
  message.msg_iovlen = 2;
  const ssize_t num_bytes = recvmsg(state_->fd, &message, MSG_DONTWAIT);
  if (num_bytes == 0) return Fail(ErrorCode::kIo, "Redis closed the connection");
  return Moved(num_bytes);
}

short RedisSocket::WantedEvents(bool has_bytes_to_send) const {
  if (state_->tls) return state_->tls->WantedEvents(has_bytes_to_send);
  return has_bytes_to_send ? POLLIN | POLLOUT : POLLIN;
}

bool RedisSocket::IsQuiet() const {
  std::byte byte;
  return recv(state_->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

}  // namespace kvist
