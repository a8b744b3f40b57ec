// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "kvist/error.h"

struct redisContext;
struct ssl_st;

namespace kvist {

// TLS over a connection that hiredis made. None of the calls wait; the handshake goes on in Send and Receive.
class RedisTls {
 public:
#ifdef KVIST_HAS_HIREDIS_SSL
  static constexpr bool kIsSupported = true;
#else
  static constexpr bool kIsSupported = false;
#endif
  // The certificate must be good for `host`, a name or an address, by the authorities that OpenSSL trusts by default
  // (SSL_CERT_FILE and SSL_CERT_DIR in the environment change them). The context owns what OpenSSL holds.
  static Result<std::unique_ptr<RedisTls>> Begin(redisContext* context, const std::string& host);

  // As of RedisSocket.
  Result<size_t> Send(std::span<const iovec> pieces);
  Result<size_t> Receive(std::span<std::byte> space);
  short WantedEvents(bool has_bytes_to_send) const;

 private:
  explicit RedisTls(ssl_st* ssl) : ssl_(ssl) {}
  Result<size_t> Moved(int num_bytes, bool& wants_write);
  ssl_st* const ssl_;
  bool send_wants_write_ = true;  // else a message of the peer, before bytes can be sent
  bool receive_wants_write_ = false;
};

}  // namespace kvist
