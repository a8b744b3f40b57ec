// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "cache/session_export.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "cache/tier_store.h"
#include "kvist/cache.h"
#include "tests/property/naive_cache.h"
#include "tier/bytes.h"

namespace kvist::session_export_test {
namespace {

using testing::AppendAll;
using testing::RandomStep;
using testing::RunRest;
using testing::RunStep;
using testing::SmallGeometry;
using testing::StepData;
using testing::StepOutput;

namespace fs = std::filesystem;

// Where the head's fields are (docs/formats.md).
constexpr size_t kVersionOffset = 8, kNumRecordsOffset = 12, kFileBytesOffset = 16, kManifestBytesOffset = 24;
constexpr size_t kNameOffset = 40;
constexpr size_t kFrameBytes = 32;

using Bytes = std::vector<std::byte>;

class Folder {
 public:
  Folder()
      : path_(fs::temp_directory_path() /
              ("kvist-export-" + std::to_string(getpid()) + "-" + std::to_string(reinterpret_cast<uintptr_t>(this)))) {
    fs::remove_all(path_);
    fs::create_directory(path_);
  }
  ~Folder() { fs::remove_all(path_); }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  // The files themselves, not those in folders.
  std::set<std::string> FileNames() const {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(path_)) {
      if (entry.is_regular_file()) names.insert(entry.path().filename());
    }
    return names;
  }

 private:
  fs::path path_;
};

Bytes ReadAll(const std::string& path) {
  Bytes bytes(fs::file_size(path));
  std::ifstream(path, std::ios::binary).read(reinterpret_cast<char*>(bytes.data()), std::ssize(bytes));
  return bytes;
}

void WriteAll(const std::string& path, std::span<const std::byte> bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc)
      .write(reinterpret_cast<const char*>(bytes.data()), std::ssize(bytes));
}

std::unique_ptr<DiskTier> OpenStore(const std::string& path, uint64_t limit_bytes = 64 << 20) {
  return DiskTier::Open(path, {.limit_bytes = limit_bytes}).value();
}

std::unique_ptr<Cache> OpenCache(const CacheGeometry& geometry, const std::string& store, Form form = {}) {
  return Cache::Open(geometry, {.form = form,
                                .budget_bytes = 64 << 20,
                                .growth = {},
                                .layer_forms = {},
                                .sealing = {},
                                .shares_prefixes = true,
                                .tiers = {"disk:" + store + ",size=64M"},
                                .model = {"test", {1, 2}}})
      .value();
}

// A store with the session "chat" of so many tokens; returns them.
std::vector<Token> MakeStore(const std::string& store, int64_t num_tokens) {
  std::mt19937 random(1);
  const CacheGeometry geometry = SmallGeometry(0);
  const StepData text = RandomStep(random, geometry, num_tokens);
  const auto cache = OpenCache(geometry, store);
  Sequence sequence = cache->Begin("salt");
  REQUIRE(sequence.Prepare(text.tokens));
  AppendAll(text, sequence);
  REQUIRE(sequence.Commit());
  REQUIRE(cache->Save("chat", sequence, std::as_bytes(std::span(std::string_view("notes")))));
  return text.tokens;
}

ErrorCode CodeOf(const auto& result) {
  REQUIRE_FALSE(result);
  CHECK_FALSE(result.error().message.empty());
  return result.error().code;
}

// An export's bytes, to be changed with its checksums made right again: what only a mean writer would do.
struct Forgery {
  Bytes bytes;

  template <class T>
  T Number(size_t offset) const {
    T number;
    std::memcpy(&number, &bytes[offset], sizeof(number));
    return number;
  }
  template <class T>
  void Set(size_t offset, T number) {
    std::memcpy(&bytes[offset], &number, sizeof(number));
  }
  size_t manifest_offset() const { return kNameOffset + 4; }  // "chat"
  size_t head_bytes() const { return manifest_offset() + Number<uint64_t>(kManifestBytesOffset) + kChecksumBytes; }
  size_t record_bytes(size_t offset) const {
    return kFrameBytes + Number<uint32_t>(offset + 16) + Number<uint64_t>(offset + 24);
  }
  void Seal(size_t begin, size_t end) {
    const Checksum checksum = ChecksumOf(std::span(bytes).subspan(begin, end - begin - kChecksumBytes));
    Set(end - kChecksumBytes, checksum);
  }
  void SealManifest() { Seal(manifest_offset(), head_bytes() - kChecksumBytes); }
  void SealHead() { Seal(0, head_bytes()); }
};

