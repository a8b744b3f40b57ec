// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "cache/tier_store.h"

#include <doctest/doctest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/address_range.h"
#if defined(__linux__)
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstddef>
#endif

#include "cache/prefixes.h"
#include "kvist/cache.h"
#include "tests/property/naive_cache.h"
#include "tier/tier_test_kit.h"

namespace kvist::tier_store_test {
namespace {

using testing::Last;
using testing::RandomStep;
using testing::RunRest;
using testing::RunStep;
using testing::SmallGeometry;
using testing::StepData;
using testing::StepOutput;

constexpr int64_t kBlock = 16;

CacheOptions Options(const TestFolder& folder, Form form = {}, size_t budget_bytes = 64 << 20) {
  return {.form = form,
          .budget_bytes = budget_bytes,
          .growth = {},
          .layer_forms = {},
          .sealing = {},
          .shares_prefixes = true,
          .tiers = {"disk:" + folder.path() + ",size=64M"},
          .model = {"test", {1, 2}}};
}

TEST_CASE("tiers: a prefix from the disk of an earlier process gives the same bits") {
  for (const Form form : {Form{}, Form{Codec::kQ4, Codec::kQ8}}) {
    for (const int window : {0, 40}) {
      CAPTURE(FormName(form));
      CAPTURE(window);
      const TestFolder folder;
      std::mt19937 random(1);
      const CacheGeometry geometry = SmallGeometry(window);
      const StepData text = RandomStep(random, geometry, 400);
      StepOutput expected;
      {
        const auto cache = Cache::Open(geometry, Options(folder, form)).value();
        Sequence sequence = cache->Begin();
        expected = RunRest(geometry, text, sequence);
      }
      const auto cache = Cache::Open(geometry, Options(folder, form)).value();
      Sequence sequence = cache->Begin();
      const ReuseReport report = sequence.Reuse(std::span(text.tokens).first(399));
      CHECK(report.num_tokens() == 24 * kBlock);
      REQUIRE(report.loaded.size() == 1);
      CHECK(report.loaded[0].tier == "disk");
      CHECK(report.loaded[0].tokens == 24 * kBlock);
      CHECK(report.shared_tokens == 0);
      // In a quantised form blocks may be sealed that are still open to the first of these tokens.
      const StepOutput out = RunRest(geometry, text, sequence);
      if (!IsQuantised(form)) CHECK(out == Last(expected, 400, 16));
      // The second time it is in memory.
      const ReuseReport again = cache->Begin().Reuse(text.tokens);
      CHECK(again.loaded.empty());
      CHECK(again.shared_tokens >= 24 * kBlock);
    }
  }
}

TEST_CASE("tiers: a prompt whose tokens are given up, cut off or taken out is there for others, later too") {
  std::mt19937 random(22);
  const CacheGeometry geometry = SmallGeometry(0);
  const StepData text = RandomStep(random, geometry, 400);
  const auto kept_after = [&](auto change) {
    const TestFolder folder;
    {
      const auto cache = Cache::Open(geometry, Options(folder)).value();
      Sequence sequence = cache->Begin();
      RunRest(geometry, text, sequence);
      change(sequence);
    }
    return Cache::Open(geometry, Options(folder)).value()->Begin().Reuse(text.tokens).num_tokens();
  };
  CHECK(kept_after([](Sequence& sequence) {
          REQUIRE(sequence.Retain({.policy = RetentionPolicy::kKnorm, .recent_tokens = 32}, 100));
        }) == 400);
  CHECK(kept_after([](Sequence& sequence) { REQUIRE(sequence.Truncate(50)); }) == 400);
  CHECK(kept_after([](Sequence& sequence) { REQUIRE(sequence.Remove(20, 300)); }) == 400);
}

TEST_CASE("tiers: what is prefetched is in memory when it is wanted, and takes no memory from others") {
  const TestFolder folder;
  std::mt19937 random(21);
  const CacheGeometry geometry = SmallGeometry(40);
  const StepData text = RandomStep(random, geometry, 400), other = RandomStep(random, geometry, 200);
  {
    const auto cache = Cache::Open(geometry, Options(folder)).value();
    Sequence sequence = cache->Begin("mine");
    RunRest(geometry, text, sequence);
  }
  const auto cache = Cache::Open(geometry, Options(folder)).value();
  cache->Prefetch(text.tokens, "yours");
  cache->Flush();
  CHECK(cache->stats().live_bytes == 0);
  cache->Prefetch(text.tokens, "mine");
  cache->Flush();
  CHECK(cache->stats().num_idle_blocks == cache->stats().num_live_blocks);
  ReuseReport report = cache->Begin("mine").Reuse(text.tokens);
  CHECK(report.shared_tokens == 24 * kBlock + (400 - 24 * kBlock));
  CHECK(report.loaded.empty());

  const size_t block_bytes = PageBytes();  // of each of the two groups
  const auto small = Cache::Open(geometry, Options(folder, {}, 26 * block_bytes)).value();
  Sequence running = small->Begin();
  RunRest(geometry, other, running);
  const size_t live_bytes = small->stats().live_bytes;
  small->Prefetch(text.tokens, "mine");
  small->Flush();
  CHECK(small->stats().live_bytes == live_bytes);
  for (int i = 0; i < 20; ++i) small->Prefetch(text.tokens, "mine");  // some are still waiting when the cache goes
}

TEST_CASE("tiers: another model, form, salt or geometry finds nothing, whatever is on the disk") {
  const TestFolder folder;
  std::mt19937 random(2);
  const CacheGeometry geometry = SmallGeometry(0);
  const StepData text = RandomStep(random, geometry, 100);
  {
    const auto cache = Cache::Open(geometry, Options(folder)).value();
    Sequence sequence = cache->Begin("mine");
    RunRest(geometry, text, sequence);
  }
  const auto reused = [&](const CacheGeometry& of, CacheOptions options, const std::string& salt) {
    return Cache::Open(of, options).value()->Begin(salt).Reuse(text.tokens).num_tokens();
  };
  CHECK(reused(geometry, Options(folder), "mine") == 96);
  CHECK(reused(geometry, Options(folder), "yours") == 0);
  CHECK(reused(geometry, Options(folder, {Codec::kF32, Codec::kF32}), "mine") == 0);
  CacheOptions other_model = Options(folder);
  other_model.model.fingerprint = {1, 3};
  CHECK(reused(geometry, other_model, "mine") == 0);
  CacheGeometry other_rope = geometry;
  other_rope.layers[0].rope.base = 500000;
  CHECK(reused(other_rope, Options(folder), "mine") == 0);
}

TEST_CASE("tiers: a record under the key of another prompt is never used") {
  const TestFolder folder;
  std::mt19937 random(3);
  const CacheGeometry geometry = SmallGeometry(0);
  const StepData mine = RandomStep(random, geometry, 64);
  StepData yours = RandomStep(random, geometry, 64);
  const CacheOptions options = Options(folder);
  {
    const auto cache = Cache::Open(geometry, options).value();
    Sequence sequence = cache->Begin();
    RunRest(geometry, mine, sequence);
  }
  const Digest root = RootDigest(geometry, options, "");
  const auto first_key = [&](const StepData& of) {
    return TierStore::KeyOf(ChildDigest(root, std::span(of.tokens).first(kBlock)), 0, false);
  };
  const auto plant = [&](const std::function<void(RecordHeader&)>& change) {
    const auto disk = DiskTier::Open(folder.path(), {}).value();
    TierRead read;
    read.key = first_key(mine);
    std::vector<std::byte> payload(LayOutGroups(geometry, Form{})[0].block_bytes);
    read.payload = payload;
    disk->Read(std::span(&read, 1));
    REQUIRE(read.is_hit);
    RecordHeader header = DecodeHeader(read.header).value();
    change(header);
    const std::vector<std::byte> encoded = EncodeHeader(header);
    const TierWrite write{first_key(yours), encoded, payload};
    REQUIRE(disk->Write(std::span(&write, 1)) == 1);
  };
  const Digest digest_of_yours = ChildDigest(root, std::span(yours.tokens).first(kBlock));
  const std::vector<Token> first_of_yours(yours.tokens.begin(), yours.tokens.begin() + kBlock);
  const auto reused = [&] { return Cache::Open(geometry, options).value()->Begin().Reuse(yours.tokens); };
  plant([](RecordHeader&) {});
  CHECK(reused().num_tokens() == 0);
  CHECK(reused().num_tokens() == 0);
  plant([&](RecordHeader& header) { header.tokens = first_of_yours; });  // the digest is another's
  CHECK(reused().reason == MissReason::kDamaged);
  plant([&](RecordHeader& header) { header.digest = digest_of_yours; });  // the tokens are another's
  CHECK(reused().num_tokens() == 0);
  plant([&](RecordHeader& header) {
    header.digest = digest_of_yours;
    header.tokens = first_of_yours;
    header.group = 1;
  });
  CHECK(reused().num_tokens() == 0);
  // The check of the check: with everything right it is used.
  plant([&](RecordHeader& header) {
    header.digest = digest_of_yours;
    header.tokens = first_of_yours;
  });
  CHECK(reused().num_tokens() == kBlock);
}

TEST_CASE("tiers: a flipped bit is a miss, and what comes before it is used") {
  const TestFolder folder;
  std::mt19937 random(4);
  const CacheGeometry geometry = SmallGeometry(0);
  const StepData text = RandomStep(random, geometry, 12 * kBlock + 1);
  StepOutput expected;
  {
    const auto cache = Cache::Open(geometry, Options(folder)).value();
    Sequence sequence = cache->Begin();
    expected = RunRest(geometry, text, sequence);
  }
  REQUIRE(folder.Files("segments").size() == 1);
  const auto segment = folder.Files("segments")[0];
  std::vector<char> bytes(std::filesystem::file_size(segment));
  std::ifstream(segment, std::ios::binary).read(bytes.data(), std::ssize(bytes));
  int num_shorter = 0;
  for (int round = 0; round < 60; ++round) {
    for (const auto& file : folder.Files("segments"))
      std::filesystem::remove(file);  // earlier rounds mended what was missing
    std::vector<char> flipped = bytes;
    flipped[random() % flipped.size()] ^= char(1 << random() % 8);
    std::ofstream(segment, std::ios::binary | std::ios::trunc).write(flipped.data(), std::ssize(flipped));
    const auto cache = Cache::Open(geometry, Options(folder)).value();
    Sequence sequence = cache->Begin();
    sequence.Reuse(text.tokens);
    num_shorter += sequence.num_tokens() < 12 * kBlock;
    CHECK(RunRest(geometry, text, sequence) ==
          Last(expected, std::ssize(text.tokens), std::ssize(text.tokens) - sequence.num_tokens()));
  }
  CHECK(num_shorter > 30);
}

TEST_CASE("tiers: what had to make room comes back from the disk") {
  const TestFolder folder;
  std::mt19937 random(5);
  const CacheGeometry geometry = SmallGeometry(0);
  const size_t block_bytes = LayOutGroups(geometry, Form{})[0].block_bytes;
  const auto cache = Cache::Open(geometry, Options(folder, {}, 40 * block_bytes)).value();
  std::vector<StepData> texts;
  for (int i = 0; i < 8; ++i) {
    texts.push_back(RandomStep(random, geometry, 15 * kBlock));
    Sequence sequence = cache->Begin();
    RunRest(geometry, texts.back(), sequence);
  }
  for (const StepData& text : texts) {
    const ReuseReport report = cache->Begin().Reuse(text.tokens);
    CHECK(report.num_tokens() == 15 * kBlock);
    CHECK(cache->stats().committed_bytes <= 40 * block_bytes);
  }
  // No more than there is room for.
  std::vector<Sequence> held;
  for (const StepData& text : texts) {
    held.push_back(cache->Begin());
    const ReuseReport report = held.back().Reuse(text.tokens);
    CHECK((report.num_tokens() == 15 * kBlock || report.reason == MissReason::kNoRoom));
  }
  CHECK(cache->stats().committed_bytes <= 40 * block_bytes);
}

#if defined(__linux__) && defined(MADV_POPULATE_WRITE)
// From now on the system has no memory for this process that is asked for ahead. Nothing else shows it so exactly: a
// machine whose memory is used up kills.
bool RefuseMemory() {
  const sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_madvise, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[2])),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MADV_POPULATE_WRITE, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOMEM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog filter{std::size(program), const_cast<sock_filter*>(program)};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

TEST_CASE("tiers: a machine that has no memory for what is stored is no room, and nothing is kept of it") {
  const TestFolder folder;
  std::mt19937 random(9);
  const CacheGeometry geometry = SmallGeometry(0);
  const StepData text = RandomStep(random, geometry, 20 * kBlock);
  {
    const auto cache = Cache::Open(geometry, Options(folder)).value();
    Sequence sequence = cache->Begin();
    RunRest(geometry, text, sequence);
  }
  constexpr int kCantRefuse = 9;
  const pid_t child = fork();
  if (child == 0) {
    if (!RefuseMemory()) _exit(kCantRefuse);
    const auto cache = Cache::Open(geometry, Options(folder)).value();
    const ReuseReport report = cache->Begin().Reuse(text.tokens);
    const CacheStats stats = cache->stats();
    if (report.num_tokens() != 0) _exit(1);
    if (report.reason != MissReason::kNoRoom) _exit(2);
    if (stats.live_bytes != 0 || stats.committed_bytes != 0) _exit(3);
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  REQUIRE(WIFEXITED(status));
  if (WEXITSTATUS(status) != kCantRefuse) CHECK(WEXITSTATUS(status) == 0);
}
#endif

TEST_CASE("tiers: loading is not done where it takes longer than computing") {
  const TestFolder folder;
  std::mt19937 random(6);
  const CacheGeometry geometry = SmallGeometry(0);
  const StepData text = RandomStep(random, geometry, 200);
  const CacheOptions options = Options(folder);
  {
    const auto cache = Cache::Open(geometry, options).value();
    Sequence sequence = cache->Begin();
    RunRest(geometry, text, sequence);
  }
  // The cost of loading is learned from the first time; then computing is said to be fast, or slow.
  for (const double seconds_a_token : {1e-12, 1.0}) {
    const auto cache = Cache::Open(geometry, options).value();
    CHECK(cache->Begin("learns").Reuse(text.tokens).num_tokens() == 0);
    StepData part = text.Part(geometry, 0, 32);
    CHECK(cache->Begin().Reuse(part.tokens).num_tokens() == 32);
    for (int i = 0; i < 50; ++i) cache->NoteComputing(double(i), seconds_a_token);
    const ReuseReport report = cache->Begin().Reuse(text.tokens);
    CHECK((report.reason == MissReason::kSlower) == (seconds_a_token < 1e-6));
    CHECK(report.num_tokens() == (seconds_a_token < 1e-6 ? 32 : 192));
  }
}

TEST_CASE("sessions: a sequence of another cache is refused") {
  const TestFolder folder;
  const CacheGeometry geometry = SmallGeometry(0);
  const auto cache = Cache::Open(geometry, Options(folder)).value();
  const auto other = Cache::Open(geometry, {}).value();
  const Status refused = cache->Save("x", other->Begin());
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == ErrorCode::kInvalidArgument);
  CHECK(cache->ListSessions().value().empty());
}

TEST_CASE("tiers: where memory is short the beginning of a text stays, without which the rest can't be found") {
  const TestFolder folder;
  std::mt19937 random(4);
  const CacheGeometry geometry = SmallGeometry(0);
  const size_t block_bytes = LayOutGroups(geometry, Form{})[0].block_bytes;
  const auto cache = Cache::Open(geometry, Options(folder, {}, 40 * block_bytes)).value();
  const StepData text = RandomStep(random, geometry, 30 * kBlock), other = RandomStep(random, geometry, 15 * kBlock);
  {
    Sequence sequence = cache->Begin();
    RunRest(geometry, text, sequence);
  }
  cache->Flush();
  Sequence running = cache->Begin();
  RunRest(geometry, other, running);
  const ReuseReport report = cache->Begin().Reuse(text.tokens);
  CHECK(report.shared_tokens >= 15 * kBlock);
}

TEST_CASE("sessions: a long one does not push its own blocks out of a small tier that others fill") {
  const TestFolder folder;
  std::mt19937 random(6);
  const CacheGeometry geometry = SmallGeometry(0);
  CacheOptions options = Options(folder);
  options.tiers = {"disk:" + folder.path() + ",size=2M"};
  const auto cache = Cache::Open(geometry, options).value();
  for (int i = 0; i < 40; ++i) {
    Sequence sequence = cache->Begin();
    RunRest(geometry, RandomStep(random, geometry, 15 * kBlock), sequence);
  }
  cache->Flush();
  const StepData text = RandomStep(random, geometry, 150 * kBlock);
  Sequence sequence = cache->Begin();
  RunRest(geometry, text, sequence);
  const Status saved = cache->Save("long", sequence);
  REQUIRE_MESSAGE(saved, (saved ? "" : saved.error().message));
  const auto later = Cache::Open(geometry, options).value();
  CHECK(later->Resume("long")->sequence.num_tokens() == 150 * kBlock);
}

TEST_CASE("sessions: what another program has saved meanwhile is not replaced") {
  const TestFolder folder;
  std::mt19937 random(9);
  const CacheGeometry geometry = SmallGeometry(0);
  const StepData text = RandomStep(random, geometry, 100);
  const auto mine = Cache::Open(geometry, Options(folder)).value();
  const auto theirs = Cache::Open(geometry, Options(folder)).value();
  const auto with_tokens = [&](Cache& cache, int64_t num_tokens) {
    Sequence sequence = cache.Begin();
    RunRest(geometry, text.Part(geometry, 0, num_tokens), sequence);
    return sequence;
  };
  const auto save = [&](Cache& cache, int64_t num_tokens) {
    return cache.Save("chat", with_tokens(cache, num_tokens));
  };
  const auto num_saved = [&] {
    return std::ssize(Cache::Open(geometry, Options(folder)).value()->Resume("chat")->tokens);
  };

  // Both find that there is none yet; the first to save has it.
  CHECK(mine->Resume("chat").error().code == ErrorCode::kNotFound);
  CHECK(theirs->Resume("chat").error().code == ErrorCode::kNotFound);
  REQUIRE(save(*mine, 40));
  CHECK(save(*theirs, 50).error().code == ErrorCode::kFailedPrecondition);
  CHECK(num_saved() == 40);
  REQUIRE(save(*mine, 60));

  REQUIRE(theirs->Resume("chat"));
  REQUIRE(save(*theirs, 70));
  CHECK(save(*mine, 80).error().message.find("saved by somebody else") != std::string::npos);
  CHECK(num_saved() == 70);
  REQUIRE(mine->Resume("chat"));
  REQUIRE(save(*mine, 80));

  // Nothing is lost where it is gone, or damaged.
  REQUIRE(mine->RemoveSession("chat"));
  REQUIRE(save(*theirs, 90));
  REQUIRE(mine->Resume("chat"));
  const auto file = folder.Files("sessions").at(0);
  FlipBit(file, 8 * 30);
  REQUIRE(save(*mine, 30));
  CHECK(num_saved() == 30);
  // Who has never asked for it means what is said.
  REQUIRE(save(*Cache::Open(geometry, Options(folder)).value(), 35));
  CHECK(num_saved() == 35);
}

TEST_CASE("tiers: loading is weighed against what would be computed instead, and only what was loaded is reported") {
  const TestFolder folder;
  std::mt19937 random(8);
  const CacheGeometry geometry = SmallGeometry(0);
  const StepData text = RandomStep(random, geometry, 200);
  const CacheOptions options = Options(folder);
  {
    const auto cache = Cache::Open(geometry, options).value();
    Sequence sequence = cache->Begin();
    RunRest(geometry, text, sequence);
  }
  const auto cache = Cache::Open(geometry, options).value();
  const StepData most = text.Part(geometry, 0, 176);
  Sequence in_memory = cache->Begin();
  const ReuseReport loaded = in_memory.Reuse(most.tokens);
  REQUIRE(loaded.num_tokens() == 176);
  REQUIRE(loaded.loaded.size() == 1);
  CHECK(loaded.loaded[0].tokens == 176);
  // Computing the last 16 tokens takes less than loading them, computing all 192 would take more.
  for (int i = 0; i < 50; ++i) cache->NoteComputing(double(i), loaded.loaded[0].seconds / 704);
  const ReuseReport more = cache->Begin().Reuse(text.tokens);
  CHECK(more.num_tokens() == 176);
  CHECK(more.reason == MissReason::kSlower);
  for (int i = 0; i < 200; ++i) cache->NoteComputing(double(i), 1.0);
  const ReuseReport all = cache->Begin().Reuse(text.tokens);
  CHECK(all.num_tokens() == 192);
  REQUIRE(all.loaded.size() == 1);
  CHECK(all.loaded[0].tokens == 16);
}

TEST_CASE("sessions: one that was saved goes on with the same bits, in every form, in another process") {
  for (const Form form : {Form{}, Form{Codec::kQ4, Codec::kQ8}}) {
    for (const int window : {0, 40}) {
      CAPTURE(FormName(form));
      CAPTURE(window);
      const TestFolder folder;
      std::mt19937 random(7);
      const CacheGeometry geometry = SmallGeometry(window);
      const StepData text = RandomStep(random, geometry, 420), begin = text.Part(geometry, 0, 405);
      const auto notes = std::as_bytes(std::span(std::string_view("turn 1")));
      StepOutput expected;
      {
        const auto cache = Cache::Open(geometry, Options(folder, form)).value();
        Sequence sequence = cache->Begin("me");
        RunRest(geometry, begin, sequence);
        REQUIRE(cache->Save("my-chat", sequence, notes));
        expected = RunRest(geometry, text, sequence);
        // Other tokens in the block that was shared with the session are not saved.
        CHECK(cache->ListSessions().value().size() == 1);
      }
      const auto cache = Cache::Open(geometry, Options(folder, form)).value();
      ResumedSession session = cache->Resume("my-chat").value();
      CHECK(session.tokens == begin.tokens);
      CHECK(std::ranges::equal(session.notes, notes));
      CHECK(session.sequence.num_tokens() == 405);
      CHECK(session.reuse.reason == MissReason::kNone);
      CHECK(RunRest(geometry, text, session.sequence) == expected);
      // Saved again, with little more to write; then removed.
      REQUIRE(cache->Save("my-chat", session.sequence));
      CHECK(cache->Resume("my-chat").value().sequence.num_tokens() == 420);
      REQUIRE(cache->RemoveSession("my-chat"));
      CHECK(cache->Resume("my-chat").error().code == ErrorCode::kNotFound);
    }
  }
}

TEST_CASE("sessions: another model, form or damaged blocks give the tokens and what is left") {
  const TestFolder folder;
  std::mt19937 random(8);
  const CacheGeometry geometry = SmallGeometry(0);
  const StepData text = RandomStep(random, geometry, 100);
  {
    const auto cache = Cache::Open(geometry, Options(folder)).value();
    Sequence sequence = cache->Begin();
    RunRest(geometry, text, sequence);
    REQUIRE(cache->Save("chat", sequence));
  }
  {
    const auto cache = Cache::Open(geometry, Options(folder, {Codec::kF32, Codec::kF32})).value();
    const ResumedSession session = cache->Resume("chat").value();
    CHECK(session.tokens == text.tokens);
    CHECK(session.sequence.num_tokens() == 0);
    CHECK(session.reuse.reason == MissReason::kOtherForm);
  }
  const auto segment = folder.Files("segments")[0];
  std::vector<char> bytes(std::filesystem::file_size(segment));
  std::ifstream(segment, std::ios::binary).read(bytes.data(), std::ssize(bytes));
  bytes[bytes.size() / 2] ^= 1;
  std::ofstream(segment, std::ios::binary).write(bytes.data(), std::ssize(bytes));
  const auto cache = Cache::Open(geometry, Options(folder)).value();
  const ResumedSession session = cache->Resume("chat").value();
  CHECK(session.tokens == text.tokens);
  CHECK(session.sequence.num_tokens() < 100);
  CHECK(session.reuse.reason == MissReason::kDamaged);
}

TEST_CASE("sessions: without a disk tier there are none") {
  const CacheGeometry geometry = SmallGeometry(0);
  const auto cache = Cache::Open(geometry, {.form = {}, .budget_bytes = 1 << 20}).value();
  CHECK(cache->Save("chat", cache->Begin()).error().code == ErrorCode::kFailedPrecondition);
  CHECK(cache->Resume("chat").error().code == ErrorCode::kFailedPrecondition);
}

TEST_CASE("tiers: what is wrong with the options is said") {
  const CacheGeometry geometry = SmallGeometry(0);
  const TestFolder folder;
  const auto message = [&](const std::function<void(CacheOptions&)>& change) {
    CacheOptions options = Options(folder);
    change(options);
    const auto cache = Cache::Open(geometry, options);
    REQUIRE_FALSE(cache);
    CHECK(cache.error().code == ErrorCode::kInvalidArgument);
    return cache.error().message;
  };
  CHECK(message([](CacheOptions& o) { o.shares_prefixes = false; }).contains("shares_prefixes"));
  CHECK(message([](CacheOptions& o) { o.model = {}; }).contains("fingerprint"));
  CHECK(message([](CacheOptions& o) { o.tiers = {"tape:/dev/st0"}; }).contains("disk:PATH"));
  CHECK(message([](CacheOptions& o) { o.tiers = {"disk:/tmp/x,size=many"}; }).contains("'many'"));
  CHECK(message([](CacheOptions& o) { o.tiers = {"disk:/tmp/x,seize=8G"}; }).contains("'seize'"));
  CHECK(message([](CacheOptions& o) { o.tiers = {"disk:"}; }).contains("path"));
  CHECK(message([](CacheOptions& o) { o.tiers = {"redis://localhost:99999"}; }).contains("port"));
  const std::string hidden = message([](CacheOptions& o) { o.tiers = {"redis://me:secret@host:0"}; });
  CHECK_FALSE(hidden.contains("secret"));
  const std::string with_at = message([](CacheOptions& o) { o.tiers = {"redis://me:my@secret@host:0"}; });
  CHECK_FALSE(with_at.contains("secret"));
  CHECK(with_at.contains("host"));
}

}  // namespace
}  // namespace kvist::tier_store_test
