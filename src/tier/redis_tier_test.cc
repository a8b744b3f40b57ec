// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "tier/redis_tier.h"

#include <doctest/doctest.h>

#include <atomic>

#include "tier/bytes.h"
#include "tier/redis_test_server.h"

namespace kvist::redis_tier_test {
namespace {

using namespace std::chrono_literals;
using enum TestReading;

std::string KeyName(uint64_t number, const std::string& prefix = "kvist:") {
  return prefix + RecordKeyName(TestKey(number));
}

bool WriteOne(RedisTier& tier, uint64_t number) {
  return WriteTestRecords(tier, {MakeTestRecord(number)}) == 1;
}

bool Contains(RedisTier& tier, uint64_t number) {
  const RecordKey key = TestKey(number);
  return tier.Contains({&key, 1})[0];
}

std::unique_ptr<RedisTier> Open(const RedisTierOptions& options) {
  return std::move(RedisTier::Open(options).value());
}

TEST_CASE("Redis tier: options out of range are told") {
  const auto fails = [](auto change) {
    RedisTierOptions options;
    change(options);
    const auto tier = RedisTier::Open(options);
    return !tier && tier.error().code == ErrorCode::kInvalidArgument;
  };
  CHECK(fails([](auto& options) { options.host = ""; }));
  CHECK(fails([](auto& options) { options.port = 0; }));
  CHECK(fails([](auto& options) { options.port = 65536; }));
  CHECK(fails([](auto& options) { options.database = -1; }));
  CHECK(fails([](auto& options) { options.ttl = -1s; }));
  CHECK(fails([](auto& options) { options.connect_timeout = 0ms; }));
  CHECK(fails([](auto& options) { options.timeout = 0ms; }));
  CHECK(fails([](auto& options) { options.failures_to_rest = 0; }));
  CHECK(fails([](auto& options) { options.rest = -1ms; }));
  CHECK_FALSE(fails([](auto&) {}));
}

TEST_CASE("Redis tier: without TLS in this build it is refused, not left out") {
  RedisTierOptions options;
  options.uses_tls = true;
  const auto tier = RedisTier::Open(options);
  CHECK(tier.has_value() == HasRedisTls());
  if (!tier) CHECK(tier.error().code == ErrorCode::kUnsupported);
}

TEST_CASE("Redis tier: a record is one value: payload, header, and both lengths; it lives as long as it is used") {
  if (!RedisTestServer::IsThere()) return;
  const RedisTestServer server;
  RedisTierOptions options = server.options();
  options.prefix = "a prefix\r\n";
  options.ttl = 1000s;
  const auto tier = Open(options);
  const std::string key = KeyName(1, options.prefix);
  const TestRecord record = MakeTestRecord(1);
  CHECK(WriteTestRecords(*tier, {record}) == 1);
  ByteWriter value;
  value.Bytes(record.payload);
  value.Bytes(record.header);
  value.Number(uint64_t(record.payload.size()));
  value.Number(uint64_t(record.header.size()));
  const std::string stored = server.Ask({"GET", key}).text;
  CHECK(std::ranges::equal(std::as_bytes(std::span(stored)), value.bytes()));
  CHECK(server.Ask({"DBSIZE"}).integer == 1);

  CHECK(server.Ask({"TTL", key}).integer > 900);
  server.Ask({"EXPIRE", key, "100"});
  CHECK(ReadTestRecord(*tier, 1) == kRight);
  CHECK(server.Ask({"TTL", key}).integer > 900);
  options.ttl = 0s;
  CHECK(WriteOne(*Open(options), 1));
  CHECK(server.Ask({"TTL", key}).integer == -1);  // none
  CHECK(ReadTestRecord(*Open(options), 1) == kRight);
  CHECK(server.Ask({"TTL", key}).integer == -1);
}

TEST_CASE("Redis tier: passwords, users and databases") {
  if (!RedisTestServer::IsThere()) return;
  const RedisTestServer server;
  server.Ask({"ACL", "SETUSER", "kvist", "on", ">its word", "~kvist:*", "+@all", "-@dangerous"});
  const auto works = [&](auto change) {
    RedisTierOptions options = server.options();
    change(options);
    const auto tier = Open(options);
    const bool is_written = WriteOne(*tier, 1), is_read = ReadTestRecord(*tier, 1) == kRight;
    CHECK(is_written == is_read);
    CHECK(tier->stats().num_failures == (is_written ? 0 : 2));
    return is_written;
  };
  const auto as_user = [](RedisTierOptions& options) { options.user = "kvist", options.password = "its word"; };
  CHECK(works([](auto&) {}));
  CHECK(works(as_user));
  CHECK_FALSE(works([&](auto& options) { as_user(options), options.password = "another"; }));
  CHECK_FALSE(works([&](auto& options) { as_user(options), options.prefix = "not:allowed:"; }));
  CHECK_FALSE(works([](auto& options) { options.user = "nobody"; }));

  CHECK(works([](auto& options) { options.database = 3; }));
  RedisTierOptions third = server.options();
  third.database = 3;
  CHECK(server.Ask({"EXISTS", KeyName(1)}, third).integer == 1);
  CHECK_FALSE(works([](auto& options) { options.database = 1000; }));

  server.Ask({"CONFIG", "SET", "requirepass", "open sesame"});
  CHECK(works([](auto& options) { options.password = "open sesame"; }));
  CHECK(works([](auto& options) { options.password = "open sesame", options.database = 3; }));
  CHECK_FALSE(works([](auto&) {}));
  CHECK_FALSE(works([](auto& options) { options.password = "sesame"; }));

  // The server is left alone after some refusals, and the reason is told.
  RedisTierOptions wrong = server.options();
  wrong.password = "sesame";
  const auto tier = Open(wrong);
  for (int i = 0; i < 20; ++i) CHECK_FALSE(WriteOne(*tier, 1));
  CHECK(tier->stats().num_failures == uint64_t(wrong.failures_to_rest));
  CHECK(tier->stats().last_failure.contains("refused the log-in"));
}

TEST_CASE("Redis tier: values of others under its keys are misses") {
  if (!RedisTestServer::IsThere()) return;
  const RedisTestServer server;
  const auto tier = Open(server.options());
  server.Ask({"LPUSH", KeyName(0), "a", "b"});
  server.Ask({"SET", KeyName(1), ""});
  server.Ask({"SET", KeyName(2), "short"});
  server.Ask({"SET", KeyName(3), std::string(5500, 'x')});
  server.Ask({"SET", KeyName(4), std::string(5500, '\xff')});
  server.Ask({"SET", KeyName(5), std::string(5500, '\0')});
  // Lengths that fit what is asked for, but not the value; a header that would be too large.
  ByteWriter lengths[2];
  lengths[0].Number(uint64_t{5000}), lengths[0].Number(uint64_t{300});
  lengths[1].Number(uint64_t{5000}), lengths[1].Number(uint64_t{100'000});
  for (uint64_t i : {0, 1}) {
    const auto bytes = lengths[i].bytes();
    const std::string trailer(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    server.Ask({"SET", KeyName(6 + i), trailer});
    server.Ask({"SET", KeyName(8 + i), std::string(i == 0 ? 2000 : 90'000, 'y') + trailer});
  }
  for (uint64_t number = 0; number < 10; ++number) {
    CAPTURE(number);
    CHECK(ReadTestRecord(*tier, number) == kMiss);
  }
  CHECK(tier->stats().num_failures == 1);  // the list: an error of the server
  CHECK(WriteOne(*tier, 0));
  CHECK(ReadTestRecord(*tier, 0) == kRight);
}

TEST_CASE("Redis tier: a full server declines and goes on serving what it has") {
  if (!RedisTestServer::IsThere()) return;
  const RedisTestServer server({"--maxmemory-policy", "noeviction"});
  RedisTierOptions options = server.options();
  options.failures_to_rest = 1;  // it isn't one of these
  const auto tier = Open(options);
  CHECK(WriteOne(*tier, 1));
  server.Ask({"CONFIG", "SET", "maxmemory", "1"});
  const TestRecord big = MakeTestRecord(2, 0, 3'000'000);
  for (int i = 0; i < 5; ++i) CHECK(WriteTestRecords(*tier, {big, MakeTestRecord(3)}) == 0);
  CHECK(ReadTestRecord(*tier, 1) == kRight);
  CHECK(tier->stats().num_declined == 10);
  CHECK(tier->stats().num_failures == 5);
  server.Ask({"CONFIG", "SET", "maxmemory", "0"});
  CHECK(WriteTestRecords(*tier, {big}) == 1);
}

TEST_CASE("Redis tier: headers are completed before they are sent, also where a value does not go at once") {
  if (!RedisTestServer::IsThere()) return;
  const RedisTestServer server;
  const auto tier = Open(server.options());
  std::vector<TestRecord> records;
  for (uint64_t number = 0; number < 40; ++number) {
    records.push_back(MakeTestRecord(number, 0, number % 2 == 0 ? 3'000'000 : 5000));
  }
  CHECK(WriteIncompleteTestRecords(*tier, std::move(records)) == 40);
  for (uint64_t number = 0; number < 40; ++number) {
    CAPTURE(number);
    CHECK(ReadTestRecord(*tier, number, number % 2 == 0 ? 3'000'000 : 5000) == kRight);
  }
}

TEST_CASE("Redis tier: records too large for Redis are declined without asking it") {
  if (!RedisTestServer::IsThere()) return;
  const RedisTestServer server;
  const auto tier = Open(server.options());
  const std::vector<std::byte> header(100'000);
  const std::byte byte{};
  const std::span<const std::byte> payload(&byte, size_t{512} << 20);  // never looked at
  CHECK(tier->Write(std::vector<TierWrite>{{TestKey(1), {}, payload}, {TestKey(2), header, {&byte, 1}}}) == 0);
  CHECK(tier->stats().num_declined == 2);
  CHECK(tier->stats().num_failures == 0);
}

TEST_CASE("Redis tier: a server that is killed and comes back") {
  if (!RedisTestServer::IsThere()) return;
  RedisTestServer server;
  server.Kill();
  RedisTierOptions options = server.options();
  options.rest = 50ms;
  const auto tier = Open(options);  // nothing is there yet
  for (int i = 0; i < 6; ++i) {
    CHECK_FALSE(WriteOne(*tier, 1));
    CHECK(ReadTestRecord(*tier, 1) == kMiss);
    CHECK_FALSE(Contains(*tier, 1));
  }
  const TierStats stats = tier->stats();
  CHECK(stats.num_failures >= 3);
  CHECK(stats.num_failures < 18);  // it rested, too
  CHECK(stats.num_declined == 6);
  CHECK(stats.num_misses == 6);
  for (int i = 0; i < 2; ++i) {
    server.Start();
    std::this_thread::sleep_for(options.rest);
    CHECK(WriteOne(*tier, 1));
    CHECK(ReadTestRecord(*tier, 1) == kRight);
    server.Kill();
    CHECK(ReadTestRecord(*tier, 1) == kMiss);
  }
}

TEST_CASE("Redis tier: connections that the server closed while they were idle are replaced, which is no failure") {
  if (!RedisTestServer::IsThere()) return;
  const RedisTestServer server;
  const auto tier = Open(server.options());
  for (int i = 0; i < 3; ++i) {
    CHECK(WriteOne(*tier, 1));
    CHECK(ReadTestRecord(*tier, 1) == kRight);
    CHECK(server.Ask({"CLIENT", "KILL", "TYPE", "normal"}).integer == 1);
  }
  CHECK(tier->stats().num_failures == 0);
}

TEST_CASE("Redis tier: a server that stalls costs its time-outs, and works again when it goes on") {
  if (!RedisTestServer::IsThere()) return;
  const RedisTestServer server;
  RedisTierOptions options = server.options();
  options.timeout = options.connect_timeout = 100ms;
  options.failures_to_rest = 2;
  options.rest = 100ms;
  const auto tier = Open(options);
  CHECK(WriteOne(*tier, 1));
  server.Pause();
  const auto begin = std::chrono::steady_clock::now();
  CHECK(ReadTestRecord(*tier, 1) == kMiss);
  CHECK(std::chrono::steady_clock::now() - begin >= 100ms);
  CHECK_FALSE(WriteOne(*tier, 2));
  for (int i = 0; i < 100; ++i) CHECK(ReadTestRecord(*tier, 1) == kMiss);  // it rests
  CHECK(std::chrono::steady_clock::now() - begin < 2s);
  server.Resume();
  std::this_thread::sleep_for(options.rest);
  CHECK(ReadTestRecord(*tier, 1) == kRight);
}

TEST_CASE("Redis tier: many calls at once share four connections") {
  if (!RedisTestServer::IsThere()) return;
  const RedisTestServer server;
  const auto tier = Open(server.options());
  std::atomic<int> num_wrong = 0;
  std::vector<std::thread> threads;
  for (uint64_t thread = 0; thread < 12; ++thread) {
    threads.emplace_back([&, thread] {
      for (int i = 0; i < 20; ++i) num_wrong += !WriteOne(*tier, thread) || ReadTestRecord(*tier, thread) != kRight;
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(num_wrong == 0);
  CHECK(server.Ask({"CLIENT", "KILL", "TYPE", "normal"}).integer <= 4);
  const std::string info = server.Ask({"INFO", "stats"}).text;
  const std::string field = "total_connections_received:";
  // Those of the tier, of this test and of waiting for the server.
  CHECK(std::stoi(info.substr(info.find(field) + field.size())) < 4 + 20);
}

}  // namespace
}  // namespace kvist::redis_tier_test