struct Exported {
  Exported() {
    MakeStore(folder / "store", 100);
    const auto disk = OpenStore(folder / "store");
    facts = ExportSession(*disk, "chat", path).value();
    forgery.bytes = ReadAll(path);
  }
  // What Open says of these bytes.
  Result<SessionImport> OpenBytes(std::span<const std::byte> bytes) const {
    WriteAll(folder / "changed", bytes);
    return SessionImport::Open(folder / "changed");
  }

  Folder folder;
  std::string path = folder / "chat.export";
  SessionExport facts;
  Forgery forgery;
};

TEST_CASE("session export: an imported session goes on with the same bits") {
  for (const Form form : {Form{}, Form{Codec::kQ4, Codec::kQ8}}) {
    for (const int window : {0, 40}) {
      CAPTURE(FormName(form));
      CAPTURE(window);
      const Folder folder;
      std::mt19937 random(2);
      const CacheGeometry geometry = SmallGeometry(window);
      const StepData text = RandomStep(random, geometry, 420), begin = text.Part(geometry, 0, 405);
      const auto notes = std::as_bytes(std::span(std::string_view("turn 1")));
      StepOutput expected;
      {
        const auto cache = OpenCache(geometry, folder / "store", form);
        Sequence sequence = cache->Begin("me");
        RunRest(geometry, begin, sequence);
        REQUIRE(cache->Save("chat", sequence, notes));
        expected = RunRest(geometry, text, sequence);
      }
      const auto exported = ExportSession(*OpenStore(folder / "store"), "chat", folder / "chat.export");
      REQUIRE(exported);
      CHECK(exported->file_bytes == fs::file_size(folder / "chat.export"));
      fs::remove_all(folder / "store");
      {
        const auto import = SessionImport::Open(folder / "chat.export");
        REQUIRE(import);
        CHECK(import->facts().name == "chat");
        CHECK(import->facts().num_records == exported->num_records);
        CHECK(import->manifest().tokens == begin.tokens);
        CHECK(import->manifest().model == "test");
        const auto disk = OpenStore(folder / "other");
        REQUIRE(import->StoreIn(*disk, {}));
        CHECK(disk->stats().num_records == exported->num_records);
        CHECK(disk->Verify([](const auto&, const auto& what) { FAIL(what); }) == exported->num_records);
      }
      const auto cache = OpenCache(geometry, folder / "other", form);
      ResumedSession session = cache->Resume("chat").value();
      CHECK(session.tokens == begin.tokens);
      CHECK(std::ranges::equal(session.notes, notes));
      CHECK(session.sequence.num_tokens() == 405);
      CHECK(session.reuse.reason == MissReason::kNone);
      CHECK(RunRest(geometry, text, session.sequence) == expected);
    }
  }
}

TEST_CASE("session export: a session without tokens has no records, and is one") {
  const Folder folder;
  const CacheGeometry geometry = SmallGeometry(0);
  {
    const auto cache = OpenCache(geometry, folder / "store");
    REQUIRE(cache->Save("new", cache->Begin()));
  }
  CHECK(ExportSession(*OpenStore(folder / "store"), "new", folder / "new.export").value().num_records == 0);
  REQUIRE(SessionImport::Open(folder / "new.export").value().StoreIn(*OpenStore(folder / "other"), {}));
  CHECK(OpenCache(geometry, folder / "other")->Resume("new").value().tokens.empty());
}

