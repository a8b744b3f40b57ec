// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <doctest/doctest.h>

#include <atomic>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "tier/tier.h"
#include "tier/tier_test_kit.h"

namespace kvist {

// What every Tier keeps to (src/tier/tier.h), for as long as its place works and has room.
// Call CheckTier from a test case of its own with a function that opens an empty tier.
using OpenEmptyTier = std::function<std::unique_ptr<Tier>()>;

namespace tier_conformance {

// One read, and the memory it is read into.
struct Reading {
  std::vector<std::byte> payload;
  TierRead read;
};

inline TierRead ReadOf(const RecordKey& key, std::span<std::byte> payload, size_t offset = 0,
                       bool wants_header = true) {
  return {.key = key, .payload = payload, .payload_offset = offset, .wants_header = wants_header, .header = {}};
}

inline Reading ReadPart(Tier& tier, const RecordKey& key, size_t offset, size_t num_bytes, bool wants_header = false) {
  Reading reading{std::vector<std::byte>(num_bytes), {}};
  reading.read = ReadOf(key, reading.payload, offset, wants_header);
  tier.Read({&reading.read, 1});
  return reading;
}

inline bool Holds(Tier& tier, const TestRecord& record) {
  const Reading reading = ReadPart(tier, record.key, 0, record.payload.size(), true);
  return reading.read.is_hit && reading.payload == record.payload && reading.read.header == record.header;
}

inline bool HoldsPart(Tier& tier, const TestRecord& record, size_t offset, size_t num_bytes) {
  for (const bool wants_header : {false, true}) {
    const Reading reading = ReadPart(tier, record.key, offset, num_bytes, wants_header);
    if (!reading.read.is_hit || reading.read.header != (wants_header ? record.header : std::vector<std::byte>())) {
      return false;
    }
    if (!std::equal(reading.payload.begin(), reading.payload.end(), record.payload.begin() + ptrdiff_t(offset))) {
      return false;
    }
  }
  return true;
}

inline bool Misses(Tier& tier, const RecordKey& key, size_t offset, size_t num_bytes) {
  return !ReadPart(tier, key, offset, num_bytes, false).read.is_hit &&
         !ReadPart(tier, key, offset, num_bytes, true).read.is_hit;
}

// With a header of so many bytes and more.
inline TestRecord WithLongHeader(TestRecord record, size_t header_bytes) {
  RecordHeader header = DecodeHeader(record.header).value();
  header.model.resize(header_bytes, 'm');
  record.header = EncodeHeader(header);
  return record;
}

inline void CheckRoundTrips(Tier& tier) {
  uint64_t number = 0;
  for (const size_t payload_bytes : {0, 1, 7, 4095, 4096, 4097, 100'000, 524'288, 1'048'577, 3'000'000}) {
    const TestRecord record = MakeTestRecord(++number, 0, payload_bytes);
    CHECK(WriteTestRecords(tier, {record}) == 1);
    CHECK_MESSAGE(Holds(tier, record), payload_bytes);
  }
  for (const size_t header_bytes : {3900, 4096, 10'000, 30'000}) {
    const TestRecord record = WithLongHeader(MakeTestRecord(++number), header_bytes);
    CHECK(WriteTestRecords(tier, {record}) == 1);
    CHECK_MESSAGE(Holds(tier, record), header_bytes);
    CHECK(Holds(tier, record));  // a tier may learn from the first time
  }
}

inline void CheckParts(Tier& tier) {
  const TestRecord record = MakeTestRecord(1, 0, 1'500'000);
  CHECK(WriteTestRecords(tier, {record}) == 1);
  CHECK(HoldsPart(tier, record, 0, 1));
  CHECK(HoldsPart(tier, record, 0, 1'000'000));
  CHECK(HoldsPart(tier, record, 1, 1'499'999));
  CHECK(HoldsPart(tier, record, 777'777, 3));
  CHECK(HoldsPart(tier, record, 4096, 4096));
  CHECK(HoldsPart(tier, record, 1'499'999, 1));
  CHECK(HoldsPart(tier, record, 500, 0));  // the header alone
  CHECK(HoldsPart(tier, record, 1'500'000, 0));
}

inline void CheckWrongSizes(Tier& tier) {
  const TestRecord record = MakeTestRecord(1, 0, 10'000), empty = MakeTestRecord(2, 0, 0);
  CHECK(WriteTestRecords(tier, {record, empty}) == 2);
  CHECK(Misses(tier, record.key, 0, 10'001));
  CHECK(Misses(tier, record.key, 9'999, 2));
  CHECK(Misses(tier, record.key, 10'000, 1));
  CHECK(Misses(tier, record.key, 10'001, 0));
  CHECK(Misses(tier, record.key, 0, 2'000'000));
  CHECK(Misses(tier, empty.key, 0, 1));
  for (const size_t offset : {SIZE_MAX, SIZE_MAX - 5, SIZE_MAX / 2, size_t{1} << 40}) {
    CHECK(Misses(tier, record.key, offset, 10));
  }
  CHECK(Holds(tier, record));
}

inline void CheckReplaced(Tier& tier) {
  uint64_t version = 0;
  for (const size_t payload_bytes : {5000, 5000, 100, 900'000, 0, 5000}) {
    const TestRecord record = MakeTestRecord(1, ++version, payload_bytes);
    CHECK(WriteTestRecords(tier, {record}) == 1);
    CHECK(Holds(tier, record));
    CHECK(Misses(tier, record.key, 0, payload_bytes + 1));
  }
}

inline void CheckErased(Tier& tier) {
  const TestRecord first = MakeTestRecord(1), second = MakeTestRecord(2), third = MakeTestRecord(3);
  CHECK(WriteTestRecords(tier, {first, second, third}) == 3);
  const RecordKey erased[] = {third.key, TestKey(99), first.key};
  tier.Erase(erased);
  const RecordKey keys[] = {first.key, second.key, third.key};
  CHECK(tier.Contains(keys) == std::vector{false, true, false});
  CHECK(Misses(tier, first.key, 0, 5000));
  CHECK(Misses(tier, third.key, 0, 0));
  CHECK(Holds(tier, second));
  tier.Erase(erased);
  const TestRecord again = MakeTestRecord(1, 7);
  CHECK(WriteTestRecords(tier, {again}) == 1);
  CHECK(Holds(tier, again));
}

inline void CheckMissing(Tier& tier) {
  const TestRecord record = MakeTestRecord(1);
  CHECK(Misses(tier, record.key, 0, 5000));
  CHECK(Misses(tier, record.key, 0, 0));
  CHECK(tier.Contains({&record.key, 1}) == std::vector{false});
  CHECK(WriteTestRecords(tier, {record}) == 1);
  // Keys that differ in one half only.
  CHECK(Misses(tier, {record.key.low, record.key.high ^ 1}, 0, 5000));
  CHECK(Misses(tier, {record.key.low ^ 1, record.key.high}, 0, 5000));
  // A TierRead that was a hit before.
  Reading reading = ReadPart(tier, record.key, 0, 5000, true);
  CHECK(reading.read.is_hit);
  reading.read.key = TestKey(2);
  tier.Read({&reading.read, 1});
  CHECK_FALSE(reading.read.is_hit);
}

inline void CheckManyAtOnce(Tier& tier) {
  std::vector<TestRecord> records;
  for (uint64_t number = 0; number < 600; ++number) {
    records.push_back(MakeTestRecord(number, 0, number % 7 == 0 ? number * 100 : number));
  }
  CHECK(WriteTestRecords(tier, records) == records.size());
  // In another order, with one that isn't there after each that is.
  std::vector<Reading> readings(2 * records.size());
  std::vector<TierRead> reads;
  std::vector<RecordKey> keys;
  for (size_t i = 0; i < readings.size(); ++i) {
    const TestRecord& record = records[records.size() - 1 - i / 2];
    readings[i].payload.resize(record.payload.size());
    keys.push_back(i % 2 == 0 ? record.key : TestKey(10'000 + i));
    reads.push_back(ReadOf(keys.back(), readings[i].payload));
  }
  tier.Read(reads);
  const std::vector<bool> is_held = tier.Contains(keys);
  REQUIRE(is_held.size() == keys.size());
  size_t num_wrong = 0;
  for (size_t i = 0; i < reads.size(); ++i) {
    const TestRecord& record = records[records.size() - 1 - i / 2];
    const bool is_there = i % 2 == 0;
    num_wrong += reads[i].is_hit != is_there || is_held[i] != is_there;
    num_wrong += is_there && (readings[i].payload != record.payload || reads[i].header != record.header);
  }
  CHECK(num_wrong == 0);
}

// Each thread has records of its own, and all replace and erase one that they share.
inline void CheckThreads(Tier& tier) {
  std::atomic<int> num_wrong = 0;
  const auto work = [&](uint64_t thread) {
    for (uint64_t i = 0; i < 25; ++i) {
      const TestRecord own = MakeTestRecord(100 + thread, i, 20'000), shared = MakeTestRecord(1, thread * 100 + i);
      num_wrong += WriteTestRecords(tier, {own, shared}) != 2;
      num_wrong += !Holds(tier, own);
      num_wrong += ReadTestRecord(tier, 1) == TestReading::kWrong;
      if (i % 5 == 0) tier.Erase({&shared.key, 1});
      num_wrong += tier.Contains({&own.key, 1}) != std::vector{true};
      tier.stats();
    }
  };
  std::vector<std::thread> threads;
  for (uint64_t thread = 0; thread < 6; ++thread) threads.emplace_back(work, thread);
  for (std::thread& thread : threads) thread.join();
  CHECK(num_wrong == 0);
}

inline void CheckEmptyCalls(Tier& tier) {
  tier.Read({});
  CHECK(tier.Write({}) == 0);
  CHECK(tier.Contains({}).empty());
  tier.Erase({});
  CHECK(tier.stats().num_failures == 0);
}

inline void CheckBigPayload(Tier& tier) {
  const TestRecord big = MakeTestRecord(1, 0, 24'000'001), small = MakeTestRecord(2);
  CHECK(WriteTestRecords(tier, {small, big}) == 2);
  CHECK(Holds(tier, big));
  CHECK(Holds(tier, small));
  CHECK(HoldsPart(tier, big, 20'000'000, 3'999'999));
}

inline void CheckStats(Tier& tier) {
  const TestRecord first = MakeTestRecord(1), second = MakeTestRecord(2);
  CHECK(WriteTestRecords(tier, {first, second}) == 2);
  CHECK(Holds(tier, first));
  CHECK(HoldsPart(tier, second, 100, 1000));  // twice
  CHECK(Misses(tier, TestKey(3), 0, 10));     // twice
  const TierStats stats = tier.stats();
  CHECK(stats.num_written == 2);
  CHECK(stats.num_declined == 0);
  CHECK(stats.num_hits == 3);
  CHECK(stats.num_misses == 2);
  CHECK(stats.bytes_written >= 2 * 5000);
  CHECK(stats.bytes_read >= 5000 + 2 * 1000);
  CHECK(stats.num_failures == 0);
  if (stats.limit_bytes > 0) CHECK(stats.bytes <= stats.limit_bytes);
}

}  // namespace tier_conformance

inline void CheckTier(const OpenEmptyTier& open) {
  const std::unique_ptr<Tier> tier = open();
  REQUIRE(tier);
  SUBCASE("round trips") {
    tier_conformance::CheckRoundTrips(*tier);
  }
  SUBCASE("parts of a payload") {
    tier_conformance::CheckParts(*tier);
  }
  SUBCASE("wrong sizes miss") {
    tier_conformance::CheckWrongSizes(*tier);
  }
  SUBCASE("the last one written counts") {
    tier_conformance::CheckReplaced(*tier);
  }
  SUBCASE("erased records are gone, others not") {
    tier_conformance::CheckErased(*tier);
  }
  SUBCASE("missing records miss") {
    tier_conformance::CheckMissing(*tier);
  }
  SUBCASE("many at once") {
    tier_conformance::CheckManyAtOnce(*tier);
  }
  SUBCASE("several threads") {
    tier_conformance::CheckThreads(*tier);
  }
  SUBCASE("empty calls") {
    tier_conformance::CheckEmptyCalls(*tier);
  }
  SUBCASE("a big payload") {
    tier_conformance::CheckBigPayload(*tier);
  }
  SUBCASE("statistics") {
    tier_conformance::CheckStats(*tier);
  }
}

}  // namespace kvist
