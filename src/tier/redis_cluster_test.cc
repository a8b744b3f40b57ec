// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "tier/redis_cluster.h"

#include <doctest/doctest.h>

#include "tier/redis_fake_server.h"

namespace kvist::redis_cluster_test {
namespace {

using namespace std::chrono_literals;
const RedisAddress kFrom{"10.1.1.1", 7000};

RedisTierOptions OptionsOf(const RedisFakeServer& server) {
  RedisTierOptions options;
  options.port = server.port();
  options.timeout = options.connect_timeout = 10s;
  return options;
}

// What the tier finds of a record.
bool Holds(RedisTier& tier, const TestRecord& record) {
  std::vector<std::byte> payload(record.payload.size());
  TierRead read{.key = record.key, .payload = payload, .payload_offset = 0, .wants_header = true, .header = {}};
  tier.Read({&read, 1});
  return read.is_hit && payload == record.payload && read.header == record.header;
}

TEST_CASE("Redis cluster: slots of keys") {
  CHECK(RedisSlot("123456789") == 0x31C3);  // the check value of CRC-16/XMODEM
  CHECK(RedisSlot("foo") == 12182);         // as redis-server says
  CHECK(RedisSlot("") == 0);
  CHECK(RedisSlot("{user1000}.following") == RedisSlot("user1000"));
  CHECK(RedisSlot("foo{}{bar}") == 8363);  // an empty pair counts as none
  CHECK(RedisSlot("foo{{bar}}zap") == RedisSlot("{bar"));
  CHECK(RedisSlot("foo{bar}{zap}") == RedisSlot("bar"));
  CHECK(RedisSlot("foo}bar{") == 11073);
}

TEST_CASE("Redis cluster: redirects are parsed, and nothing else is taken for one") {
  const auto moved = ParseRedirect("MOVED 3999 127.0.0.1:6381", kFrom);
  REQUIRE(moved);
  CHECK_FALSE(moved->is_ask);
  CHECK(moved->slot == 3999);
  CHECK(moved->address == RedisAddress{"127.0.0.1", 6381});
  CHECK(ParseRedirect("ASK 0 host.example:1", kFrom)->is_ask);
  CHECK(ParseRedirect("MOVED 1 ::1:6381", kFrom)->address == RedisAddress{"::1", 6381});
  CHECK(ParseRedirect("MOVED 1 :6381", kFrom)->address == RedisAddress{"10.1.1.1", 6381});
  CHECK(ParseRedirect("MOVED 1 ?:6381", kFrom)->address == RedisAddress{"10.1.1.1", 6381});
  for (const char* text : {"", "MOVED", "MOVED ", "MOVED 1", "MOVED 1 ", "MOVED 16384 a:1", "MOVED -1 a:1",
                           "MOVED x a:1", "MOVED 1 a", "MOVED 1 a:", "MOVED 1 a:0", "MOVED 1 a:65536", "MOVED 1 a:1 ",
                           "MOVEDX 1 a:1", "ERR MOVED 1 a:1", "moved 1 a:1"}) {
    CHECK_MESSAGE(!ParseRedirect(text, kFrom), text);
  }
}

TEST_CASE("Redis cluster: the list of nodes is parsed, and lines that make no sense are left out") {
  const auto ranges = ParseClusterNodes(
      "07c3 127.0.0.1:30004@31004,hostname4 slave e7d1 0 1426238317239 4 connected\n"
      "67ed 127.0.0.1:30002@31002 master - 0 1426238316232 2 connected 5461-10922 [93-<-292f] [77->-e7d1]\n"
      "e7d1 :30001@31001 myself,master - 0 0 1 connected 0-5460 16383 x 20000 7-\n"
      "nonsense\n\n 1 2 3 4 5 6 7 8 9\n"
      "292f ::1:30003 master - 0 1426238318243 3 connected 10923",
      kFrom);
  REQUIRE(ranges.size() >= 4);
  CHECK(ranges[0].address == RedisAddress{"127.0.0.1", 30002});
  CHECK(ranges[0].first == 5461);
  CHECK(ranges[0].last == 10922);
  CHECK(ranges[1].address == RedisAddress{"10.1.1.1", 30001});
  CHECK(ranges[1].last == 5460);
  CHECK(ranges[2].first == 16383);
  CHECK(ranges[2].last == 16383);
  CHECK(ranges.back().address == RedisAddress{"::1", 30003});
  CHECK(ranges.back().first == 10923);
}

TEST_CASE("Redis cluster: MOVED leads to the right server, and is remembered") {
  if (!RedisTestServer::IsThere()) return;
  const RedisTestServer server;
  const RedisFakeServer redirecting([&](const RedisFakeServer::Command& command) -> RedisFakeServer::Answer {
    if (command[0] == "CLUSTER") return {"-ERR unknown\r\n"};
    return {"-MOVED " + std::to_string(RedisSlot(command[1])) + " 127.0.0.1:" + std::to_string(server.port()) + "\r\n"};
  });
  const auto tier = RedisTier::Open(OptionsOf(redirecting)).value();
  const TestRecord record = MakeTestRecord(1, 0, 700'000);
  CHECK(WriteTestRecords(*tier, {record}) == 1);
  const size_t num_before = redirecting.commands().size();
  CHECK(num_before == 2);  // SET, CLUSTER NODES
  CHECK(Holds(*tier, record));
  CHECK(WriteTestRecords(*tier, {record}) == 1);
  CHECK(redirecting.commands().size() == num_before);
  CHECK(WriteTestRecords(*tier, {MakeTestRecord(2)}) == 1);
  CHECK(redirecting.commands().size() > num_before);  // another slot
  CHECK(tier->stats().num_failures == 0);
}

TEST_CASE("Redis cluster: the list of nodes spares redirects of other slots") {
  if (!RedisTestServer::IsThere()) return;
  const RedisTestServer server;
  const std::string place = "127.0.0.1:" + std::to_string(server.port());
  const RedisFakeServer redirecting([&](const RedisFakeServer::Command& command) -> RedisFakeServer::Answer {
    const std::string nodes = "id " + place + "@1 master - 0 0 1 connected 0-16383\n";
    if (command[0] == "CLUSTER") return {"$" + std::to_string(nodes.size()) + "\r\n" + nodes + "\r\n"};
    return {"-MOVED " + std::to_string(RedisSlot(command[1])) + " " + place + "\r\n"};
  });
  const auto tier = RedisTier::Open(OptionsOf(redirecting)).value();
  for (uint64_t number = 0; number < 20; ++number) CHECK(WriteTestRecords(*tier, {MakeTestRecord(number)}) == 1);
  CHECK(redirecting.commands().size() == 2);
}

TEST_CASE("Redis cluster: ASK is followed once, with ASKING before each command") {
  if (!HasRedis()) return;
  const RedisFakeServer importing([&](const RedisFakeServer::Command& command) -> RedisFakeServer::Answer {
    if (command[0] == "EXISTS") return {":1\r\n"};
    return {"+OK\r\n"};
  });
  const RedisFakeServer migrating([&](const RedisFakeServer::Command& command) -> RedisFakeServer::Answer {
    return {"-ASK " + std::to_string(RedisSlot(command[1])) + " " + importing.place() + "\r\n"};
  });
  const auto tier = RedisTier::Open(OptionsOf(migrating)).value();
  const RecordKey keys[] = {TestKey(1), TestKey(2)};
  for (int i = 1; i <= 2; ++i) {
    CHECK(tier->Contains(keys) == std::vector{true, true});
    CHECK(migrating.commands().size() == size_t(2 * i));  // asked again each time
  }
  const auto commands = importing.commands();
  REQUIRE(commands.size() == 8);
  for (size_t i = 0; i < commands.size(); ++i) CHECK(commands[i][0] == (i % 2 == 0 ? "ASKING" : "EXISTS"));
}

TEST_CASE("Redis cluster: redirects without end are given up") {
  if (!HasRedis()) return;
  std::string places[2];
  const auto answer_with = [&](int other) {
    return [&places, other](const RedisFakeServer::Command& command) -> RedisFakeServer::Answer {
      if (command[0] == "CLUSTER") return {"-ERR\r\n"};
      return {"-MOVED " + std::to_string(RedisSlot(command[1])) + " " + places[other] + "\r\n"};
    };
  };
  const RedisFakeServer first(answer_with(1)), second(answer_with(0));
  places[0] = first.place();
  places[1] = second.place();
  const auto tier = RedisTier::Open(OptionsOf(first)).value();
  const RecordKey key = TestKey(1);
  CHECK(tier->Contains({&key, 1}) == std::vector{false});
  CHECK(first.commands().size() + second.commands().size() == 7);  // six attempts, CLUSTER NODES once
  CHECK(tier->stats().num_failures == 1);
}

TEST_CASE("Redis cluster: a server that was redirected to and dies is forgotten") {
  if (!HasRedis()) return;
  auto replaced = std::make_unique<RedisFakeServer>([](auto&) -> RedisFakeServer::Answer { return {":1\r\n"}; });
  const RedisFakeServer replacement([](auto&) -> RedisFakeServer::Answer { return {":1\r\n"}; });
  std::string place = replaced->place();
  std::mutex mutex;
  const RedisFakeServer redirecting([&](const RedisFakeServer::Command& command) -> RedisFakeServer::Answer {
    const std::lock_guard lock(mutex);
    if (command[0] == "CLUSTER") return {"-ERR\r\n"};
    return {"-MOVED " + std::to_string(RedisSlot(command[1])) + " " + place + "\r\n"};
  });
  const auto tier = RedisTier::Open(OptionsOf(redirecting)).value();
  const RecordKey key = TestKey(1);
  CHECK(tier->Contains({&key, 1}) == std::vector{true});
  replaced.reset();
  {
    const std::lock_guard lock(mutex);
    place = replacement.place();
  }
  CHECK(tier->Contains({&key, 1}) == std::vector{false});
  CHECK(tier->Contains({&key, 1}) == std::vector{true});
  CHECK(tier->stats().num_failures == 1);
}

// Ends with the port that the servers of a cluster talk to each other on.
std::vector<std::string> ClusterArguments() {
  const int listener = ListenOnLoopback(0);
  const std::string port = std::to_string(PortOf(listener));
  close(listener);
  return {"--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", port};
}

TEST_CASE("Redis cluster: three servers, and a slot that moves while it is used") {
  if (!RedisTestServer::IsThere()) return;
  const RedisTestServer servers[3] = {ClusterArguments(), ClusterArguments(), ClusterArguments()};
  const std::string ports[3] = {std::to_string(servers[0].port()), std::to_string(servers[1].port()),
                                std::to_string(servers[2].port())};
  servers[0].Ask({"CLUSTER", "ADDSLOTSRANGE", "0", "5460"});
  servers[1].Ask({"CLUSTER", "ADDSLOTSRANGE", "5461", "10922"});
  servers[2].Ask({"CLUSTER", "ADDSLOTSRANGE", "10923", "16383"});
  for (int i : {0, 1, 2}) servers[i].Ask({"CLUSTER", "SET-CONFIG-EPOCH", std::to_string(i + 1)});
  for (const auto& [from, to] : {std::pair(0, 1), std::pair(0, 2), std::pair(1, 2)}) {
    CHECK(servers[from].Ask({"CLUSTER", "MEET", "127.0.0.1", ports[to], servers[to].arguments().back()}).text == "OK");
  }
  const auto is_ready = [](const RedisTestServer& server) {
    const std::string info = server.Ask({"CLUSTER", "INFO"}).text;
    return info.find("cluster_state:ok") != info.npos && info.find("cluster_known_nodes:3") != info.npos;
  };
  const auto end = std::chrono::steady_clock::now() + 30s;
  while (!is_ready(servers[0]) || !is_ready(servers[1]) || !is_ready(servers[2])) {
    REQUIRE(std::chrono::steady_clock::now() < end);
    std::this_thread::sleep_for(20ms);
  }
  for (const std::string key :
       {"", "foo", "foo}bar{", "{}a", "a{b}c{d}", "a{{b}}c", "kvist:00000000000000000000000000000001"}) {
    CHECK(servers[0].Ask({"CLUSTER", "KEYSLOT", key}).integer == RedisSlot(key));
  }

  const auto tier = RedisTier::Open(servers[1].options()).value();
  std::vector<TestRecord> records;
  for (uint64_t number = 0; number < 60; ++number) records.push_back(MakeTestRecord(number, 0, 20'000));
  CHECK(WriteTestRecords(*tier, records) == records.size());
  for (const TestRecord& record : records) CHECK(Holds(*tier, record));
  for (const RedisTestServer& server : servers) CHECK(server.Ask({"DBSIZE"}).integer > 5);

  // The slot of a record of the first server begins to move to the third one: what is not there any more is asked
  // there.
  const auto moving = std::ranges::find_if(
      records, [](const TestRecord& record) { return RedisSlot("kvist:" + RecordKeyName(record.key)) < 5461; });
  REQUIRE(moving != records.end());
  const std::string key = "kvist:" + RecordKeyName(moving->key), slot = std::to_string(RedisSlot(key));
  const std::string id_0 = servers[0].Ask({"CLUSTER", "MYID"}).text, id_2 = servers[2].Ask({"CLUSTER", "MYID"}).text;
  CHECK(servers[2].Ask({"CLUSTER", "SETSLOT", slot, "IMPORTING", id_0}).text == "OK");
  CHECK(servers[0].Ask({"CLUSTER", "SETSLOT", slot, "MIGRATING", id_2}).text == "OK");
  CHECK(Holds(*tier, *moving));
  CHECK(servers[0].Ask({"MIGRATE", "127.0.0.1", ports[2], key, "0", "5000"}).text == "OK");
  CHECK(Holds(*tier, *moving));
  moving->payload[0] ^= std::byte{1};
  CHECK(WriteTestRecords(*tier, {*moving}) == 1);
  CHECK(Holds(*tier, *moving));
  for (const auto& server : {&servers[2], &servers[0]}) {
    CHECK(server->Ask({"CLUSTER", "SETSLOT", slot, "NODE", id_2}).text == "OK");
  }
  CHECK(Holds(*tier, *moving));
  CHECK(tier->stats().num_failures == 0);
  CHECK(tier->stats().num_misses == 0);
}

}  // namespace
}  // namespace kvist::redis_cluster_test