TEST_CASE("session export: the file is the owner's, whole, and not written over by accident") {
  const Folder folder;
  MakeStore(folder / "store", 100);
  const auto disk = OpenStore(folder / "store");
  const std::string path = folder / "chat.export";
  WriteAll(path, std::as_bytes(std::span(std::string_view("mine"))));
  CHECK(CodeOf(ExportSession(*disk, "chat", path)) == ErrorCode::kFailedPrecondition);
  CHECK(fs::file_size(path) == 4);
  REQUIRE(ExportSession(*disk, "chat", path, {.replaces = true}));
  CHECK(SessionImport::Open(path));
  CHECK(fs::status(path).permissions() == (fs::perms::owner_read | fs::perms::owner_write));
  CHECK(folder.FileNames() == std::set<std::string>{"chat.export"});
}

TEST_CASE("session export: what can't be exported leaves no file") {
  const Folder folder;
  MakeStore(folder / "store", 100);
  const auto disk = OpenStore(folder / "store");
  const std::string path = folder / "chat.export";
  CHECK(CodeOf(ExportSession(*disk, "other", path)) == ErrorCode::kNotFound);
  CHECK(CodeOf(ExportSession(*disk, "../chat", path)) == ErrorCode::kInvalidArgument);
  CHECK(CodeOf(ExportSession(*disk, "chat", folder / "store")) == ErrorCode::kInvalidArgument);
  CHECK(CodeOf(ExportSession(*disk, "chat", folder / "none/chat.export")) == ErrorCode::kIo);
  const auto stop = [](int64_t done, int64_t) { return done < 2; };
  CHECK(CodeOf(ExportSession(*disk, "chat", path, {.progress = stop})) == ErrorCode::kCancelled);
  for (const auto& file : fs::recursive_directory_iterator(folder / "store")) {
    if (file.path().extension() != ".seg") continue;
    Bytes bytes = ReadAll(file.path());
    bytes[bytes.size() / 2] ^= std::byte{1};
    WriteAll(file.path(), bytes);
    CHECK(CodeOf(ExportSession(*disk, "chat", path)) == ErrorCode::kCorrupt);
    fs::remove(file.path());
    CHECK(CodeOf(ExportSession(*disk, "chat", path)) == ErrorCode::kNotFound);
    break;
  }
  CHECK(folder.FileNames().empty());
}

TEST_CASE("session import: an earlier session of the name is kept, or replaced when that is asked for") {
  const Exported exported;
  const auto disk = OpenStore(exported.folder / "other");
  const SessionImport import = SessionImport::Open(exported.path).value();
  const std::vector<std::byte> earlier(10);
  REQUIRE(disk->SaveSession("chat", earlier, {}));
  CHECK(CodeOf(import.StoreIn(*disk, {})) == ErrorCode::kFailedPrecondition);
  CHECK(CodeOf(import.StoreIn(*disk, {.name = "../x"})) == ErrorCode::kInvalidArgument);
  CHECK(disk->ReadSession("chat").value() == earlier);
  CHECK(disk->stats().num_records == 0);
  REQUIRE(import.StoreIn(*disk, {.name = "mine"}));
  CHECK(disk->ReadSession("chat").value() == earlier);
  REQUIRE(import.StoreIn(*disk, {.replaces = true}));
  CHECK(DecodeManifest(disk->ReadSession("chat").value()).value().tokens == import.manifest().tokens);
  CHECK(disk->stats().num_records == exported.facts.num_records);
}

TEST_CASE("session import: a store without room gets no session") {
  const Folder folder;
  MakeStore(folder / "store", 6000);  // 1.5 MiB
  REQUIRE(ExportSession(*OpenStore(folder / "store"), "chat", folder / "chat.export"));
  const SessionImport import = SessionImport::Open(folder / "chat.export").value();
  const auto disk = OpenStore(folder / "other", 1 << 20);
  CHECK_FALSE(import.StoreIn(*disk, {}));
  CHECK(disk->ListSessions().empty());
  // Where another session has it all, the records are declined.
  MakeStore(folder / "full", 3500);
  const auto full = OpenStore(folder / "full", 1 << 20);
  CHECK(CodeOf(import.StoreIn(*full, {.name = "other"})) == ErrorCode::kIo);
  CHECK(full->ListSessions().size() == 1);
}

