// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <poll.h>

#include <atomic>
#include <functional>
#include <mutex>

#include "tier/redis_test_server.h"

namespace kvist {

// Something that listens where a Redis server might and answers each command as the test wants.
class RedisFakeServer {
 public:
  using Command = std::vector<std::string>;
  struct Answer {
    std::string bytes;
    bool closes = false;   // the connection, then
    bool repeats = false;  // the bytes, for as long as they are taken
  };
  using Answerer = std::function<Answer(const Command&)>;

  explicit RedisFakeServer(Answerer answerer) : answerer_(std::move(answerer)) {
    accepting_ = std::thread([this] { Accept(); });
  }
  ~RedisFakeServer() {
    stops_ = true;
    accepting_.join();
    for (std::thread& thread : serving_) thread.join();
    close(listener_);
  }

  int port() const { return PortOf(listener_); }
  std::string place() const { return "127.0.0.1:" + std::to_string(port()); }
  std::vector<Command> commands() const {  // so far, of all connections
    const std::lock_guard lock(mutex_);
    return commands_;
  }
  size_t num_connections() const { return num_connections_; }

 private:
  bool WaitFor(int fd, short events) const {
    pollfd wait{fd, events, 0};
    while (!stops_) {
      if (poll(&wait, 1, 5) > 0) return true;
    }
    return false;
  }

  void Accept() {
    while (WaitFor(listener_, POLLIN)) {
      const int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
      if (fd < 0) continue;
      ++num_connections_;
      serving_.emplace_back([this, fd] {
        Serve(fd);
        close(fd);
      });
    }
  }

  void Serve(int fd) {
    std::string received;
    while (WaitFor(fd, POLLIN)) {
      char buffer[65536];
      const ssize_t num_bytes = recv(fd, buffer, sizeof buffer, 0);
      if (num_bytes <= 0) return;
      received.append(buffer, size_t(num_bytes));
      for (Command command = TakeCommand(received); !command.empty(); command = TakeCommand(received)) {
        const Answer answer = Note(std::move(command));
        do {
          if (!SendAll(fd, answer.bytes)) return;
        } while (answer.repeats);
        if (answer.closes) return;
      }
    }
  }

  Answer Note(Command command) {
    const std::lock_guard lock(mutex_);
    commands_.push_back(std::move(command));
    return answerer_(commands_.back());
  }

  bool SendAll(int fd, std::string_view bytes) const {
    while (!bytes.empty()) {
      if (!WaitFor(fd, POLLOUT)) return false;
      const ssize_t num_bytes = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (num_bytes < 0) return false;
      bytes.remove_prefix(size_t(num_bytes));
    }
    return !stops_;
  }

  // A number after the type's letter, and the end of its line.
  static bool TakeNumber(std::string_view& text, size_t& number) {
    const size_t end = text.find("\r\n");
    if (end == text.npos) return false;
    number = std::stoul(std::string(text.substr(1, end - 1)));
    text.remove_prefix(end + 2);
    return true;
  }

  // Takes a whole command from the front; empty when there is none.
  static Command TakeCommand(std::string& received) {
    std::string_view text = received;
    Command command;
    size_t num_words = 0;
    if (!TakeNumber(text, num_words)) return {};
    while (command.size() < num_words) {
      size_t length = 0;
      if (!TakeNumber(text, length) || text.size() < length + 2) return {};
      command.emplace_back(text.substr(0, length));
      text.remove_prefix(length + 2);
    }
    received.erase(0, received.size() - text.size());
    return command;
  }

  const Answerer answerer_;
  const int listener_ = ListenOnLoopback(0);
  std::atomic<bool> stops_ = false;
  std::atomic<size_t> num_connections_ = 0;
  mutable std::mutex mutex_;
  std::vector<Command> commands_;
  std::vector<std::thread> serving_;  // of the accepting thread, until it has ended
  std::thread accepting_;
};

}  // namespace kvist
