// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "tier/redis_connection.h"
#include "tier/tier_test_kit.h"

namespace kvist {

// A TCP socket that listens on a port of the loopback; port 0: one that is free.
inline int ListenOnLoopback(int port) {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int yes = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(uint16_t(port));
  REQUIRE(bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  REQUIRE(listen(listener, 16) == 0);
  return listener;
}

inline int PortOf(int listener) {
  sockaddr_in address{};
  socklen_t size = sizeof address;
  REQUIRE(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  return ntohs(address.sin_port);
}

// A real redis-server (or the valkey-server that KVIST_VALKEY_SERVER names) that ends with this object. It keeps
// nothing on disk.
class RedisTestServer {
 public:
  // Without a server the tests that need one do nothing; the first of them says so.
  static bool IsThere() {
    static const bool is_there = [] {
      if (HasRedis() && !Program().empty()) return true;
      std::puts("Skipped: the tests of the Redis tier, for want of hiredis or of a redis-server.");
      return false;
    }();
    return is_there;
  }

  RedisTestServer(std::vector<std::string> arguments = {}) : arguments_(std::move(arguments)) {
    const int listener = ListenOnLoopback(0);
    port_ = PortOf(listener);
    close(listener);
    Start();
  }
  RedisTestServer(const RedisTestServer&) = delete;
  ~RedisTestServer() { Kill(); }

  int port() const { return port_; }
  const std::vector<std::string>& arguments() const { return arguments_; }
  // For tests in which nothing is slow on purpose.
  RedisTierOptions options() const {
    RedisTierOptions options;
    options.port = port_;
    options.connect_timeout = options.timeout = std::chrono::milliseconds(10'000);
    return options;
  }

  void Start() {
    std::filesystem::create_directories(folder_.path());
    pid_ = fork();
    if (pid_ == 0) Exec();
    REQUIRE(pid_ > 0);
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (Ask({"PING"}, options()).text != "PONG") {
      REQUIRE(std::chrono::steady_clock::now() < end);
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }
  void Kill() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
  void Pause() const { kill(pid_, SIGSTOP); }
  void Resume() const { kill(pid_, SIGCONT); }

  // A command, past any tier. A string is in the reply's text.
  RedisReply Ask(std::initializer_list<std::string_view> words) const { return Ask(words, options()); }
  RedisReply Ask(std::initializer_list<std::string_view> words, const RedisTierOptions& options) const {
    const auto deadline = RedisConnection::Clock::now() + std::chrono::seconds(10);
    auto connection = RedisConnection::Open({"127.0.0.1", port_}, options, deadline);
    if (!connection) return {RedisReply::Kind::kNone, connection.error().message};
    std::vector<std::byte> room(100'000);
    RedisCommand command = MakeCommand(words, RedisReply::Kind::kNone, room);
    (*connection)->Begin({&command});
    RedisConnection* const connections[] = {connection->get()};
    RunCommands(connections, deadline);
    const bool is_string = command.reply.kind == RedisReply::Kind::kString;
    if (is_string) command.reply.text.assign(reinterpret_cast<char*>(room.data()), command.reply.num_bytes);
    return command.reply;
  }

 private:
  static std::string Program() {
    const std::string path = std::getenv("PATH") ? std::getenv("PATH") : "";
    for (size_t begin = 0; begin < path.size();) {
      const size_t end = std::min(path.find(':', begin), path.size());
      const std::string program = path.substr(begin, end - begin) + "/redis-server";
      if (access(program.c_str(), X_OK) == 0) return program;
      begin = end + 1;
    }
    const char* valkey = std::getenv("KVIST_VALKEY_SERVER");
    return valkey && access(valkey, X_OK) == 0 ? valkey : "";
  }

  [[noreturn]] void Exec() const {
    prctl(PR_SET_PDEATHSIG, SIGKILL);  // it ends with the test, even if that crashes
    const int nowhere = open("/dev/null", O_RDWR);
    for (const int fd : {0, 1, 2}) dup2(nowhere, fd);
    const std::string program = Program();
    std::vector<std::string> words = {program,       "--port", std::to_string(port_), "--bind", "127.0.0.1",
                                      "--save",      "",       "--appendonly",        "no",     "--dir",
                                      folder_.path()};
    words.insert(words.end(), arguments_.begin(), arguments_.end());
    std::vector<char*> pointers;
    for (std::string& word : words) pointers.push_back(word.data());
    pointers.push_back(nullptr);
    execv(program.c_str(), pointers.data());
    _exit(127);
  }

  const TestFolder folder_;
  const std::vector<std::string> arguments_;
  int port_ = 0;
  pid_t pid_ = -1;
};

}  // namespace kvist
