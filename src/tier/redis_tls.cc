// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "tier/redis_tls.h"

#ifdef KVIST_HAS_HIREDIS_SSL

#include <hiredis/hiredis.h>
#include <hiredis/hiredis_ssl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <climits>
#include <ctime>

namespace kvist {
namespace {

// OpenSSL writes to sockets without MSG_NOSIGNAL. Here a peer that went away raises no signal in this thread.
class NoSigpipe {
 public:
  NoSigpipe() {
    sigemptyset(&pipe_);
    sigaddset(&pipe_, SIGPIPE);
    sigset_t pending;
    sigpending(&pending);
    was_pending_ = sigismember(&pending, SIGPIPE) == 1;
    pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
  }
  ~NoSigpipe() {
    const timespec at_once{};
    if (!was_pending_) sigtimedwait(&pipe_, nullptr, &at_once);
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }

 private:
  sigset_t pipe_, before_;
  bool was_pending_ = false;
};

struct SslFree {
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
  void operator()(SSL* ssl) const { SSL_free(ssl); }
};

// hiredis would verify who signed the certificate, but not whose it is.
std::unique_ptr<SSL, SslFree> NewSsl(const std::string& host) {
  const std::unique_ptr<SSL_CTX, SslFree> context(SSL_CTX_new(TLS_client_method()));
  if (!context || SSL_CTX_set_default_verify_paths(context.get()) != 1) return nullptr;
  SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
  std::unique_ptr<SSL, SslFree> ssl(SSL_new(context.get()));
  if (!ssl) return nullptr;
  SSL_set_mode(ssl.get(), SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  const bool is_address = X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl.get()), host.c_str()) == 1;
  if (is_address) return ssl;
  if (SSL_set1_host(ssl.get(), host.c_str()) != 1) return nullptr;
  return SSL_set_tlsext_host_name(ssl.get(), host.c_str()) == 1 ? std::move(ssl) : nullptr;
}

}  // namespace

Result<std::unique_ptr<RedisTls>> RedisTls::Begin(redisContext* context, const std::string& host) {
  const NoSigpipe no_sigpipe;
  ERR_clear_error();
  auto ssl = NewSsl(host);
  if (!ssl || redisInitiateSSL(context, ssl.get()) != REDIS_OK) {
    return Fail(ErrorCode::kIo, "can't begin TLS with Redis at " + host + ": " + context->errstr);
  }
  return std::unique_ptr<RedisTls>(new RedisTls(ssl.release()));
}

Result<size_t> RedisTls::Moved(int num_bytes, bool& wants_write) {
  if (num_bytes > 0) return size_t(num_bytes);
  const int error = SSL_get_error(ssl_, num_bytes);
  wants_write = error == SSL_ERROR_WANT_WRITE;
  if (error == SSL_ERROR_WANT_WRITE || error == SSL_ERROR_WANT_READ) return 0;
  const char* reason = ERR_reason_error_string(ERR_peek_last_error());
  return Fail(ErrorCode::kIo, std::string("the TLS connection to Redis broke: ") + (reason ? reason : "closed"));
}

Result<size_t> RedisTls::Send(std::span<const iovec> pieces) {
  const NoSigpipe no_sigpipe;
  ERR_clear_error();
  const iovec& piece = pieces.front();
  return Moved(SSL_write(ssl_, piece.iov_base, int(std::min<size_t>(piece.iov_len, INT_MAX))), send_wants_write_);
}

Result<size_t> RedisTls::Receive(std::span<std::byte> space) {
  const NoSigpipe no_sigpipe;
  ERR_clear_error();
  return Moved(SSL_read(ssl_, space.data(), int(std::min<size_t>(space.size(), INT_MAX))), receive_wants_write_);
}

short RedisTls::WantedEvents(bool has_bytes_to_send) const {
  return receive_wants_write_ || (has_bytes_to_send && send_wants_write_) ? POLLIN | POLLOUT : POLLIN;
}

}  // namespace kvist

#else

namespace kvist {

Result<std::unique_ptr<RedisTls>> RedisTls::Begin(redisContext*, const std::string&) {
  return Fail(ErrorCode::kUnsupported, "this build can't do TLS with Redis: hiredis was built without it");
}
Result<size_t> RedisTls::Send(std::span<const iovec>) {
  return 0;
}
Result<size_t> RedisTls::Receive(std::span<std::byte>) {
  return 0;
}
short RedisTls::WantedEvents(bool) const {
  return 0;
}

}  // namespace kvist

#endif