TEST_CASE("session import: more records than are written together") {
  const Folder folder;
  const std::vector<std::byte> payload(1 << 20);
  SessionManifest manifest;
  {
    const auto disk = OpenStore(folder / "store");
    for (uint64_t i = 0; i < 35; ++i) {
      RecordHeader header;
      header.digest = DigestOf({std::as_bytes(std::span(&i, 1))});
      header.part_bytes = {payload.size()};
      ChecksumParts(header, payload);
      manifest.keys.push_back(TierStore::KeyOf(header.digest, 0, false));
      const auto encoded = EncodeHeader(header);
      const TierWrite write{manifest.keys.back(), encoded, payload};
      REQUIRE(disk->Write({&write, 1}) == 1);
    }
    REQUIRE(disk->SaveSession("big", EncodeManifest(manifest), manifest.keys));
    REQUIRE(ExportSession(*disk, "big", folder / "big.export"));
  }
  const auto disk = OpenStore(folder / "other");
  REQUIRE(SessionImport::Open(folder / "big.export").value().StoreIn(*disk, {}));
  CHECK(disk->stats().num_records == 35);
  CHECK(disk->stats().num_written == 35);
}

TEST_CASE("session import: every truncated copy is refused") {
  const Exported exported;
  const Bytes& whole = exported.forgery.bytes;
  REQUIRE(exported.OpenBytes(whole));
  for (size_t size = 0; size < whole.size(); size += size < 1000 ? 1 : 97) {
    const auto opened = exported.OpenBytes(std::span(whole).first(size));
    CHECK(CodeOf(opened) == ErrorCode::kCorrupt);
    CHECK(opened.error().message.contains(exported.folder / "changed"));
    if (size >= exported.forgery.head_bytes()) {
      CHECK(opened.error().message.contains("truncated: it has " + std::to_string(size) + " bytes"));
    }
  }
  Bytes longer = whole;
  longer.push_back({});
  CHECK(CodeOf(exported.OpenBytes(longer)) == ErrorCode::kCorrupt);
}

TEST_CASE("session import: every flipped bit is found, and where it is") {
  const Exported exported;
  std::mt19937 random(3);
  const size_t num_bytes = exported.forgery.bytes.size();
  for (size_t i = 0; i < num_bytes; i += i < 1000 ? 1 : 1 + random() % 16) {
    Bytes flipped = exported.forgery.bytes;
    flipped[i] ^= std::byte(1 << random() % 8);
    const auto opened = exported.OpenBytes(flipped);
    CAPTURE(i);
    REQUIRE_FALSE(opened);
    const bool is_version = i >= kVersionOffset && i < kVersionOffset + 4;
    if (!is_version) CHECK(opened.error().code != ErrorCode::kIo);
    if (i >= exported.forgery.head_bytes()) CHECK(opened.error().message.contains("(at byte "));
  }
}

TEST_CASE("session import: foreign files are told from damaged ones") {
  const Exported exported;
  for (const std::string_view text : {"", "KVIST", "hello, I am no session", "GGUF\3 and a model of that format"}) {
    const auto opened = exported.OpenBytes(std::as_bytes(std::span(text)));
    CHECK(CodeOf(opened) == ErrorCode::kCorrupt);
    CHECK(opened.error().message.contains("not an exported session"));
  }
  CHECK(CodeOf(SessionImport::Open(exported.folder / "none")) == ErrorCode::kNotFound);
  CHECK(CodeOf(SessionImport::Open(exported.folder / "store")) == ErrorCode::kInvalidArgument);
}

