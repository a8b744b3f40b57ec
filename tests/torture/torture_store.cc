// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
// Kills processes that write to a disk tier, damages files, and looks at whether anything that was saved is lost or
// anything wrong is read. Usage: torture_store [--rounds N] [--seed S] [--folder PATH]; exits with 1 if so.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "tier/disk_tier.h"
#include "tier/segment.h"
#include "tier/session_file.h"
#include "tier/tier_test_kit.h"

namespace kvist {
namespace {

namespace fs = std::filesystem;
using Random = std::mt19937_64;

constexpr uint64_t kNumRecords = 150, kNumSessions = 5;
constexpr uint64_t kMaxSessionRecords = 12;
constexpr DiskTierOptions kOptions{.limit_bytes = uint64_t{2} << 20, .segment_bytes = 60'000};

size_t PayloadBytes(uint64_t number) {
  return 500 + number * 977 % 20'000;
}
TestRecord MakeRecord(uint64_t number, uint64_t version) {
  return MakeTestRecord(number, version, PayloadBytes(number));
}
std::string SessionName(uint64_t session) {
  return "session-" + std::to_string(session);
}

// A session's manifest: its version, then the numbers of its records.
std::vector<std::byte> MakeManifest(const std::vector<uint64_t>& numbers) {
  const auto bytes = std::as_bytes(std::span(numbers));
  return {bytes.begin(), bytes.end()};
}
std::vector<uint64_t> ParseManifest(const std::vector<std::byte>& bytes) {
  std::vector<uint64_t> numbers(bytes.size() / sizeof(uint64_t));
  std::memcpy(numbers.data(), bytes.data(), numbers.size() * sizeof(uint64_t));
  return numbers;
}

// --- the process that is killed ---

enum class Event : uint32_t { kSaves, kSaved, kFailed, kRemoves, kRemoved };
struct Report {
  Event event;
  uint32_t session;
  uint64_t version;
};

class Writer {
 public:
  Writer(DiskTier& tier, uint64_t seed, int reports) : tier_(tier), random_(seed), reports_(reports) {}

  void Run() {
    while (true) {
      const uint64_t choice = random_() % 100;
      if (choice < 50) {
        WriteSome();
      } else if (choice < 75) {
        SaveOne();
      } else if (choice < 80) {
        RemoveOne();
      } else if (choice < 90) {
        const RecordKey key = TestKey(random_() % kNumRecords);
        tier_.Erase({&key, 1});
      } else {
        const uint64_t number = random_() % kNumRecords;
        if (ReadTestRecord(tier_, number, PayloadBytes(number)) == TestReading::kWrong) _exit(3);
      }
    }
  }

 private:
  void WriteSome() {
    std::vector<TestRecord> records(1 + random_() % 6);
    for (TestRecord& record : records) record = MakeRecord(random_() % kNumRecords, random_());
    WriteTestRecords(tier_, records);
  }

  void SaveOne() {
    if (reports_ < 0) return;
    const uint32_t session = uint32_t(random_() % kNumSessions);
    std::vector<uint64_t> manifest = {random_() >> 1};
    std::vector<RecordKey> keys;
    for (uint64_t i = random_() % kMaxSessionRecords; i > 0; --i) {
      const uint64_t number = random_() % kNumRecords;
      // One that lies there damaged would stay so.
      if (ReadTestRecord(tier_, number, PayloadBytes(number)) != TestReading::kRight) continue;
      manifest.push_back(number);
      keys.push_back(TestKey(number));
    }
    Tell(Event::kSaves, session, manifest[0]);
    const Status saved = tier_.SaveSession(SessionName(session), MakeManifest(manifest), keys);
    Tell(saved ? Event::kSaved : Event::kFailed, session, manifest[0]);
  }

  void RemoveOne() {
    if (reports_ < 0) return;
    const uint32_t session = uint32_t(random_() % kNumSessions);
    Tell(Event::kRemoves, session, 0);
    const Status removed = tier_.RemoveSession(SessionName(session));
    if (removed || removed.error().code == ErrorCode::kNotFound) Tell(Event::kRemoved, session, 0);
  }

  void Tell(Event event, uint32_t session, uint64_t version) {
    const Report report{event, session, version};
    if (write(reports_, &report, sizeof report) != sizeof report) _exit(4);
  }

  DiskTier& tier_;
  Random random_;
  int reports_;  // none: it leaves sessions alone
};

pid_t StartWriter(const std::string& path, uint64_t seed, int reports) {
  const pid_t child = fork();
  if (child != 0) return child;
  auto tier = DiskTier::Open(path, kOptions);
  if (!tier) _exit(2);
  Writer(**tier, seed, reports).Run();
  _exit(0);
}

// --- the one that looks ---

constexpr uint64_t kNone = UINT64_MAX;  // the version of a session that is not there

class Torture {
 public:
  explicit Torture(uint64_t seed) : random_(seed) {
    for (uint64_t i = 0; i < kNumSessions; ++i) possible_[i] = {kNone};
  }

  void Round() {
    ++num_rounds_;
    RunWriters();
    if (random_() % 2 == 0) DamageSomething();
    Check();
  }

  // Prints the result; true when all is well.
  bool PrintResult() const {
    std::printf(
        "rounds %d, saves %d, lost %d, wrong %d, crashes %d, other faults %d (killed amid a save %d, damaged %d)\n",
        num_rounds_, num_saves_, num_lost_, num_wrong_, num_crashes_, num_other_, num_amid_, num_damaged_);
    return num_lost_ + num_wrong_ + num_crashes_ + num_other_ == 0;
  }

 private:
  void RunWriters() {
    int ends[2];
    if (pipe(ends) != 0) std::abort();
    std::vector<pid_t> children = {StartWriter(folder_.path(), random_(), ends[1])};
    if (random_() % 2 == 0) children.push_back(StartWriter(folder_.path(), random_(), -1));
    close(ends[1]);
    std::this_thread::sleep_for(std::chrono::microseconds(1000 + random_() % 29'000));
    for (const pid_t child : children) kill(child, SIGKILL);
    for (const pid_t child : children) {
      int status = 0;
      waitpid(child, &status, 0);
      num_crashes_ += !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL;
    }
    Report report;
    while (read(ends[0], &report, sizeof report) == sizeof report) Note(report);
    close(ends[0]);
  }

  void Note(const Report& report) {
    std::set<uint64_t>& possible = possible_[report.session];
    switch (report.event) {
      case Event::kSaves:
        possible.insert(report.version);
        break;
      case Event::kSaved:
        possible = {report.version};
        ++num_saves_;
        break;
      case Event::kFailed:
        possible.erase(report.version);
        break;
      case Event::kRemoves:
        possible.insert(kNone);
        break;
      case Event::kRemoved:
        possible = {kNone};
    }
  }

  // Mostly what no session needs. Sessions that it concerns are no longer expected to be whole.
  void DamageSomething() {
    const auto segments = folder_.Files("segments");
    if (segments.empty()) return;
    const fs::path victim = segments[random_() % segments.size()];
    const std::set<uint64_t> concerned = SessionsConcernedBy(victim);
    if (!concerned.empty() && random_() % 5 != 0) return;
    std::error_code error;
    const uint64_t bytes = fs::file_size(victim, error);
    switch (random_() % 4) {
      case 0:
        FlipBit(victim, bytes);
        break;
      case 1:
        fs::resize_file(victim, random_() % (bytes + 1), error);
        break;
      case 2:
        fs::resize_file(victim, 0, error);
        break;
      default:
        std::ofstream(victim.parent_path() / ("foreign-" + std::to_string(random_() % 3) + ".seg")) << "foreign";
        return;
    }
    ++num_damaged_;
    damaged_.insert(concerned.begin(), concerned.end());
  }

  void FlipBit(const fs::path& path, uint64_t file_bytes) {
    // Every second time where the table and the headers are.
    const uint64_t end = random_() % 2 ? std::min<uint64_t>(file_bytes, 1500) : file_bytes;
    if (end == 0) return;
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    const auto offset = std::streamoff(random_() % end);
    file.seekg(offset);
    const char byte = char(file.get() ^ (1 << random_() % 8));
    file.seekp(offset);
    file.put(byte);
  }

  // Those that need the segment, or one of whose records is in it, too.
  std::set<uint64_t> SessionsConcernedBy(const fs::path& segment) {
    const File segments = OpenFolder(segment.parent_path()).value(), sessions = OpenSessions();
    std::set<RecordKey> keys;
    if (const auto file = OpenToRead(segments, segment.filename())) {
      const auto table = ReadTable(*file);
      if (table) std::ranges::transform(table->records, std::inserter(keys, keys.end()), &SegmentRecord::key);
    }
    std::set<uint64_t> concerned;
    for (uint64_t i = 0; i < kNumSessions; ++i) {
      const auto file = OpenToRead(sessions, SessionFileName(SessionName(i)));
      const auto table = file ? ReadSessionTable(*file) : std::unexpected(file.error());
      if (!table) continue;
      const bool needs_it = std::ranges::any_of(
          table->segments, [&](const FileId& id) { return SegmentFileName(id) == segment.filename(); });
      const bool has_record =
          std::ranges::any_of(table->keys, [&](const SessionTable::Key& key) { return keys.contains(key.key); });
      if (needs_it || has_record) concerned.insert(i);
    }
    return concerned;
  }

  File OpenSessions() { return OpenFolder(folder_.path() + "/sessions").value(); }

  void Check() {
    auto tier = DiskTier::Open(folder_.path(), kOptions);
    if (!tier) {
      Complain("can't be opened");
      return;
    }
    if (!folder_.Files("tmp").empty()) Complain("temporary files are left");
    for (uint64_t i = 0; i < kNumSessions; ++i) CheckSession(**tier, i);
    for (uint64_t number = 0; number < kNumRecords; ++number) {
      num_wrong_ += ReadTestRecord(**tier, number, PayloadBytes(number)) == TestReading::kWrong;
    }
    RemoveWhatIsNotOurs();
    // What was found to be damaged goes with the next write.
    WriteTestRecords(**tier, {MakeRecord(0, 0)});
    if (folder_.DiskUse() > kOptions.limit_bytes) Complain("the limit is exceeded");
    if ((*tier)->stats().bytes != folder_.DiskUse()) Complain("the bytes are miscounted");
  }

  void CheckSession(DiskTier& tier, uint64_t session) {
    std::set<uint64_t>& possible = possible_[session];
    const auto manifest = tier.ReadSession(SessionName(session));
    const bool is_there = manifest || manifest.error().code != ErrorCode::kNotFound;
    num_amid_ += possible.size() > 1;
    if (!manifest && (is_there || !possible.contains(kNone))) {
      Lose(session, "can't be read");
    } else if (manifest) {
      const std::vector<uint64_t> numbers = ParseManifest(*manifest);
      if (!possible.contains(numbers.at(0))) Lose(session, "is another than was saved");
      possible = {numbers[0]};
      if (!AreRecordsRight(tier, numbers) && !damaged_.contains(session)) Lose(session, "lacks records");
    } else {
      possible = {kNone};
    }
    if (damaged_.erase(session) == 0) return;
    if (is_there && !tier.RemoveSession(SessionName(session))) Complain("a session can't be removed");
    possible = {kNone};
  }

  bool AreRecordsRight(DiskTier& tier, const std::vector<uint64_t>& manifest) {
    return std::all_of(manifest.begin() + 1, manifest.end(), [&](uint64_t number) {
      return ReadTestRecord(tier, number, PayloadBytes(number)) == TestReading::kRight;
    });
  }

  // A flipped bit can make a segment one of a newer version, or none: it stays for ever and counts for nothing.
  void RemoveWhatIsNotOurs() {
    for (const fs::path& path : folder_.Files("segments")) {
      const File segments = OpenFolder(path.parent_path()).value();
      const auto file = OpenToRead(segments, path.filename());
      const auto table = file ? ReadTable(*file) : std::unexpected(file.error());
      if (!table && table.error().code != ErrorCode::kCorrupt) fs::remove(path);
    }
  }

  void Lose(uint64_t session, const char* what) {
    ++num_lost_;
    std::fprintf(stderr, "round %d: session %d %s\n", num_rounds_, int(session), what);
  }
  void Complain(const char* what) {
    ++num_other_;
    std::fprintf(stderr, "round %d: %s\n", num_rounds_, what);
  }

  Random random_;
  TestFolder folder_;
  std::map<uint64_t, std::set<uint64_t>> possible_;  // session to the versions that may be found
  std::set<uint64_t> damaged_;
  int num_rounds_ = 0, num_saves_ = 0, num_lost_ = 0, num_wrong_ = 0, num_crashes_ = 0, num_other_ = 0;
  int num_amid_ = 0, num_damaged_ = 0;
};

int Main(int argc, char** argv) {
  int rounds = 200;
  uint64_t seed = 1;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string option = argv[i];
    if (option == "--rounds") {
      rounds = std::atoi(argv[i + 1]);
    } else if (option == "--seed") {
      seed = std::strtoull(argv[i + 1], nullptr, 10);
    } else if (option == "--folder") {
      setenv("TMPDIR", argv[i + 1], 1);
    } else {
      std::fprintf(stderr, "usage: torture_store [--rounds N] [--seed S] [--folder PATH]\n");
      return 2;
    }
  }
  Torture torture(seed);
  for (int i = 0; i < rounds; ++i) torture.Round();
  return torture.PrintResult() ? 0 : 1;
}

}  // namespace
}  // namespace kvist

int main(int argc, char** argv) {
  return kvist::Main(argc, argv);
}
