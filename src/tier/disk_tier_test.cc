// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "tier/disk_tier.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <map>
#include <set>
#include <thread>

#include "tier/segment.h"
#include "tier/session_file.h"
#include "tier/tier_test_kit.h"

namespace kvist::disk_tier_test {
namespace {

namespace fs = std::filesystem;
using enum TestReading;

constexpr uint64_t kMiB = uint64_t{1} << 20;

std::unique_ptr<DiskTier> OpenTier(const TestFolder& folder, DiskTierOptions options = {.limit_bytes = 64 * kMiB}) {
  auto tier = DiskTier::Open(folder.path(), options);
  REQUIRE(tier);
  return std::move(*tier);
}

bool WriteOne(DiskTier& tier, uint64_t number, uint64_t version = 0, size_t payload_bytes = 5000) {
  return WriteTestRecords(tier, {MakeTestRecord(number, version, payload_bytes)}) == 1;
}

// The version of the record that is found, -1 for none.
int64_t VersionOf(DiskTier& tier, uint64_t number) {
  std::vector<std::byte> payload(5000);
  TierRead read{.key = TestKey(number), .payload = payload, .payload_offset = 0, .wants_header = true, .header = {}};
  tier.Read({&read, 1});
  return read.is_hit ? int64_t(DecodeHeader(read.header).value().position) : -1;
}

bool Holds(DiskTier& tier, uint64_t number) {
  const RecordKey key = TestKey(number);
  return tier.Contains({&key, 1})[0];
}

std::vector<std::byte> AsBytes(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

Status Save(DiskTier& tier, const std::string& name, std::string_view manifest, std::vector<uint64_t> numbers) {
  std::vector<RecordKey> keys;
  for (const uint64_t number : numbers) keys.push_back(TestKey(number));
  return tier.SaveSession(name, AsBytes(manifest), keys);
}

ErrorCode CodeOf(const auto& result) {
  REQUIRE_FALSE(result);
  return result.error().code;
}

std::vector<std::string> Faults(DiskTier& tier) {
  std::vector<std::string> faults;
  tier.Verify([&](const std::string& file, const std::string& what) { faults.push_back(file + ": " + what); });
  return faults;
}

void WriteText(const fs::path& path, std::string_view text) {
  std::ofstream(path, std::ios::binary) << text;
}

void SetUsedAt(const fs::path& path, int64_t seconds) {
  const timespec times[2] = {{seconds, 0}, {seconds, 0}};
  REQUIRE(utimensat(AT_FDCWD, path.c_str(), times, 0) == 0);
}

// Runs it in a process of its own; true when it returned true.
bool InChild(auto run) {
  const pid_t child = fork();
  if (child == 0) {
    bool is_right = false;
    try {
      is_right = run();
    } catch (...) {  // a REQUIRE: the other tests are not this process's business
    }
    _exit(is_right ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

// --- records ---

TEST_CASE("disk tier: records of all sizes come back, alone and together, also when it is opened again") {
  TestFolder folder;
  const std::vector<size_t> sizes = {0, 1, 4095, 4096, 4097, 8192, 300'000};
  std::vector<TestRecord> records;
  for (size_t i = 0; i < 60; ++i) records.push_back(MakeTestRecord(i, 7, sizes[i % sizes.size()]));
  for (const bool is_new : {true, false}) {
    auto tier = OpenTier(folder, {.limit_bytes = 64 * kMiB, .segment_bytes = 500'000});
    if (is_new) CHECK(WriteTestRecords(*tier, records) == 60);
    std::vector<std::vector<std::byte>> payloads(60);
    std::vector<TierRead> reads(61);
    for (size_t i = 0; i < 60; ++i) {
      const size_t j = (i * 7) % 60;  // in another order
      payloads[j].resize(records[j].payload.size());
      reads[i] = {.key = records[j].key, .payload = payloads[j], .header = {}};
    }
    reads[60].key = TestKey(1000);
    tier->Read(reads);
    for (size_t i = 0; i < 60; ++i) {
      CHECK(reads[i].is_hit);
      CHECK(payloads[i] == records[i].payload);
      CHECK(reads[i].header == records[(i * 7) % 60].header);
    }
    CHECK_FALSE(reads[60].is_hit);
    CHECK(tier->stats().num_records == 60);
    CHECK(tier->stats().num_hits == 60);
    CHECK(tier->stats().num_misses == 1);
    CHECK(tier->stats().num_written == (is_new ? 60 : 0));
    CHECK(tier->stats().bytes == folder.DiskUse());
    CHECK(tier->stats().num_failures == 0);
    CHECK(folder.Files("segments").size() > 3);
    uint64_t num_fine = tier->Verify([](auto&, auto& what) { FAIL(what); });
    CHECK(num_fine == 60);
  }
}

TEST_CASE("disk tier: pieces of payloads, side by side in memory or not, and none past the end") {
  TestFolder folder;
  auto tier = OpenTier(folder);
  std::vector<TestRecord> records;
  for (size_t i = 0; i < 8; ++i) records.push_back(MakeTestRecord(i, 0, 8192));
  REQUIRE(WriteTestRecords(*tier, records) == 8);
  std::vector<std::byte> whole(8 * 8192);
  std::vector<TierRead> reads;
  for (size_t i = 0; i < 16; ++i) {
    reads.push_back({.key = TestKey(i / 2),
                     .payload = std::span(whole).subspan(i * 4096, 4096),
                     .payload_offset = (i % 2) * 4096,
                     .wants_header = i % 3 == 0,
                     .header = {}});
  }
  tier->Read(reads);
  for (size_t i = 0; i < 16; ++i) {
    CHECK(reads[i].is_hit);
    CHECK(reads[i].header.empty() == (i % 3 != 0));
    CHECK(std::ranges::equal(reads[i].payload, std::span(records[i / 2].payload).subspan((i % 2) * 4096, 4096)));
  }
  std::vector<std::byte> piece(100);
  for (const size_t offset : {8092u, 8093u, 8192u, 100'000u}) {
    TierRead read{.key = TestKey(3), .payload = piece, .payload_offset = offset, .header = {}};
    tier->Read({&read, 1});
    CHECK(read.is_hit == (offset == 8092));
  }
  TierRead read{.key = TestKey(3), .payload = piece, .payload_offset = SIZE_MAX, .header = {}};
  tier->Read({&read, 1});
  CHECK_FALSE(read.is_hit);
  CHECK(Holds(*tier, 3));
  CHECK(tier->stats().num_failures == 0);
}

TEST_CASE("disk tier: the files are the owner's alone") {
  TestFolder folder;
  auto tier = OpenTier(folder);
  REQUIRE(WriteOne(*tier, 1));
  REQUIRE(Save(*tier, "mine", "", {1}));
  CHECK(fs::status(folder.path()).permissions() == fs::perms::owner_all);
  for (const auto& entry : fs::recursive_directory_iterator(folder.path())) {
    const fs::perms others = fs::perms::group_all | fs::perms::others_all;
    CHECK((entry.status().permissions() & others) == fs::perms::none);
  }
}

TEST_CASE("disk tier: of two records of one key the newer is found, after opening again, too") {
  TestFolder folder;
  auto tier = OpenTier(folder);
  for (uint64_t version = 0; version < 5; ++version) REQUIRE(WriteOne(*tier, 1, version));
  REQUIRE(WriteTestRecords(*tier, {MakeTestRecord(1, 5), MakeTestRecord(2), MakeTestRecord(1, 6)}) == 3);
  CHECK(VersionOf(*tier, 1) == 6);
  CHECK(tier->stats().num_records == 2);
  // The newest stays the newest though an older file was touched last.
  for (const fs::path& file : folder.Files("segments")) SetUsedAt(file, 1000);
  SetUsedAt(folder.Files("segments").front(), 2000);
  CHECK(VersionOf(*OpenTier(folder), 1) == 6);
}

TEST_CASE("disk tier: when the newest record of a key is gone the one before it is found") {
  TestFolder folder;
  auto tier = OpenTier(folder);
  REQUIRE(WriteOne(*tier, 1, 1));
  const auto older = folder.Files("segments");
  REQUIRE(WriteOne(*tier, 1, 2));
  for (const fs::path& file : folder.Files("segments")) {
    if (std::ranges::find(older, file) == older.end()) fs::resize_file(file, 4000);
  }
  CHECK(VersionOf(*tier, 1) == 1);
  CHECK(tier->stats().num_failures == 1);
  CHECK(tier->stats().num_misses == 0);
}

TEST_CASE("disk tier: a held record is read, part by part, after it has been evicted, and its damage is noticed") {
  const TestFolder folder;
  auto disk = DiskTier::Open(folder.path(), {}).value();
  std::vector<std::byte> payload(3 * 5000);
  for (size_t i = 0; i < payload.size(); ++i) payload[i] = std::byte(i * 7);
  RecordHeader header;
  header.digest = DigestOf({std::as_bytes(std::span("held"))});
  header.tokens = {1, 2, 3};
  header.part_bytes = {5000, 4000, 6000};
  ChecksumParts(header, payload);
  const std::vector<std::byte> encoded = EncodeHeader(header);
  const TierWrite writes[] = {{TestKey(1), encoded, payload}, {TestKey(2), encoded, payload}};
  REQUIRE(disk->Write(writes) == 2);
  CHECK(CodeOf(disk->Hold(TestKey(3))) == ErrorCode::kNotFound);

  const auto first = disk->Hold(TestKey(1)).value(), second = disk->Hold(TestKey(2)).value();
  CHECK(first->file == second->file);
  CHECK(first->header.tokens == header.tokens);
  const RecordKey keys[] = {TestKey(1), TestKey(2)};
  disk->Erase(keys);
  CHECK(folder.Files("segments").empty());
  CHECK_FALSE(Holds(*disk, 1));
  size_t offset = 0;
  for (size_t i = 0; i < 3; ++i) {
    std::vector<std::byte> part(header.part_bytes[i]);
    REQUIRE(first->ReadPart(i, part));
    CHECK(std::ranges::equal(part, std::span(payload).subspan(offset, part.size())));
    offset += part.size();
  }

  // A payload that is not what its header says; a header that is not whole.
  payload[5000 + 17] ^= std::byte{1};
  const TierWrite wrong[] = {{TestKey(1), encoded, payload}};
  REQUIRE(disk->Write(wrong) == 1);
  const auto damaged = disk->Hold(TestKey(1)).value();
  std::vector<std::byte> part(4000);
  CHECK(CodeOf(damaged->ReadPart(1, part)) == ErrorCode::kCorrupt);
  part.resize(5000);
  CHECK(damaged->ReadPart(0, part));
  const TierWrite truncated[] = {{TestKey(4), std::span(encoded).first(encoded.size() - 1), payload}};
  REQUIRE(disk->Write(truncated) == 1);
  CHECK(CodeOf(disk->Hold(TestKey(4))) == ErrorCode::kCorrupt);
}

TEST_CASE("disk tier: erased records are gone, and the file with the last of them") {
  TestFolder folder;
  auto tier = OpenTier(folder);
  REQUIRE(WriteTestRecords(*tier, {MakeTestRecord(1), MakeTestRecord(2)}) == 2);
  const RecordKey keys[] = {TestKey(1), TestKey(77)};
  tier->Erase(keys);
  CHECK_FALSE(Holds(*tier, 1));
  CHECK(ReadTestRecord(*tier, 2) == kRight);
  CHECK(folder.Files("segments").size() == 1);
  const RecordKey other = TestKey(2);
  tier->Erase({&other, 1});
  CHECK(folder.Files("segments").empty());
  CHECK(tier->stats().bytes == 0);
  CHECK(tier->stats().num_records == 0);
}

TEST_CASE("disk tier: a session's erased records are missed until the folder is opened again, but not lost") {
  TestFolder folder;
  {
    auto tier = OpenTier(folder);
    REQUIRE(WriteOne(*tier, 1));
    REQUIRE(Save(*tier, "s", "m", {1}));
    const RecordKey key = TestKey(1);
    tier->Erase({&key, 1});
    CHECK_FALSE(Holds(*tier, 1));
  }
  CHECK(ReadTestRecord(*OpenTier(folder), 1) == kRight);
}

TEST_CASE("disk tier: as a map, in random operations") {
  TestFolder folder;
  std::mt19937_64 random(11);
  std::map<uint64_t, int64_t> model;
  auto tier = OpenTier(folder, {.limit_bytes = 64 * kMiB, .segment_bytes = 20'000});
  for (int i = 0; i < 400; ++i) {
    const uint64_t number = random() % 40;
    const int64_t version = i;
    switch (random() % 4) {
      case 0:
        REQUIRE(WriteTestRecords(*tier, {MakeTestRecord(number, uint64_t(version)),
                                         MakeTestRecord(number + 1, uint64_t(version))}) == 2);
        model[number] = model[number + 1] = version;
        break;
      case 1: {
        const RecordKey key = TestKey(number);
        tier->Erase({&key, 1});
        model.erase(number);
        break;
      }
      default:
        CHECK(VersionOf(*tier, number) == (model.contains(number) ? model[number] : -1));
    }
    CHECK(tier->stats().num_records == model.size());
  }
}

// --- the limit ---

TEST_CASE("disk tier: the least recently used goes first, and the limit holds") {
  TestFolder folder;
  auto tier = OpenTier(folder, {.limit_bytes = kMiB});
  for (uint64_t i = 0; i < 8; ++i) REQUIRE(WriteOne(*tier, i, 0, 100'000));
  CHECK(ReadTestRecord(*tier, 0, 100'000) == kRight);
  for (uint64_t i = 8; i < 14; ++i) {
    REQUIRE(WriteOne(*tier, i, 0, 100'000));
    CHECK(folder.DiskUse() <= kMiB);
    CHECK(tier->stats().bytes == folder.DiskUse());
  }
  CHECK(Holds(*tier, 0));
  for (uint64_t i = 1; i <= 5; ++i) CHECK_FALSE(Holds(*tier, i));
  for (uint64_t i = 6; i < 14; ++i) CHECK(Holds(*tier, i));
  CHECK(tier->stats().num_evicted == 5);
}

TEST_CASE("disk tier: the order of use is kept in the files") {
  TestFolder folder;
  const DiskTierOptions options{.limit_bytes = kMiB};
  {
    auto tier = OpenTier(folder, options);
    for (uint64_t i = 0; i < 9; ++i) REQUIRE(WriteOne(*tier, i, 0, 100'000));
    CHECK(ReadTestRecord(*tier, 0, 100'000) == kRight);
  }
  auto tier = OpenTier(folder, options);
  for (uint64_t i = 9; i < 12; ++i) REQUIRE(WriteOne(*tier, i, 0, 100'000));
  CHECK(Holds(*tier, 0));
  CHECK_FALSE(Holds(*tier, 1));
}

TEST_CASE("disk tier: what was used by another process is evicted later") {
  TestFolder folder;
  const DiskTierOptions options{.limit_bytes = kMiB};
  auto tier = OpenTier(folder, options), other = OpenTier(folder, options);
  for (uint64_t i = 0; i < 9; ++i) REQUIRE(WriteOne(*tier, i, 0, 100'000));
  CHECK(ReadTestRecord(*other, 0, 100'000) == kRight);
  for (uint64_t i = 9; i < 12; ++i) REQUIRE(WriteOne(*tier, i, 0, 100'000));
  CHECK(Holds(*tier, 0));
  CHECK_FALSE(Holds(*tier, 1));
}

TEST_CASE("disk tier: what can't fit is declined and pushes nothing out; a batch that is too large is divided") {
  TestFolder folder;
  auto tier = OpenTier(folder, {.limit_bytes = kMiB});
  for (uint64_t i = 0; i < 5; ++i) REQUIRE(WriteOne(*tier, i, 0, 100'000));
  CHECK_FALSE(WriteOne(*tier, 100, 0, kMiB));
  CHECK(tier->stats().num_declined == 1);
  CHECK(tier->stats().num_records == 5);
  std::vector<TestRecord> records;
  for (uint64_t i = 10; i < 30; ++i) records.push_back(MakeTestRecord(i, 0, 100'000));
  CHECK(WriteTestRecords(*tier, records) == 20);
  CHECK(folder.DiskUse() <= kMiB);
  CHECK(Holds(*tier, 29));
  CHECK_FALSE(Holds(*tier, 0));
}

TEST_CASE(
    "disk tier: of a text the beginning stays, whatever is written, read or asked for, and when it is opened anew") {
  TestFolder folder;
  const DiskTierOptions options{.limit_bytes = kMiB};
  constexpr size_t kBytes = 100'000;  // nine of these are within the limit
  const auto write_text = [](DiskTier& tier, uint64_t begin, uint64_t end) {
    for (uint64_t i = begin; i < end; ++i) REQUIRE(WriteOne(tier, i, i * 32, kBytes));
  };
  {
    auto tier = OpenTier(folder, options);
    write_text(*tier, 0, 30);
    for (uint64_t i = 0; i < 8; ++i) CHECK(Holds(*tier, i));
    for (uint64_t i = 8; i < 29; ++i) CHECK_FALSE(Holds(*tier, i));
    // Reading goes through a text from its beginning, too.
    for (uint64_t i = 0; i < 8; ++i) CHECK(ReadTestRecord(*tier, i, kBytes) == kRight);
  }
  auto tier = OpenTier(folder, options);
  REQUIRE(WriteOne(*tier, 100, 0, kBytes));
  REQUIRE(WriteOne(*tier, 101, 0, kBytes));
  for (uint64_t i = 0; i < 7; ++i) CHECK(Holds(*tier, i));
  CHECK_FALSE(Holds(*tier, 7));
}

TEST_CASE("disk tier: what is written and found with a keeper stays as long as it does") {
  TestFolder folder;
  auto tier = OpenTier(folder, {.limit_bytes = kMiB});
  for (uint64_t i = 0; i < 9; ++i) REQUIRE(WriteOne(*tier, i, 0, 100'000));
  {
    DiskTier::Keeper keeper(*tier);
    const RecordKey found = TestKey(3);
    CHECK(keeper.Contains({&found, 1})[0]);
    for (uint64_t i = 10; i < 15; ++i) {  // so deep in a text that the others have been used later
      const TestRecord record = MakeTestRecord(i, 1'000'000, 100'000);
      const TierWrite write = record.write();
      REQUIRE(keeper.Write({&write, 1}) == 1);
    }
    CHECK(Holds(*tier, 3));
    for (uint64_t i = 10; i < 15; ++i) CHECK(Holds(*tier, i));
    // What is kept fills the tier: no more fits.
    for (uint64_t i = 20; i < 23; ++i) {
      const TestRecord record = MakeTestRecord(i, 1'000'000, 100'000);
      const TierWrite write = record.write();
      REQUIRE(keeper.Write({&write, 1}) == 1);
    }
    CHECK_FALSE(WriteOne(*tier, 30, 0, 100'000));
  }
  REQUIRE(WriteOne(*tier, 30, 0, 100'000));
  CHECK(folder.DiskUse() <= kMiB);
}

TEST_CASE("disk tier: what is asked for when a text that goes on is written counts as used") {
  TestFolder folder;
  auto tier = OpenTier(folder, {.limit_bytes = kMiB});
  for (uint64_t i = 0; i < 9; ++i) REQUIRE(WriteOne(*tier, i, 0, 100'000));
  CHECK(Holds(*tier, 0));
  for (uint64_t i = 9; i < 12; ++i) REQUIRE(WriteOne(*tier, i, 0, 100'000));
  CHECK(Holds(*tier, 0));
  CHECK_FALSE(Holds(*tier, 1));
}

TEST_CASE("disk tier: a lower limit holds from when the folder is opened") {
  TestFolder folder;
  {
    auto tier = OpenTier(folder);
    for (uint64_t i = 0; i < 40; ++i) REQUIRE(WriteOne(*tier, i, 0, 100'000));
  }
  auto tier = OpenTier(folder, {.limit_bytes = kMiB});
  CHECK(folder.DiskUse() <= kMiB);
  CHECK(Holds(*tier, 39));
  CHECK_FALSE(Holds(*tier, 0));
}

TEST_CASE("disk tier: clocks that go wrong only change the order") {
  TestFolder folder;
  const DiskTierOptions options{.limit_bytes = kMiB};
  {
    auto tier = OpenTier(folder, options);
    for (uint64_t i = 0; i < 8; ++i) REQUIRE(WriteOne(*tier, i, 0, 100'000));
  }
  const auto files = folder.Files("segments");
  for (size_t i = 0; i < files.size(); ++i) SetUsedAt(files[i], i % 2 ? 15'000'000'000 : -2'000'000'000);
  auto tier = OpenTier(folder, options);
  for (uint64_t i = 0; i < 8; ++i) CHECK(Holds(*tier, i));
  for (const fs::path& file : files) CHECK(fs::last_write_time(file) <= fs::file_time_type::clock::now());
  for (const fs::path& file : folder.Files("segments")) SetUsedAt(file, 15'000'000'000);  // while it is open
  for (uint64_t i = 8; i < 40; ++i) {
    REQUIRE(WriteOne(*tier, i, 0, 100'000));
    CHECK(folder.DiskUse() <= kMiB);
  }
  // None was kept for ever because of the future.
  for (uint64_t i = 0; i < 8; ++i) CHECK_FALSE(Holds(*tier, i));
}

// --- sessions ---

TEST_CASE("disk tier: a session is saved, read, listed, replaced and removed") {
  TestFolder folder;
  auto tier = OpenTier(folder);
  for (uint64_t i = 0; i < 3; ++i) REQUIRE(WriteOne(*tier, i));
  CHECK(CodeOf(tier->ReadSession("a")) == ErrorCode::kNotFound);
  CHECK(CodeOf(tier->RemoveSession("a")) == ErrorCode::kNotFound);
  REQUIRE(Save(*tier, "a", "first", {0, 1, 0}));
  CHECK(tier->ReadSession("a").value() == AsBytes("first"));
  REQUIRE(Save(*tier, "a", "second", {1}));
  REQUIRE(Save(*tier, "b", "", {}));
  CHECK(tier->ReadSession("a").value() == AsBytes("second"));
  CHECK(tier->ReadSession("b").value().empty());
  auto reopened = OpenTier(folder);
  for (DiskTier* each : {tier.get(), reopened.get()}) {
    const auto listed = each->ListSessions();
    REQUIRE(listed.size() == 2);
    CHECK(listed[0].name == "a");
    CHECK(listed[0].bytes == 3 * 4096 + 4096);  // the segment with record 1, and itself
    CHECK(listed[1].bytes == 4096);
    CHECK(listed[0].saved_at_s > 1'600'000'000);
    CHECK(each->stats().bytes == folder.DiskUse());
  }
  REQUIRE(tier->RemoveSession("a"));
  CHECK(CodeOf(reopened->ReadSession("a")) == ErrorCode::kNotFound);
  CHECK(reopened->ListSessions().size() == 1);
  CHECK(folder.Files("tmp").empty());
}

TEST_CASE("disk tier: names of sessions") {
  TestFolder folder;
  auto tier = OpenTier(folder);
  const std::vector<std::string> bad = {
      "", ".", "..", ".hidden", "a/b", "../a", "a b", "a\n", std::string("a\0b", 3), "\xc3\xa4", std::string(101, 'a')};
  for (const std::string& name : bad) {
    CHECK(CodeOf(Save(*tier, name, "m", {})) == ErrorCode::kInvalidArgument);
    CHECK(CodeOf(tier->ReadSession(name)) == ErrorCode::kInvalidArgument);
    CHECK(CodeOf(tier->RemoveSession(name)) == ErrorCode::kInvalidArgument);
  }
  const std::vector<std::string> good = {"a", "A-b_c.9", "-", "_", "a..", std::string(100, 'z')};
  for (const std::string& name : good) CHECK(Save(*tier, name, name, {}));
  for (const std::string& name : good) CHECK(tier->ReadSession(name).value() == AsBytes(name));
  CHECK(tier->ListSessions().size() == good.size());
}

TEST_CASE("disk tier: what can't be saved leaves the earlier session as it was") {
  TestFolder folder;
  auto tier = OpenTier(folder, {.limit_bytes = kMiB});
  for (uint64_t i = 0; i < 6; ++i) REQUIRE(WriteOne(*tier, i, 0, 120'000));
  REQUIRE(Save(*tier, "large", "m", {0, 1, 2, 3}));
  REQUIRE(Save(*tier, "small", "m", {4}));
  CHECK(CodeOf(Save(*tier, "small", "new", {4, 99})) == ErrorCode::kNotFound);
  const std::string manifest(400'000, 'x');
  const Status too_large = Save(*tier, "small", manifest, {4, 5});
  CHECK(CodeOf(too_large) == ErrorCode::kOutOfMemory);
  CHECK(too_large.error().message.find("large") != std::string::npos);
  CHECK(tier->ReadSession("small").value() == AsBytes("m"));
  CHECK(CodeOf(tier->SaveSession("x", std::vector<std::byte>(64 * kMiB + 1), {})) == ErrorCode::kInvalidArgument);
  CHECK(folder.Files("tmp").empty());
}

TEST_CASE("disk tier: a session that finds no room beside the one it replaces doesn't evict its own records") {
  TestFolder folder;
  auto tier = OpenTier(folder, {.limit_bytes = kMiB});
  for (uint64_t i = 0; i < 9; ++i) REQUIRE(WriteOne(*tier, i, 0, 100'000));
  REQUIRE(Save(*tier, "s", "m", {0, 1, 2, 3, 4}));
  CHECK(CodeOf(Save(*tier, "s", std::string(100'000, 'x'), {5, 6, 7, 8})) == ErrorCode::kOutOfMemory);
  for (uint64_t i = 0; i < 9; ++i) CHECK(Holds(*tier, i));
  CHECK(tier->ReadSession("s").value() == AsBytes("m"));
}

TEST_CASE("disk tier: a session's records are not evicted until it is removed or saved without them") {
  TestFolder folder;
  auto tier = OpenTier(folder, {.limit_bytes = kMiB});
  const auto write_others = [&] {
    for (uint64_t i = 100; i < 120; ++i) CHECK(WriteOne(*tier, i, 0, 100'000));
  };
  for (uint64_t i = 0; i < 4; ++i) REQUIRE(WriteOne(*tier, i, 0, 100'000));
  REQUIRE(Save(*tier, "s", "m", {0, 1, 2}));
  write_others();
  for (uint64_t i = 0; i < 4; ++i) CHECK(Holds(*tier, i) == (i != 3));
  REQUIRE(Save(*tier, "s", "m", {0, 1}));
  write_others();
  for (uint64_t i = 0; i < 4; ++i) CHECK(Holds(*tier, i) == (i < 2));
  REQUIRE(tier->RemoveSession("s"));
  write_others();
  for (uint64_t i = 0; i < 4; ++i) CHECK_FALSE(Holds(*tier, i));
}

TEST_CASE("disk tier: a session keeps its record though a newer one of the same key comes and goes") {
  TestFolder folder;
  auto tier = OpenTier(folder, {.limit_bytes = kMiB});
  REQUIRE(WriteOne(*tier, 1, 1, 100'000));
  REQUIRE(Save(*tier, "s", "m", {1}));
  REQUIRE(WriteOne(*tier, 1, 2, 100'000));
  for (uint64_t i = 100; i < 120; ++i) REQUIRE(WriteOne(*tier, i, 0, 100'000));
  CHECK(ReadTestRecord(*tier, 1, 100'000) == kRight);
}

TEST_CASE("disk tier: while a session can't be read nothing is evicted: it might need that") {
  CHECK(InChild([] {
    if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)) return true;  // can't be tried
    TestFolder folder;
    if (!DiskTier::Open(folder.path(), {})) return true;
    for (uint64_t i = 0; i < 9; ++i) WriteOne(*OpenTier(folder), i, 0, 100'000);
    const bool is_saved = Save(*OpenTier(folder), "s", "m", {0}).has_value();
    fs::permissions(folder.Files("sessions")[0], fs::perms::none);
    auto tier = OpenTier(folder, {.limit_bytes = kMiB});
    const bool is_right = is_saved && WriteOne(*tier, 10, 0, 40'000) && !WriteOne(*tier, 11, 0, 100'000) &&
                          Holds(*tier, 0) && tier->stats().num_declined == 1;
    fs::permissions(folder.Files("sessions")[0], fs::perms::owner_all);
    return is_right && WriteOne(*tier, 11, 0, 100'000) && Holds(*tier, 0) && !Holds(*tier, 1);
  }));
}

TEST_CASE("disk tier: where sessions fill the limit writes are declined") {
  TestFolder folder;
  auto tier = OpenTier(folder, {.limit_bytes = kMiB});
  for (uint64_t i = 0; i < 9; ++i) REQUIRE(WriteOne(*tier, i, 0, 100'000));
  REQUIRE(Save(*tier, "s", "m", {0, 1, 2, 3, 4, 5, 6, 7, 8}));
  CHECK_FALSE(WriteOne(*tier, 10, 0, 200'000));
  CHECK(WriteOne(*tier, 11, 0, 50'000));
  CHECK(tier->stats().num_declined == 1);
}

TEST_CASE("disk tier: what is stored can be listed") {
  TestFolder folder;
  auto tier = OpenTier(folder);
  REQUIRE(WriteTestRecords(*tier, {MakeTestRecord(1), MakeTestRecord(2)}) == 2);
  REQUIRE(WriteOne(*tier, 3));
  REQUIRE(WriteOne(*tier, 2, 9));
  REQUIRE(Save(*tier, "s", "m", {3}));
  CHECK(ReadTestRecord(*tier, 1) == kRight);
  std::vector<DiskTier::Stored> all;
  tier->ForEach([&](const DiskTier::Stored& stored) { all.push_back(stored); });
  REQUIRE(all.size() == 3);
  for (size_t i = 0; i < 3; ++i) {
    const uint64_t number = std::vector<uint64_t>{1, 3, 2}[i];
    CHECK(all[i].key == TestKey(number));
    CHECK(all[i].header.tokens == std::vector<Token>{Token(number)});
    CHECK(all[i].header.position == (number == 2 ? 9 : 0));
    CHECK(all[i].bytes == 5000 + MakeTestRecord(number).header.size());
    CHECK(all[i].num_hits == (number == 1 ? 1 : 0));
    CHECK(all[i].is_of_session == (number == 3));
    CHECK(all[i].written_at_s > 1'600'000'000);
    CHECK(all[i].used_at_s >= all[i].written_at_s);
  }
}

// --- several at once ---

TEST_CASE("disk tier: two on one folder find what the other wrote, at the first miss, and share the limit") {
  TestFolder folder;
  const DiskTierOptions options{.limit_bytes = kMiB};
  auto a = OpenTier(folder, options), b = OpenTier(folder, options);
  for (uint64_t i = 0; i < 30; ++i) {
    REQUIRE(WriteOne(*(i % 2 ? a : b), i, 0, 100'000));
    CHECK(ReadTestRecord(*(i % 2 ? b : a), i, 100'000) == kRight);
    CHECK(folder.DiskUse() <= kMiB);
  }
  REQUIRE(Save(*a, "s", "of a", {29, 28}));
  CHECK(b->ReadSession("s").value() == AsBytes("of a"));
  for (uint64_t i = 100; i < 120; ++i) REQUIRE(WriteOne(*b, i, 0, 100'000));
  CHECK(ReadTestRecord(*b, 29, 100'000) == kRight);
  CHECK(ReadTestRecord(*a, 28, 100'000) == kRight);
  // What the other has evicted is a miss, not a failure, and can't be kept.
  CHECK(ReadTestRecord(*a, 27, 100'000) == kMiss);
  CHECK(a->stats().num_failures == 0);
  CHECK(CodeOf(Save(*a, "t", "m", {26})) == ErrorCode::kNotFound);
  REQUIRE(b->RemoveSession("s"));
  CHECK(a->ListSessions().empty());
  REQUIRE(WriteOne(*a, 1, 1));
  REQUIRE(WriteOne(*b, 1, 2));
  REQUIRE(WriteOne(*a, 1, 3));
  CHECK(VersionOf(*b, 999) == -1);  // a miss, at which it looks
  CHECK(VersionOf(*b, 1) == 3);
}

TEST_CASE("disk tier: another process writes, evicts and saves meanwhile") {
  TestFolder folder;
  const DiskTierOptions options{.limit_bytes = kMiB};
  auto tier = OpenTier(folder, options);
  const pid_t child = fork();
  if (child == 0) {
    auto opened = DiskTier::Open(folder.path(), options);
    if (!opened) _exit(3);
    const auto other = std::move(*opened);
    for (uint64_t i = 0; i < 100; ++i) {
      if (!WriteOne(*other, i, 0, 50'000)) _exit(1);
      // It may have been evicted before it is kept; then it is written anew.
      while (i % 10 == 0 && !Save(*other, "s" + std::to_string(i % 30), "m", {i})) WriteOne(*other, i, 0, 50'000);
    }
    _exit(0);
  }
  int status = 0;
  uint64_t number = 1000;
  while (waitpid(child, &status, WNOHANG) == 0) {
    REQUIRE(WriteOne(*tier, ++number, 0, 50'000));
    const TestReading reading = ReadTestRecord(*tier, number % 100, 50'000);
    CHECK((reading == kRight || reading == kMiss));
    CHECK(folder.DiskUse() <= kMiB + 100'000);  // files that are moved may be seen twice
  }
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  CHECK(ReadTestRecord(*tier, 90, 50'000) == kRight);
  CHECK(tier->ListSessions().size() == 3);
  CHECK(tier->stats().num_failures == 0);
}

TEST_CASE("disk tier: threads write, read, erase and save at once") {
  TestFolder folder;
  auto tier = OpenTier(folder, {.limit_bytes = kMiB, .segment_bytes = 40'000});
  std::atomic<int> num_wrong = 0, num_read = 0;
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t i = 0; i < 40; ++i) {
        const uint64_t number = t * 1000 + i;
        WriteTestRecords(*tier, {MakeTestRecord(number, 0, 20'000), MakeTestRecord(i, t, 20'000)});
        const TestReading reading = ReadTestRecord(*tier, number, 20'000);
        num_read += reading == kRight;
        num_wrong += reading == kWrong || reading == kDamaged;
        const RecordKey key = TestKey(i);
        if (i % 7 == 0) tier->Erase({&key, 1});
        if (i % 20 == 0) num_wrong += !Save(*tier, "s" + std::to_string(t), "m", {}).has_value();
        if (i % 20 == 1) tier->ListSessions();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(num_wrong == 0);
  CHECK(num_read > 80);
  CHECK(folder.DiskUse() <= kMiB);
  CHECK(tier->stats().bytes == folder.DiskUse());
  CHECK(folder.Files("tmp").empty());
}

TEST_CASE("disk tier: a lock that somebody holds is waited for only so long") {
  TestFolder folder;
  OpenTier(folder);
  const Folder opened = Folder::Open(folder.path()).value();
  auto held = FolderLock::Take(opened);
  REQUIRE(held);
  CHECK(CodeOf(FolderLock::Take(opened, std::chrono::milliseconds(20))) == ErrorCode::kIo);
  CHECK_FALSE(HoldOffChanges(opened));
  held = std::unexpected(Error{});
  CHECK(FolderLock::Take(opened, std::chrono::milliseconds(20)));
  const auto hold = HoldOffChanges(opened);
  CHECK(hold);
  CHECK_FALSE(FolderLock::Take(opened, std::chrono::milliseconds(20)));
}

TEST_CASE("disk tier: a session is not saved when another process evicts its record meanwhile") {
  TestFolder folder;
  auto tier = OpenTier(folder);
  REQUIRE(WriteOne(*tier, 1));
  REQUIRE(Save(*tier, "other", "m", {1}));  // the segment is on the disk: saving comes soon to where it waits
  const Folder opened = Folder::Open(folder.path()).value();
  auto held = FolderLock::Take(opened);
  REQUIRE(held);
  Status saved;
  std::thread saver([&] { saved = Save(*tier, "s", "m", {1}); });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  fs::remove(folder.Files("segments")[0]);
  held = std::unexpected(Error{});
  saver.join();
  CHECK(CodeOf(saved) == ErrorCode::kNotFound);
  CHECK(CodeOf(tier->ReadSession("s")) == ErrorCode::kNotFound);
}

TEST_CASE("disk tier: processes that are killed at any instant leave all that was saved and nothing half done") {
  TestFolder folder;
  std::mt19937_64 random(5);
  const DiskTierOptions options{.limit_bytes = 2 * kMiB, .segment_bytes = 60'000};
  uint64_t last_saved = 0;
  for (int round = 0; round < 20; ++round) {
    int pipe_ends[2];
    REQUIRE(pipe(pipe_ends) == 0);
    const pid_t child = fork();
    if (child == 0) {
      auto tier = DiskTier::Open(folder.path(), options);
      if (!tier) _exit(1);
      for (uint64_t version = last_saved + 1;; ++version) {
        std::vector<TestRecord> records;
        for (uint64_t i = 0; i < 6; ++i) records.push_back(MakeTestRecord(i, version, 20'000));
        WriteTestRecords(**tier, records);
        if (!Save(**tier, "s", std::to_string(version), {0, 1, 2, 3, 4, 5})) _exit(2);
        if (write(pipe_ends[1], &version, sizeof version) != sizeof version) _exit(3);
      }
    }
    close(pipe_ends[1]);
    uint64_t version = 0;
    // Every second time it is killed some time after a save, however slow the disk is.
    if (round % 2 == 0) CHECK(read(pipe_ends[0], &version, sizeof version) == sizeof version);
    last_saved = std::max(last_saved, version);
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 30'000));
    kill(child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    CHECK(WIFSIGNALED(status));
    while (read(pipe_ends[0], &version, sizeof version) == sizeof version) last_saved = version;
    close(pipe_ends[0]);

    auto tier = OpenTier(folder, options);
    CHECK(folder.Files("tmp").empty());
    CHECK(folder.DiskUse() <= options.limit_bytes);
    CHECK(Faults(*tier).empty());
    if (last_saved == 0) continue;
    const auto manifest = tier->ReadSession("s");
    REQUIRE(manifest);
    const bool is_it = *manifest == AsBytes(std::to_string(last_saved));
    const bool is_next = *manifest == AsBytes(std::to_string(last_saved + 1));  // saved, but not reported
    CHECK((is_it || is_next));
    for (uint64_t i = 0; i < 6; ++i) CHECK(ReadTestRecord(*tier, i, 20'000) == kRight);
    last_saved += is_next;
  }
  CHECK(last_saved >= 10);
}

TEST_CASE("disk tier: a temporary file stays while its writer lives") {
  TestFolder folder;
  OpenTier(folder);
  const Folder opened = Folder::Open(folder.path()).value();
  {
    auto lock = FolderLock::Take(opened);
    REQUIRE(lock);
    const auto file = TempFile::Make(opened, 900'000, *lock);
    REQUIRE(file);
    lock = std::unexpected(Error{});
    auto tier = OpenTier(folder, {.limit_bytes = kMiB});
    CHECK(folder.Files("tmp").size() == 1);
    CHECK_FALSE(WriteOne(*tier, 1, 0, 150'000));  // its bytes count
    CHECK(WriteOne(*tier, 1, 0, 100'000));
  }
  CHECK(folder.Files("tmp").empty());
  WriteText(fs::path(folder.path()) / "tmp" / std::string(32, 'a'), "left by a dead process");
  WriteText(fs::path(folder.path()) / "tmp" / "foreign", "left alone");
  OpenTier(folder);
  CHECK(folder.Files("tmp").size() == 1);
}

// --- damage ---

TEST_CASE("disk tier: any flipped bit is a miss or found by the checksums") {
  TestFolder folder;
  std::mt19937_64 random(3);
  OpenTier(folder);
  for (int round = 0; round < 120; ++round) {
    for (const fs::path& file : folder.Files("segments")) fs::remove(file);
    REQUIRE(WriteTestRecords(*OpenTier(folder), {MakeTestRecord(1, 1), MakeTestRecord(2, 2)}) == 2);
    const auto files = folder.Files("segments");
    REQUIRE(files.size() == 1);
    // All that is not payload, and some of that.
    const uint64_t bits = round < 100 ? 600 * 8 : fs::file_size(files[0]) * 8;
    const uint64_t bit = random() % bits, table_bits = (56 + 2 * 48) * 8;
    FlipBit(files[0], bit);
    auto tier = OpenTier(folder);
    for (uint64_t i = 1; i < 3; ++i) CHECK(ReadTestRecord(*tier, i) != kWrong);
    CHECK(tier->stats().num_records == (bit < table_bits ? 0 : 2));
  }
}

TEST_CASE("disk tier: a flipped bit of a payload is reported with the file") {
  TestFolder folder;
  auto tier = OpenTier(folder);
  REQUIRE(WriteTestRecords(*tier, {MakeTestRecord(1), MakeTestRecord(2)}) == 2);
  const fs::path file = folder.Files("segments")[0];
  FlipBit(file, (4096 + 100) * 8);
  CHECK(ReadTestRecord(*tier, 1) == kDamaged);
  CHECK(ReadTestRecord(*tier, 2) == kRight);
  uint64_t num_faults = 0;
  CHECK(tier->Verify([&](const std::string& where, const std::string&) {
    CHECK(where == "segments/" + file.filename().string());
    ++num_faults;
  }) == 1);
  CHECK(num_faults == 1);
}

TEST_CASE("disk tier: truncated segments are misses and removed, whether it is open or not") {
  TestFolder folder;
  for (const bool is_open : {true, false}) {
    for (const uint64_t bytes : {0u, 1u, 7u, 8u, 12u, 40u, 55u, 56u, 150u, 152u, 700u, 4096u, 9000u, 13000u, 17287u}) {
      auto tier = OpenTier(folder);
      REQUIRE(WriteTestRecords(*tier, {MakeTestRecord(1), MakeTestRecord(2)}) == 2);
      const auto files = folder.Files("segments");
      REQUIRE(files.size() == 1);
      REQUIRE(fs::file_size(files[0]) == 17288);
      fs::resize_file(files[0], bytes);
      if (!is_open) tier = OpenTier(folder);
      CHECK(ReadTestRecord(*tier, 1) == kMiss);
      CHECK(ReadTestRecord(*tier, 2) == kMiss);
      CHECK(tier->stats().num_failures == (is_open ? 1 : 0));
      REQUIRE(WriteOne(*tier, 3));
      CHECK_FALSE(fs::exists(files[0]));
      const RecordKey key = TestKey(3);
      tier->Erase({&key, 1});
    }
  }
}

TEST_CASE("disk tier: a damaged segment stays while a session needs it, and is reported") {
  TestFolder folder;
  {
    auto tier = OpenTier(folder);
    REQUIRE(WriteOne(*tier, 1));
    REQUIRE(Save(*tier, "s", "m", {1}));
  }
  fs::resize_file(folder.Files("segments")[0], 100);
  auto tier = OpenTier(folder);
  CHECK(ReadTestRecord(*tier, 1) == kMiss);
  CHECK(folder.Files("segments").size() == 1);
  CHECK(Faults(*tier).size() == 1);
  CHECK(tier->stats().bytes == folder.DiskUse());
  REQUIRE(tier->RemoveSession("s"));
  OpenTier(folder);
  CHECK(folder.Files("segments").empty());
}

TEST_CASE("disk tier: a session whose segment is gone is reported") {
  TestFolder folder;
  auto tier = OpenTier(folder);
  REQUIRE(WriteOne(*tier, 1));
  REQUIRE(Save(*tier, "s", "m", {1}));
  CHECK(Faults(*tier).empty());
  fs::remove(folder.Files("segments")[0]);
  const auto faults = Faults(*tier);
  REQUIRE(faults.size() == 1);
  CHECK(faults[0].starts_with("sessions/s.session: "));
}

TEST_CASE("disk tier: no damaged session is read, and it can be replaced or removed") {
  TestFolder folder;
  auto tier = OpenTier(folder);
  REQUIRE(WriteOne(*tier, 1));
  REQUIRE(Save(*tier, "s", "manifest", {1}));
  const fs::path file = folder.Files("sessions")[0];
  const uint64_t size = fs::file_size(file);
  CHECK(size == 48 + 16 + 20 + 16 + 8);
  for (uint64_t bit = 0; bit < size * 8; ++bit) {
    FlipBit(file, bit);
    const ErrorCode code = CodeOf(tier->ReadSession("s"));
    // Other first bytes are no session of ours, a higher version is one of the future.
    const uint64_t byte = bit / 8;
    CHECK((code == ErrorCode::kCorrupt || (byte < 8 && code == ErrorCode::kNotFound) ||
           (byte >= 8 && byte < 12 && code == ErrorCode::kUnsupported)));
    FlipBit(file, bit);
  }
  CHECK(tier->ReadSession("s"));
  for (uint64_t bytes = size; bytes-- > 0;) {
    fs::resize_file(file, bytes);
    CHECK(CodeOf(tier->ReadSession("s")) == ErrorCode::kCorrupt);
  }
  CHECK(tier->ListSessions().size() == 1);
  CHECK(Faults(*tier).size() == 1);
  REQUIRE(Save(*tier, "s", "new", {1}));
  CHECK(tier->ReadSession("s").value() == AsBytes("new"));
  fs::resize_file(file, 0);
  CHECK(tier->RemoveSession("s"));
}

TEST_CASE("disk tier: files of a newer format version are left alone") {
  TestFolder folder;
  {
    auto tier = OpenTier(folder);
    REQUIRE(WriteOne(*tier, 1));
    REQUIRE(Save(*tier, "s", "m", {}));
  }
  for (const fs::path& file : {folder.Files("segments")[0], folder.Files("sessions")[0]}) {
    FlipBit(file, 8 * 8 + 1);  // version 3
  }
  auto tier = OpenTier(folder, {.limit_bytes = kMiB});
  CHECK(ReadTestRecord(*tier, 1) == kMiss);
  CHECK(CodeOf(tier->ReadSession("s")) == ErrorCode::kUnsupported);
  CHECK(CodeOf(Save(*tier, "s", "m", {})) == ErrorCode::kUnsupported);
  CHECK(CodeOf(tier->RemoveSession("s")) == ErrorCode::kUnsupported);
  CHECK(tier->ListSessions().empty());
  CHECK(tier->stats().bytes == 0);
  CHECK(Faults(*tier).empty());
  for (uint64_t i = 10; i < 30; ++i) REQUIRE(WriteOne(*tier, i, 0, 100'000));
  tier = OpenTier(folder, {.limit_bytes = kMiB});
  const fs::path file = folder.Files("sessions")[0];
  FlipBit(file, 8 * 8 + 1);
  CHECK(tier->ReadSession("s"));
  uint64_t num_newer = 0;
  for (const fs::path& segment : folder.Files("segments")) {
    std::ifstream stream(segment, std::ios::binary);
    stream.seekg(8);
    num_newer += stream.get() == 3;
  }
  CHECK(num_newer == 1);
}

TEST_CASE("disk tier: foreign files of every kind are left alone and don't count") {
  TestFolder folder;
  OpenTier(folder);
  const fs::path root = folder.path();
  const std::string hex(32, 'a');
  const std::string other_hex(31, 'a');
  const std::string large(100'000, 'x');
  std::vector<fs::path> foreign;
  for (const char* part : {"segments", "sessions", "tmp", "."}) {
    const fs::path here = root / part;
    for (const std::string& name : {std::string("README"), std::string(".hidden"), other_hex + ".seg", hex + "b.seg",
                                    hex + ".seg.bak", std::string(32, 'A') + ".seg", std::string(32, 'g') + ".seg",
                                    std::string("a b.session"), std::string(".session"), std::string("c.session")}) {
      WriteText(here / name, large);
      foreign.push_back(here / name);
    }
    for (const char c : {'1', '2', '3', '4'}) foreign.push_back(here / (std::string(32, c) + ".seg"));
    WriteText(foreign.end()[-4], large);
    fs::create_directory(foreign.end()[-3]);
    fs::create_symlink("/etc/passwd", foreign.end()[-2]);
    REQUIRE(mkfifo(foreign.end()[-1].c_str(), 0600) == 0);
    for (const char* name : {"d.session", "e.session", "f.session"}) foreign.push_back(here / name);
    fs::create_directory(foreign.end()[-3]);
    fs::create_symlink("/etc/passwd", foreign.end()[-2]);
    REQUIRE(mkfifo(foreign.end()[-1].c_str(), 0600) == 0);
  }
  // Temporary names that are not files.
  foreign.push_back(root / "tmp" / std::string(32, '5'));
  fs::create_directory(foreign.back());
  foreign.push_back(root / "tmp" / std::string(32, '6'));
  REQUIRE(mkfifo(foreign.back().c_str(), 0600) == 0);

  auto tier = OpenTier(folder, {.limit_bytes = kMiB});
  CHECK(tier->stats().bytes == 0);
  CHECK(tier->stats().num_records == 0);
  CHECK(tier->ListSessions().empty());
  for (uint64_t i = 0; i < 20; ++i) REQUIRE(WriteOne(*tier, i, 0, 100'000));
  CHECK(ReadTestRecord(*tier, 19, 100'000) == kRight);
  CHECK(Faults(*tier).empty());
  for (const char* name : {"c", "d", "e", "f"}) {
    CHECK(CodeOf(tier->ReadSession(name)) == ErrorCode::kNotFound);
    CHECK(CodeOf(Save(*tier, name, "m", {19})) == ErrorCode::kIo);
    CHECK_FALSE(tier->RemoveSession(name));
  }
  CHECK(Save(*tier, "g", "m", {19}));
  OpenTier(folder, {.limit_bytes = kMiB});
  for (const fs::path& path : foreign) CHECK(fs::exists(fs::symlink_status(path)));
}

TEST_CASE("disk tier: a link to a segment is no segment") {
  TestFolder folder, elsewhere;
  REQUIRE(WriteOne(*OpenTier(elsewhere), 1));
  OpenTier(folder);
  const fs::path segment = elsewhere.Files("segments")[0];
  const fs::path link = fs::path(folder.path()) / "segments" / segment.filename();
  fs::create_symlink(segment, link);
  auto tier = OpenTier(folder);
  CHECK(ReadTestRecord(*tier, 1) == kMiss);
  CHECK(tier->stats().bytes == 0);
  fs::remove(link);
  fs::copy(segment, link);
  CHECK(ReadTestRecord(*OpenTier(folder), 1) == kRight);
}

TEST_CASE("disk tier: something else in the place of the lock or a subfolder: nothing is written") {
  for (const char* name : {"lock", "segments", "tmp"}) {
    TestFolder folder;
    fs::create_directory(folder.path());
    REQUIRE(mkfifo((fs::path(folder.path()) / name).c_str(), 0600) == 0);
    auto tier = OpenTier(folder);
    CHECK_FALSE(WriteOne(*tier, 1));
    CHECK(ReadTestRecord(*tier, 1) == kMiss);
    CHECK(tier->stats().num_failures > 0);
  }
}

TEST_CASE("disk tier: whatever the lock file has in it, the newest record is found") {
  TestFolder folder;
  auto tier = OpenTier(folder);
  for (uint64_t version = 1; version < 6; ++version) {
    REQUIRE(WriteOne(*tier, 1, version));
    const fs::path lock = fs::path(folder.path()) / "lock";
    if (version == 1) fs::remove(lock);
    if (version == 2) fs::resize_file(lock, 0);
    if (version == 3) WriteText(lock, "\xff\xff\xff\xff\xff\xff\xff\xff");
    if (version == 4) WriteText(lock, "something else altogether");
    CHECK(VersionOf(*tier, 1) == int64_t(version));
    CHECK(VersionOf(*OpenTier(folder), 1) == int64_t(version));
  }
}

// --- a system that refuses ---

TEST_CASE("disk tier: options and paths that can't be") {
  TestFolder folder;
  CHECK(CodeOf(DiskTier::Open(folder.path(), {.limit_bytes = kMiB - 1})) == ErrorCode::kInvalidArgument);
  CHECK(CodeOf(DiskTier::Open(folder.path(), {.limit_bytes = UINT64_MAX})) == ErrorCode::kInvalidArgument);
  CHECK(CodeOf(DiskTier::Open(folder.path(), {.segment_bytes = 0})) == ErrorCode::kInvalidArgument);
  CHECK(CodeOf(DiskTier::Open(folder.path(), {.segment_bytes = UINT64_MAX})) == ErrorCode::kInvalidArgument);
  CHECK_FALSE(fs::exists(folder.path()));
  CHECK(DiskTier::Open(folder.path() + "/a/b/", {.limit_bytes = kMiB}));
  CHECK(fs::status(folder.path() + "/a/b").permissions() == fs::perms::owner_all);
  WriteText(folder.path() + "/file", "");
  CHECK(CodeOf(DiskTier::Open(folder.path() + "/file", {})) == ErrorCode::kIo);
  CHECK(CodeOf(DiskTier::Open(folder.path() + "/file/x", {})) == ErrorCode::kIo);
  CHECK(CodeOf(DiskTier::Open("", {})) == ErrorCode::kIo);
}

TEST_CASE("disk tier: what the system refuses is told with the file's place and the reason") {
  TestFolder folder;
  fs::create_directory(folder.path());
  WriteText(folder.path() + "/readable", "text");
  const File opened = OpenFolder(folder.path()).value();
  const File file = OpenToRead(opened, "readable").value();
  const Status written = WriteAt(file, 0, std::as_bytes(std::span("x")));
  CHECK(CodeOf(written) == ErrorCode::kIo);
  CHECK(written.error().message.find(folder.path() + "/readable: ") != std::string::npos);
}

TEST_CASE("disk tier: a read-only folder is read and nothing is written") {
  TestFolder folder;
  {
    auto tier = OpenTier(folder);
    REQUIRE(WriteOne(*tier, 1));
    REQUIRE(Save(*tier, "s", "m", {1}));
  }
  for (const auto& entry : fs::recursive_directory_iterator(folder.path())) {
    fs::permissions(entry.path(), entry.is_directory() ? fs::perms(0555) : fs::perms(0444));
  }
  fs::permissions(folder.path(), fs::perms(0555));
  CHECK(InChild([&] {
    if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)) return true;  // can't be tried
    auto tier = DiskTier::Open(folder.path(), {});
    return tier && ReadTestRecord(**tier, 1) == kRight && !WriteOne(**tier, 2) && !Save(**tier, "t", "m", {1}) &&
           !(*tier)->RemoveSession("s") && (*tier)->ReadSession("s") && (*tier)->ListSessions().size() == 1 &&
           (*tier)->stats().num_declined == 1 && ReadTestRecord(**tier, 1) == kRight;
  }));
  for (const auto& entry : fs::recursive_directory_iterator(folder.path())) {
    fs::permissions(entry.path(), fs::perms(0700));
  }
  fs::permissions(folder.path(), fs::perms(0700));
}

TEST_CASE("disk tier: a file that can't grow is removed, the write declined and counted") {
  TestFolder folder;
  CHECK(InChild([&] {
    auto tier = OpenTier(folder);
    if (!WriteOne(*tier, 1) || !Save(*tier, "s", "m", {1})) return false;
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{50'000, 50'000};
    setrlimit(RLIMIT_FSIZE, &limit);
    const bool is_declined = !WriteOne(*tier, 2, 0, 100'000) && tier->stats().num_declined == 1 &&
                             tier->stats().num_failures == 1 && folder.Files("tmp").empty();
    const Status saved = Save(*tier, "s", std::string(100'000, 'x'), {1});
    return is_declined && !saved && saved.error().code == ErrorCode::kIo && folder.Files("tmp").empty() &&
           tier->ReadSession("s").value() == AsBytes("m") && WriteOne(*tier, 3) && ReadTestRecord(*tier, 1) == kRight &&
           ReadTestRecord(*tier, 3) == kRight;
  }));
}

TEST_CASE("disk tier: headers are completed before they are written") {
  const TestFolder folder;
  const auto tier = DiskTier::Open(folder.path(), {.segment_bytes = 20000}).value();
  CHECK(WriteIncompleteTestRecords(*tier, {MakeTestRecord(1), MakeTestRecord(2), MakeTestRecord(3)}) == 3);
  CHECK(folder.Files("segments").size() == 2);
  for (const uint64_t number : {1, 2, 3}) CHECK(ReadTestRecord(*tier, number) == kRight);
}

TEST_CASE("disk tier: on a full disk writes are declined, and it goes on when there is room again") {
  TestFolder folder;
  fs::create_directory(folder.path());
  CHECK(InChild([&] {
    const bool is_mounted = unshare(CLONE_NEWNS) == 0 && mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
                            mount("none", folder.path().c_str(), "tmpfs", 0, "size=2m") == 0;
    if (!is_mounted) return true;  // can't be tried
    auto tier = OpenTier(folder);
    uint64_t number = 0;
    while (WriteOne(*tier, number, 0, 100'000)) ++number;
    const bool is_declined = number > 10 && tier->stats().num_declined == 1 && tier->stats().num_failures == 1 &&
                             folder.Files("tmp").empty();
    const Status saved = Save(*tier, "s", std::string(500'000, 'x'), {1});
    const bool is_kept = ReadTestRecord(*tier, 0, 100'000) == kRight && Faults(*tier).empty();
    const RecordKey key = TestKey(0);
    tier->Erase({&key, 1});
    return is_declined && !saved && saved.error().message.find("No space") != std::string::npos && is_kept &&
           WriteOne(*tier, number, 0, 100'000) && ReadTestRecord(*tier, number, 100'000) == kRight;
  }));
}

}  // namespace
}  // namespace kvist::disk_tier_test
