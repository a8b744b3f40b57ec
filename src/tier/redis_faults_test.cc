// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
// The Redis tier with a peer that answers nonsense, or does not answer.
#include <doctest/doctest.h>

#include <random>

#include "tier/redis_fake_server.h"
#include "tier/redis_tier.h"

namespace kvist::redis_faults_test {
namespace {

using namespace std::chrono_literals;
using Answer = RedisFakeServer::Answer;
using Clock = std::chrono::steady_clock;

RedisTierOptions OptionsOf(const RedisFakeServer& server) {
  RedisTierOptions options;
  options.port = server.port();
  options.connect_timeout = 10s;
  options.timeout = 60ms;
  options.failures_to_rest = 1000;
  return options;
}

std::unique_ptr<RedisTier> Open(const RedisTierOptions& options) {
  return std::move(RedisTier::Open(options).value());
}

bool Contains(RedisTier& tier) {
  const RecordKey key = TestKey(1);
  return tier.Contains({&key, 1})[0];
}

std::vector<Answer> Nonsense() {
  std::vector<Answer> answers = {
      {"", true},
      {"", false},
      {"\r\n", false},
      {"OK\r\n", false},
      {"$999999999999\r\n", false},
      {"$-5\r\n", false},
      {"$9\r\nabc", true},
      {"$9\r\nabc", false},
      {"$1\r\nabc\r\n", false},
      {"+OK", true},
      {":1:", false},
      {"*1000000000\r\n", false},
      {"*2\r\n*2\r\n*2\r\n", false},
      {"+OK\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n", false},
      {std::string(100'000, 'x'), false, true},
      {"$999999999999\r\n" + std::string(100'000, 'x'), false, true},
      {"+OK\r\n", false, true},
      {"-ERR\r\n", false, true},
      {"-MOVED 0 127.0.0.1:1\r\n", false},
      {"-MOVED 99999 127.0.0.1:1\r\n", false},
      {"-ASK x\r\n", false},
  };
  std::mt19937 random(3);
  for (int i = 0; i < 20; ++i) {
    std::string bytes(1 + random() % 300, '\0');
    for (char& byte : bytes) byte = char(random());
    answers.push_back({bytes, true});
    answers.push_back({"$" + bytes, true});
  }
  return answers;
}

TEST_CASE("Redis faults: nonsense is a miss or a declined write, in time, and then all is well again") {
  if (!HasRedis()) return;
  std::atomic<bool> is_sane = false;
  Answer nonsense;
  const RedisFakeServer server([&](const RedisFakeServer::Command&) { return is_sane ? Answer{":1\r\n"} : nonsense; });
  for (const Answer& answer : Nonsense()) {
    CAPTURE(answer.bytes.substr(0, 100));
    CAPTURE(answer.closes);
    nonsense = answer;
    is_sane = false;
    const auto tier = Open(OptionsOf(server));
    const auto begin = Clock::now();
    CHECK_FALSE(Contains(*tier));
    CHECK(ReadTestRecord(*tier, 1) == TestReading::kMiss);
    CHECK(ReadTestRecord(*tier, 1, 0) == TestReading::kMiss);
    const bool is_ok = answer.bytes.starts_with("+OK\r\n");  // what else is a server to say?
    CHECK(WriteTestRecords(*tier, {MakeTestRecord(1)}) == (is_ok ? 1 : 0));
    CHECK(Clock::now() - begin < 3s);
    CHECK(tier->stats().num_misses == 2);
    CHECK(tier->stats().num_hits == 0);
    CHECK(tier->stats().num_failures >= 1);
    is_sane = true;
    const auto end = Clock::now() + 2s;  // what is left of the nonsense may still arrive
    while (Clock::now() < end && !Contains(*tier)) continue;
    CHECK(Contains(*tier));
  }
}

TEST_CASE("Redis faults: of what was answered before it broke, each record counts") {
  if (!HasRedis()) return;
  int num_answers = 0;
  const RedisFakeServer server([&](const RedisFakeServer::Command&) -> Answer {
    return ++num_answers == 4 ? Answer{"nonsense\r\n"} : Answer{"+OK\r\n"};
  });
  const auto tier = Open(OptionsOf(server));
  std::vector<TestRecord> records;
  for (uint64_t number = 0; number < 10; ++number) records.push_back(MakeTestRecord(number));
  CHECK(WriteTestRecords(*tier, records) == 3);
  CHECK(tier->stats().num_declined == 7);
  CHECK(tier->stats().num_written == 3);
}

TEST_CASE("Redis faults: all commands of a call are sent before the first answer") {
  if (!HasRedis()) return;
  int num_commands = 0;
  const RedisFakeServer server([&](const RedisFakeServer::Command&) -> Answer {
    if (++num_commands < 500) return {""};
    std::string answers;
    for (int i = 0; i < 500; ++i) answers += i % 2 == 0 ? ":1\r\n" : ":0\r\n";
    return {answers};
  });
  RedisTierOptions options = OptionsOf(server);
  options.timeout = 10s;
  std::vector<RecordKey> keys;
  for (uint64_t number = 0; number < 500; ++number) keys.push_back(TestKey(number));
  const std::vector<bool> is_held = Open(options)->Contains(keys);
  bool is_right = true;
  for (size_t i = 0; i < keys.size(); ++i) is_right &= is_held[i] == (i % 2 == 0);
  CHECK(is_right);
  CHECK(server.num_connections() == 1);
}

TEST_CASE("Redis faults: a peer that goes away while it is written to raises no signal") {
  if (!HasRedis()) return;
  const RedisFakeServer server([](const RedisFakeServer::Command&) -> Answer { return {"+OK\r\n", true}; });
  RedisTierOptions options = OptionsOf(server);
  options.database = 1;  // SELECT is answered, then the connection is closed
  options.timeout = 10s;
  const auto tier = Open(options);
  for (int i = 0; i < 5; ++i) CHECK(WriteTestRecords(*tier, {MakeTestRecord(1, 0, 8'000'000)}) == 0);
  CHECK(tier->stats().num_failures == 5);
}

TEST_CASE("Redis faults: the time-out grows with what is transferred") {
  if (!HasRedis()) return;
  const RedisFakeServer server([](const RedisFakeServer::Command&) -> Answer { return {""}; });
  RedisTierOptions options = OptionsOf(server);
  options.timeout = 50ms;
  const auto tier = Open(options);
  const auto begin = Clock::now();
  CHECK(WriteTestRecords(*tier, {MakeTestRecord(1, 0, 20'000'000)}) == 0);
  const auto took = Clock::now() - begin;
  CHECK(took >= 250ms);
  CHECK(took < 3s);
}

TEST_CASE("Redis faults: after failures in a row the peer is left alone, then one call tries") {
  if (!HasRedis()) return;
  std::atomic<bool> is_sane = false;
  const RedisFakeServer server([&](auto&) { return is_sane ? Answer{":1\r\n"} : Answer{"nonsense\r\n"}; });
  RedisTierOptions options = OptionsOf(server);
  options.failures_to_rest = 3;
  options.rest = 100ms;
  options.timeout = 10s;
  const auto tier = Open(options);
  for (int i = 0; i < 20; ++i) CHECK_FALSE(Contains(*tier));
  CHECK(server.num_connections() == 3);
  CHECK(tier->stats().num_failures == 3);
  std::this_thread::sleep_for(options.rest);
  for (int i = 0; i < 20; ++i) CHECK_FALSE(Contains(*tier));
  CHECK(server.num_connections() == 4);
  is_sane = true;
  std::this_thread::sleep_for(options.rest);
  for (int i = 0; i < 20; ++i) CHECK(Contains(*tier));
  CHECK(server.num_connections() == 5);
}

TEST_CASE("Redis faults: nobody answers the connection") {
  if (!HasRedis()) return;
  // A listener whose queue is full does not answer further connections.
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  REQUIRE(bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  REQUIRE(listen(listener, 0) == 0);
  std::vector<int> waiting;
  socklen_t size = sizeof address;
  REQUIRE(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  for (int i = 0; i < 4; ++i) {
    waiting.push_back(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    connect(waiting.back(), reinterpret_cast<sockaddr*>(&address), sizeof address);
  }
  RedisTierOptions options;
  options.port = ntohs(address.sin_port);
  options.connect_timeout = 80ms;
  options.timeout = 10s;
  const auto tier = Open(options);
  const auto begin = Clock::now();
  CHECK_FALSE(Contains(*tier));
  const auto took = Clock::now() - begin;
  CHECK(took >= 80ms);
  CHECK(took < 2s);
  for (const int fd : waiting) close(fd);
  close(listener);
}

TEST_CASE("Redis faults: a name that can't be resolved, a port where nobody listens") {
  if (!HasRedis()) return;
  RedisTierOptions options;
  options.host = "no such host";
  const auto nameless = Open(options);
  CHECK_FALSE(Contains(*nameless));
  CHECK(nameless->stats().num_failures == 1);
  options.host = "localhost";
  const int listener = ListenOnLoopback(0);
  options.port = PortOf(listener);
  close(listener);
  CHECK_FALSE(Contains(*Open(options)));
}

}  // namespace
}  // namespace kvist::redis_faults_test
