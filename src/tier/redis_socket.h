// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <sys/uio.h>

#include <array>
#include <chrono>
#include <compare>
#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "kvist/error.h"

namespace kvist {

struct RedisAddress {
  std::string host;
  int port = 0;
  auto operator<=>(const RedisAddress&) const = default;
};

// A TCP connection, with TLS or without, that never waits but while it is made, and never raises a signal.
class RedisSocket {
 public:
  using Clock = std::chrono::steady_clock;
  // Connected by the deadline, but for the time that resolving a name takes. The TLS handshake, if any, goes on while
  // bytes are sent and received; the peer's certificate must be one of the system's authorities and name the host.
  // kIo; kUnsupported in a build without hiredis, or without its TLS.
  static Result<std::unique_ptr<RedisSocket>> Connect(const RedisAddress& address, bool uses_tls,
                                                      Clock::time_point deadline);
  ~RedisSocket();

  // As many bytes as go at once, 0 if none. kIo when the connection is broken or the peer closed it.
  Result<size_t> Send(std::span<const iovec> pieces);
  Result<size_t> Receive(const std::array<std::span<std::byte>, 2>& space);

  // For poll: the events after which Receive, and Send if there is something to send, may go on.
  int fd() const;
  short WantedEvents(bool has_bytes_to_send) const;
  // Neither closed by the peer nor with bytes that nobody asked for, as far as is known without waiting.
  bool IsQuiet() const;

 private:
  struct State;
  explicit RedisSocket(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace kvist