TEST_CASE("session import: newer versions of the file and of what is in it are refused as such") {
  const Exported exported;
  const auto refused = [&](const Forgery& newer) {
    const auto opened = exported.OpenBytes(newer.bytes);
    CHECK(CodeOf(opened) == ErrorCode::kUnsupported);
    CHECK(opened.error().message.contains("version 2"));
  };
  Forgery file = exported.forgery;
  file.Set<uint32_t>(kVersionOffset, 2);
  refused(file);
  Forgery manifest = exported.forgery;
  manifest.Set<uint32_t>(manifest.manifest_offset() + 8, 2);
  manifest.SealHead();
  refused(manifest);
  Forgery record = exported.forgery;
  record.Set<uint32_t>(record.head_bytes() + kFrameBytes + 8, 2);
  refused(record);
}

TEST_CASE("session import: records that are not those of the manifest are refused, though their checksums are right") {
  const Exported exported;
  const Forgery& right = exported.forgery;
  const size_t first = right.head_bytes(), first_bytes = right.record_bytes(first), second = first + first_bytes;
  REQUIRE(right.record_bytes(second) == first_bytes);
  const auto refused = [&](const Forgery& forged, std::string_view why) {
    const auto opened = exported.OpenBytes(forged.bytes);
    CHECK(CodeOf(opened) == ErrorCode::kCorrupt);
    CHECK_MESSAGE(opened.error().message.contains(why), opened.error().message);
  };
  Forgery swapped = right;
  std::swap_ranges(swapped.bytes.begin() + long(first), swapped.bytes.begin() + long(second),
                   swapped.bytes.begin() + long(second));
  refused(swapped, "its key is not");
  Forgery under_other_keys = swapped;
  std::swap_ranges(under_other_keys.bytes.begin() + long(first), under_other_keys.bytes.begin() + long(first) + 16,
                   under_other_keys.bytes.begin() + long(second));
  refused(under_other_keys, "header is of another record");
  Forgery fewer = right;
  fewer.Set(kNumRecordsOffset, uint32_t(exported.facts.num_records - 1));
  fewer.SealHead();
  refused(fewer, "its manifest names");
  for (const uint64_t payload_bytes : {uint64_t{1} << 62, UINT64_MAX}) {  // with the header's, the latter wraps round
    Forgery huge = right;
    huge.Set(first + 24, payload_bytes);
    refused(huge, "sizes can't be right");
  }
  Forgery longer = right;
  longer.bytes.push_back({});
  longer.Set(kFileBytesOffset, uint64_t(longer.bytes.size()));
  longer.SealHead();
  refused(longer, "its last record ends at byte");
  Forgery other_name = right;
  other_name.bytes[kNameOffset] = std::byte{'/'};
  other_name.SealHead();
  refused(other_name, "the session's name");
  Forgery other_manifest = right;
  other_manifest.bytes[other_manifest.manifest_offset() + 50] ^= std::byte{1};
  other_manifest.SealHead();
  refused(other_manifest, "manifest is damaged");
  // The check of the check: sealed anew without a change it is right.
  Forgery unchanged = right;
  unchanged.SealManifest();
  unchanged.SealHead();
  CHECK(exported.OpenBytes(unchanged.bytes));
}

TEST_CASE("session import: a file that changes after it was verified is not stored") {
  const Exported exported;
  const SessionImport import = SessionImport::Open(exported.path).value();
  Bytes changed = exported.forgery.bytes;
  changed[changed.size() - 5000] ^= std::byte{1};
  WriteAll(exported.path, changed);
  const auto disk = OpenStore(exported.folder / "other");
  CHECK(CodeOf(import.StoreIn(*disk, {})) == ErrorCode::kCorrupt);
  CHECK(disk->ListSessions().empty());
  WriteAll(exported.path, exported.forgery.bytes);
  const auto stop = [](int64_t done, int64_t) { return done < 3; };
  CHECK(CodeOf(import.StoreIn(*disk, {.progress = stop})) == ErrorCode::kCancelled);
  CHECK(disk->ListSessions().empty());
  CHECK(CodeOf(SessionImport::Open(exported.path, stop)) == ErrorCode::kCancelled);
}

}  // namespace
}  // namespace kvist::session_export_test
