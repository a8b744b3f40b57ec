// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "storage/block_table.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <utility>
#include <vector>

namespace kvist::block_table_test {
namespace {

constexpr int kBlockTokens = 16;

struct Fixture {
  explicit Fixture(size_t num_blocks = 100)
      : budget(num_blocks * PageBytes()), pool(BlockPool::Open(PageBytes(), 1000, &budget).value()) {}
  size_t num_live() const { return pool->stats().num_live_blocks; }
  BlockTable Table() { return BlockTable(pool.get(), nullptr, {}, kBlockTokens); }

  MemoryBudget budget;
  std::unique_ptr<BlockPool> pool;
};

// Positions follow each other without a gap, slots lie inside their blocks, and the ends agree.
void CheckConsistent(const BlockTable& table) {
  int64_t position = table.begin_position();
  for (const BlockRef& ref : table.refs()) {
    CHECK(ref.position == position);
    CHECK(ref.num_slots > 0);
    CHECK(ref.first_slot >= 0);
    CHECK(ref.first_slot + ref.num_slots <= kBlockTokens);
    CHECK(ref.delta <= 0);
    position = ref.end_position();
  }
  CHECK(position == table.end_position());
}

std::vector<uint64_t> Versions(const BlockTable& table) {
  std::vector<uint64_t> versions;
  for (const BlockRef& ref : table.refs()) versions.push_back(ref.version);
  return versions;
}

TEST_CASE("block table: a ref has another version when, and only when, its slots hold something else") {
  Fixture fixture;
  BlockTable table(fixture.pool.get(), fixture.pool.get(), {.recent_tokens = 16, .sink_tokens = 0}, kBlockTokens);
  REQUIRE(table.Grow(40));
  const auto grown = Versions(table);
  CHECK(std::ranges::find(grown, 0u) == grown.end());
  CHECK(std::ranges::adjacent_find(grown, std::greater_equal()) == grown.end());
  table.FinishSealing();
  const auto sealed = Versions(table);
  CHECK(sealed[0] > grown.back());
  CHECK(sealed[2] == grown[2]);
  REQUIRE(table.Grow(3));
  const auto longer = Versions(table);
  CHECK(std::pair(longer[0], longer[1]) == std::pair(sealed[0], sealed[1]));
  CHECK(longer[2] > sealed[0]);
  BlockTable fork = table;
  CHECK(Versions(fork) == longer);
  fork.Truncate(33);
  CHECK(Versions(fork)[2] > longer[2]);
  fork.Truncate(33);
  CHECK(Versions(fork)[1] == longer[1]);
  table.Remove(18, 20);  // out of the second block; the third moves
  const auto removed = Versions(table);
  CHECK(removed[0] == longer[0]);
  CHECK(removed[1] > longer[2]);
  CHECK(removed[2] > removed[1]);
  CHECK(removed[3] == longer[2]);
}

TEST_CASE("block table: growing fills the open block before it takes another") {
  Fixture fixture;
  BlockTable table = fixture.Table();
  CHECK(table.end_position() == 0);
  int64_t num_tokens = 0;
  for (const int64_t step : {1, 14, 1, 1, 40, 7, 16}) {
    const auto copied = table.Grow(step);
    REQUIRE(copied);
    CHECK(*copied == 0);
    num_tokens += step;
    CHECK(table.end_position() == num_tokens);
    CHECK(fixture.num_live() == size_t((num_tokens + kBlockTokens - 1) / kBlockTokens));
    CHECK(table.refs().size() == fixture.num_live());
    CheckConsistent(table);
  }
  table.Truncate(33);
  CHECK(table.end_position() == 33);
  CHECK(fixture.num_live() == 3);
  CheckConsistent(table);
  table.Truncate(32);
  CHECK(fixture.num_live() == 2);
  REQUIRE(table.Grow(1));
  CHECK(fixture.num_live() == 3);
  table.Truncate(0);
  CHECK(fixture.num_live() == 0);
  CHECK(table.refs().empty());
}

TEST_CASE("block table: copies share blocks until one of them appends to the open one") {
  Fixture fixture;
  BlockTable table = fixture.Table();
  REQUIRE(table.Grow(20));
  std::memset(fixture.pool->data(table.refs()[1].block), 7, PageBytes());
  BlockTable copy = table;
  CHECK(fixture.num_live() == 2);
  const BlockId shared = table.refs()[1].block;

  CHECK(copy.Grow(3).value() == PageBytes());
  CHECK(fixture.num_live() == 3);
  CHECK(copy.refs()[0].block == table.refs()[0].block);
  CHECK(table.refs()[1].block == shared);
  CHECK(copy.refs()[1].block != shared);
  CHECK(std::memcmp(fixture.pool->data(shared), fixture.pool->data(copy.refs()[1].block), PageBytes()) == 0);
  CheckConsistent(copy);

  CHECK(table.Grow(3).value() == 0);  // it has its block to itself now
  CHECK(table.refs()[1].block == shared);
  CHECK(fixture.num_live() == 3);
}

TEST_CASE("block table: a full shared block is not copied") {
  Fixture fixture;
  BlockTable table = fixture.Table();
  REQUIRE(table.Grow(32));
  BlockTable copy = table;
  CHECK(copy.Grow(1).value() == 0);
  CHECK(fixture.num_live() == 3);
}

TEST_CASE("block table: a copy of a copy-on-write goes with further blocks in one step") {
  Fixture fixture;
  BlockTable table = fixture.Table();
  REQUIRE(table.Grow(20));
  BlockTable copy = table;
  CHECK(copy.Grow(12 + 17).value() == PageBytes());
  CHECK(fixture.num_live() == 2 + 1 + 2);
  CHECK(copy.refs().size() == 4);
  CHECK(copy.refs()[3].num_slots == 1);
  CHECK(table.end_position() == 20);
  CheckConsistent(copy);
}

TEST_CASE("block table: a growth that fails leaves everything as it was, references included") {
  Fixture fixture(4);
  BlockTable table = fixture.Table();
  REQUIRE(table.Grow(20));
  {
    BlockTable copy = table;
    for (const int64_t too_many : {13 + 32, 12 + 33, 1000, 100000}) {
      const auto refused = copy.Grow(too_many);  // one block to copy and three or more to add; two are there
      REQUIRE(!refused);
      CHECK(refused.error().code == ErrorCode::kOutOfMemory);
      CHECK(copy.end_position() == 20);
      CHECK(copy.refs().size() == 2);
      CHECK(copy.refs()[1].num_slots == 4);
      CHECK(copy.refs()[1].block == table.refs()[1].block);
      CHECK(fixture.num_live() == 2);
    }
    CHECK(copy.Grow(12 + 16));  // exactly what is there
    CHECK(fixture.num_live() == 4);
  }
  CHECK(fixture.num_live() == 2);
  CHECK_FALSE(fixture.pool->IsShared(table.refs()[0].block));
  CHECK_FALSE(fixture.pool->IsShared(table.refs()[1].block));
}

TEST_CASE("block table: removing inside a block splits it, and both halves hold it") {
  Fixture fixture;
  BlockTable table = fixture.Table();
  REQUIRE(table.Grow(40));
  const BlockId block = table.refs()[1].block;
  table.Remove(18, 25);
  CheckConsistent(table);
  CHECK(table.end_position() == 33);
  REQUIRE(table.refs().size() == 4);
  CHECK(table.refs()[1].block == block);
  CHECK(table.refs()[1].num_slots == 2);
  CHECK(table.refs()[1].delta == 0);
  CHECK(table.refs()[2].block == block);
  CHECK(table.refs()[2].first_slot == 9);
  CHECK(table.refs()[2].num_slots == 7);
  CHECK(table.refs()[2].delta == -7);
  CHECK(table.refs()[3].delta == -7);
  CHECK(fixture.pool->IsShared(block));
  CHECK(fixture.num_live() == 3);

  REQUIRE(table.Grow(1));  // not into the moved block: its keys have another delta
  CheckConsistent(table);
  CHECK(fixture.num_live() == 4);
  CHECK(table.refs().back().delta == 0);

  table.Remove(17, 19);  // the end of one half, the beginning of the other
  CheckConsistent(table);
  CHECK(table.refs()[2].delta == -9);
  CHECK(fixture.num_live() == 4);
  table.Truncate(17);
  CHECK_FALSE(fixture.pool->IsShared(block));
  CHECK(fixture.num_live() == 2);
}

TEST_CASE("block table: removing whole blocks gives them back, removing the end is truncating") {
  Fixture fixture;
  BlockTable table = fixture.Table();
  REQUIRE(table.Grow(64));
  table.Remove(16, 48);
  CheckConsistent(table);
  CHECK(fixture.num_live() == 2);
  CHECK(table.refs()[1].delta == -32);
  table.Remove(10, 32);
  CheckConsistent(table);
  CHECK(fixture.num_live() == 1);
  CHECK(table.end_position() == 10);
  REQUIRE(table.Grow(6));
  CHECK(fixture.num_live() == 1);
  table.Remove(0, 16);
  CHECK(fixture.num_live() == 0);
  CHECK(table.end_position() == 0);
}

TEST_CASE("block table: dropping releases whole blocks only and counts them") {
  Fixture fixture;
  BlockTable table = fixture.Table();
  REQUIRE(table.Grow(50));
  table.DropBefore(15);
  CHECK(fixture.num_live() == 4);
  table.DropBefore(16);
  CHECK(fixture.num_live() == 3);
  CHECK(table.begin_position() == 16);
  CHECK(table.num_dropped_refs() == 1);
  table.DropBefore(47);
  CHECK(fixture.num_live() == 2);
  CHECK(table.begin_position() == 32);
  CHECK(table.num_dropped_refs() == 2);
  CheckConsistent(table);
  REQUIRE(table.Grow(20));
  CheckConsistent(table);
}

// The parts of a sum are cut by a ref's index: a table that is empty again must count like a new one.
TEST_CASE("block table: emptied, it has dropped nothing") {
  Fixture fixture;
  BlockTable truncated = fixture.Table(), removed = fixture.Table();
  for (BlockTable* table : {&truncated, &removed}) {
    REQUIRE(table->Grow(50));
    table->DropBefore(40);
    CHECK(table->num_dropped_refs() == 2);
  }
  BlockTable cut = truncated;
  truncated.Truncate(0);
  CHECK(truncated.num_dropped_refs() == 0);
  cut.Truncate(32);  // where all blocks before have been dropped: the next one is the third of the text
  CHECK(cut.refs().empty());
  CHECK(cut.num_dropped_refs() == 2);
  removed.Remove(0, 50);
  CHECK(removed.num_dropped_refs() == 0);
}

TEST_CASE("block table: copying and moving keep the references right") {
  Fixture fixture;
  {
    BlockTable table = fixture.Table();
    REQUIRE(table.Grow(40));
    table.Remove(5, 10);
    table.DropBefore(1);
    BlockTable copy = table;
    CHECK(copy.end_position() == table.end_position());
    CHECK(copy.num_dropped_refs() == table.num_dropped_refs());
    BlockTable moved = std::move(copy);
    CHECK(moved.refs().size() == table.refs().size());
    CheckConsistent(moved);
    CHECK(fixture.num_live() == 3);
  }
  CHECK(fixture.num_live() == 0);
}

// --- sealing ---

// A pool of open blocks (two pages each) and one of sealed blocks (a page each) that share a budget.
struct SealingFixture {
  explicit SealingFixture(size_t num_pages = 1000)
      : budget(num_pages * PageBytes()),
        open_pool(BlockPool::Open(2 * PageBytes(), 1000, &budget).value()),
        sealed_pool(BlockPool::Open(PageBytes(), 1000, &budget).value()) {}
  size_t num_open() const { return open_pool->stats().num_live_blocks; }
  size_t num_sealed() const { return sealed_pool->stats().num_live_blocks; }
  BlockTable Table(const SealingOptions& options) {
    return BlockTable(open_pool.get(), sealed_pool.get(), options, kBlockTokens);
  }

  MemoryBudget budget;
  std::unique_ptr<BlockPool> open_pool, sealed_pool;
};

// Whether the query sees the block of positions [begin, end) sealed, in the words of SealingOptions.
bool SeesSealed(const SealingOptions& options, int64_t begin, int64_t end, int64_t query) {
  const bool is_sink = begin < options.sink_tokens;
  const bool overlaps_recent = end > query + 1 - options.recent_tokens;
  return !is_sink && !overlaps_recent && query >= options.begin_position;
}

std::vector<SealingOptions> ManyOptions() {
  std::vector<SealingOptions> all;
  for (const int recent : {0, 1, 2, 15, 16, 17, 33, 200})
    for (const int sinks : {0, 1, 16, 17, 40})
      for (const int64_t begin : {0, 31, 90, 1000}) all.push_back({recent, sinks, begin});
  return all;
}

// One growth, checked: exactly the full blocks that a query of it sees sealed are being sealed, and both pools hold
// what the refs say.
void GrowAndCheck(SealingFixture& fixture, BlockTable& table, int64_t num_tokens) {
  REQUIRE(table.Grow(num_tokens));
  CheckConsistent(table);
  const int64_t end = table.end_position();
  size_t num_open = 0, num_sealed = 0;
  bool all_right = true, any_sealing = false;
  for (const BlockRef& ref : table.refs()) {
    const bool is_full = ref.num_slots == kBlockTokens;
    const bool is_seen_sealed = is_full && SeesSealed(table.sealing(), ref.position, ref.end_position(), end - 1);
    all_right &= is_seen_sealed == (ref.is_sealed || ref.sealing);
    all_right &= !(ref.is_sealed && ref.sealing);
    any_sealing |= ref.sealing.has_value();
    num_open += !ref.is_sealed;
    num_sealed += ref.is_sealed || ref.sealing;
  }
  CHECK(all_right);
  CHECK(fixture.num_open() == num_open);
  CHECK(fixture.num_sealed() == num_sealed);
  CHECK(table.FinishSealing().empty() != any_sealing);
  CHECK(fixture.num_sealed() == num_sealed);
  CHECK(fixture.num_open() == table.refs().size() - num_sealed);
  for (const BlockRef& ref : table.refs()) all_right &= !ref.sealing;
  CHECK(all_right);
}

TEST_CASE("block table: a block is sealed by the growth that brings the first query to see it so") {
  for (const SealingOptions& options : ManyOptions()) {
    CAPTURE(options.recent_tokens);
    CAPTURE(options.sink_tokens);
    CAPTURE(options.begin_position);
    SealingFixture fixture;
    for (const int64_t step : {1, 7, 16, 50, 170}) {
      CAPTURE(step);
      BlockTable table = fixture.Table(options);
      while (table.end_position() < 170) GrowAndCheck(fixture, table, step);
    }
    CHECK(fixture.num_open() == 0);
    CHECK(fixture.num_sealed() == 0);
  }
}

TEST_CASE("block table: what is sealed does not depend on the steps that the tokens came in") {
  std::mt19937 random(1);
  for (const SealingOptions& options : ManyOptions()) {
    SealingFixture fixture;
    BlockTable whole = fixture.Table(options), in_steps = fixture.Table(options);
    GrowAndCheck(fixture, whole, 170);
    while (in_steps.end_position() < 170) {
      REQUIRE(in_steps.Grow(std::min<int64_t>(1 + int64_t(random() % 60), 170 - in_steps.end_position())));
      in_steps.FinishSealing();
    }
    CHECK(std::ranges::equal(whole.refs(), in_steps.refs(), {}, &BlockRef::is_sealed, &BlockRef::is_sealed));
  }
}

TEST_CASE("block table: while a step is under way it has both forms; finishing keeps one, forgetting the other") {
  SealingFixture fixture;
  BlockTable table = fixture.Table({.recent_tokens = 16, .sink_tokens = 4});
  CHECK(table.FinishSealing().empty());
  REQUIRE(table.Grow(16 * 5));  // blocks 1 to 3 are old enough
  const std::vector<BlockRef> before(table.refs().begin(), table.refs().end());
  CHECK(fixture.num_open() == 5);
  CHECK(fixture.num_sealed() == 3);
  CHECK(*before[1].sealing != *before[2].sealing);

  table.ForgetSealing();
  CHECK(fixture.num_open() == 5);
  CHECK(fixture.num_sealed() == 0);
  for (size_t i = 0; i < 5; ++i) {
    CHECK_FALSE(table.refs()[i].sealing);
    CHECK(table.refs()[i].block == before[i].block);
  }
  CHECK(table.FinishSealing().empty());

  REQUIRE(table.Grow(1));  // those three again
  CHECK(fixture.num_sealed() == 3);
  const std::vector<BlockRef> again(table.refs().begin(), table.refs().end());
  CHECK_FALSE(table.FinishSealing().empty());
  CHECK(fixture.num_open() == 3);
  CHECK(fixture.num_sealed() == 3);
  for (size_t i = 1; i <= 3; ++i) {
    CHECK(table.refs()[i].is_sealed);
    CHECK(table.refs()[i].block == *again[i].sealing);
  }
  CHECK_FALSE(table.refs()[0].is_sealed);
  CHECK(table.NumNewestOpenBlocks() == 2);
  table.ForgetSealing();  // what is finished stays
  CHECK(fixture.num_sealed() == 3);
  CheckConsistent(table);
}

TEST_CASE("block table: without a pool for it nothing is sealed") {
  Fixture fixture;
  BlockTable table(fixture.pool.get(), nullptr, {.recent_tokens = 0, .sink_tokens = 0}, kBlockTokens);
  REQUIRE(table.Grow(100));
  CHECK(table.FinishSealing().empty());
  table.ForgetSealing();
  CHECK(fixture.num_live() == 7);
  CHECK(table.NumNewestOpenBlocks() == 7);
}

// A fork of a sequence whose step is under way: the copy forgets, the original goes on.
TEST_CASE("block table: a copy in the middle of a step holds both forms, too, and each side may do as it likes") {
  for (const bool copy_finishes : {false, true}) {
    CAPTURE(copy_finishes);
    SealingFixture fixture;
    BlockTable table = fixture.Table({.recent_tokens = 0, .sink_tokens = 0});
    REQUIRE(table.Grow(16 * 4 + 3));
    {
      BlockTable copy = table;
      CHECK(fixture.num_open() == 5);
      CHECK(fixture.num_sealed() == 4);
      CHECK(fixture.sealed_pool->IsShared(*table.refs()[0].sealing));
      copy_finishes ? void(copy.FinishSealing()) : copy.ForgetSealing();
      CHECK(fixture.sealed_pool->IsShared(*table.refs()[0].sealing) == copy_finishes);
      CHECK(fixture.open_pool->IsShared(table.refs()[0].block) != copy_finishes);
      CHECK_FALSE(table.FinishSealing().empty());
      CHECK(fixture.num_open() == (copy_finishes ? 1 : 5));
      CHECK(fixture.num_sealed() == 4);
      CheckConsistent(copy);

      // Sealed blocks are shared like open ones, and an append copies the open one alone.
      BlockTable fork = table;
      CHECK(fixture.num_sealed() == 4);
      CHECK(fork.Grow(1).value() == 2 * PageBytes());
      CHECK(fork.refs()[3].block == table.refs()[3].block);
      CHECK(fork.refs()[4].block != table.refs()[4].block);
    }
    CHECK(fixture.num_open() == 1);
    CHECK(fixture.num_sealed() == 4);
    BlockTable moved = std::move(table);
    CHECK(fixture.num_sealed() == 4);
  }
}

TEST_CASE("block table: a growth that copies the open block may seal it in the same breath") {
  SealingFixture fixture;
  BlockTable table = fixture.Table({.recent_tokens = 0, .sink_tokens = 0});
  REQUIRE(table.Grow(10));
  std::memset(fixture.open_pool->data(table.refs()[0].block), 7, 2 * PageBytes());
  BlockTable copy = table;
  CHECK(copy.Grow(6).value() == 2 * PageBytes());
  CHECK(copy.refs()[0].sealing);
  CHECK(copy.refs()[0].block != table.refs()[0].block);
  CHECK(std::memcmp(fixture.open_pool->data(copy.refs()[0].block), fixture.open_pool->data(table.refs()[0].block),
                    2 * PageBytes()) == 0);
  CHECK_FALSE(copy.FinishSealing().empty());
  CHECK(fixture.num_open() == 1);
  CHECK(fixture.num_sealed() == 1);
  CHECK(table.refs()[0].num_slots == 10);
  CHECK_FALSE(table.refs()[0].is_sealed);
}

TEST_CASE("block table: truncated within a sealed block, the next token gets a new one") {
  SealingFixture fixture;
  BlockTable table = fixture.Table({.recent_tokens = 0, .sink_tokens = 0});
  REQUIRE(table.Grow(16 * 3 + 5));
  table.FinishSealing();
  CHECK(table.NumBlocksAfterTail(11) == 0);
  table.Truncate(40);
  CheckConsistent(table);
  CHECK(fixture.num_open() == 0);
  CHECK(fixture.num_sealed() == 3);
  CHECK(table.refs().back().is_sealed);
  CHECK(table.refs().back().num_slots == 8);
  CHECK(table.NumNewestOpenBlocks() == 0);
  CHECK(table.NumBlocksAfterTail(1) == 1);
  CHECK(table.NumBlocksAfterTail(17) == 2);

  REQUIRE(table.Grow(1));
  CheckConsistent(table);
  CHECK(fixture.num_open() == 1);
  CHECK(table.refs().back().num_slots == 1);
  REQUIRE(table.Grow(15));  // positions 40 to 55: a full block off the grid, seen sealed by its own last token
  CHECK(table.refs().back().sealing);
  CHECK_FALSE(table.refs()[2].sealing);
  table.FinishSealing();
  CHECK(fixture.num_open() == 0);
  CHECK(fixture.num_sealed() == 4);
  table.Truncate(0);
  CHECK(fixture.num_sealed() == 0);
}

TEST_CASE("block table: a block that was cut short is sealed at its new end, once no token can be added to it") {
  SealingFixture fixture;
  BlockTable table = fixture.Table({.recent_tokens = 8, .sink_tokens = 0});
  REQUIRE(table.Grow(16));
  table.Remove(0, 6);  // ten tokens are left, moved to the front: the block takes no more
  REQUIRE(table.Grow(7));
  CHECK_FALSE(table.refs()[0].sealing);  // the query at 16 sees 9 to 16 open
  REQUIRE(table.Grow(1));
  CHECK(table.refs()[0].sealing);  // the one at 17 sees 10 to 17
  table.FinishSealing();
  CHECK(fixture.num_open() == 1);
  CHECK(fixture.num_sealed() == 1);
  CHECK(table.refs()[0].first_slot == 6);
  CHECK(table.refs()[0].num_slots == 10);

  BlockTable truncated = fixture.Table({.recent_tokens = 8, .sink_tokens = 0});
  REQUIRE(truncated.Grow(16));
  truncated.Truncate(10);  // it can still grow, so its end is not known
  REQUIRE(truncated.Grow(5));
  CHECK_FALSE(truncated.refs()[0].sealing);
  REQUIRE(truncated.Grow(9));
  CHECK(truncated.refs()[0].sealing);
  CheckConsistent(truncated);
}

TEST_CASE("block table: removing splits sealed and open blocks alike") {
  SealingFixture fixture;
  BlockTable table = fixture.Table({.recent_tokens = 32, .sink_tokens = 4});
  REQUIRE(table.Grow(16 * 6));
  table.FinishSealing();  // open: 0, 4, 5; sealed: 1, 2, 3
  CHECK(fixture.num_open() == 3);
  const BlockId first_sealed = table.refs()[1].block;
  table.Remove(20, 24);  // inside a sealed block
  CheckConsistent(table);
  REQUIRE(table.refs().size() == 7);
  CHECK(table.refs()[1].block == first_sealed);
  CHECK(table.refs()[2].block == first_sealed);
  CHECK(table.refs()[2].is_sealed);
  CHECK(table.refs()[2].delta == -4);
  CHECK(fixture.sealed_pool->IsShared(first_sealed));
  CHECK(fixture.num_open() == 3);
  CHECK(fixture.num_sealed() == 3);

  table.Remove(50, 65);  // the end of the last sealed block and the beginning of the first open one
  CheckConsistent(table);
  CHECK(table.refs()[4].is_sealed);
  CHECK(table.refs()[4].num_slots == 6);
  CHECK_FALSE(table.refs()[5].is_sealed);
  CHECK(table.refs()[5].num_slots == 11);
  CHECK(table.NumNewestOpenBlocks() == 2);
  table.Remove(12, 50);  // from the open sink to the end of what is sealed
  CheckConsistent(table);
  CHECK(fixture.num_open() == 3);
  CHECK(fixture.num_sealed() == 0);
  CHECK(table.end_position() == 12 + 11 + 16);

  REQUIRE(table.Grow(40));
  CHECK_FALSE(table.refs()[0].sealing);
  CHECK(table.refs()[1].sealing);
  CHECK(table.refs()[2].sealing);
  table.FinishSealing();
  CHECK(fixture.num_sealed() == 2);
}

// Its halves hold one block, but each is sealed at its own end, with its own tokens.
TEST_CASE("block table: both halves of a split open block get a sealed one of their own") {
  SealingFixture fixture;
  BlockTable table = fixture.Table({.recent_tokens = 20, .sink_tokens = 0});
  REQUIRE(table.Grow(16));
  table.Remove(6, 8);
  CHECK(fixture.num_open() == 1);
  REQUIRE(table.Grow(11));  // to 25: the query at 24 sees the first half no more among the last 20
  CHECK_FALSE(table.refs()[0].sealing);
  REQUIRE(table.Grow(1));
  CHECK(table.refs()[0].sealing);
  CHECK_FALSE(table.refs()[1].sealing);
  table.FinishSealing();
  CHECK(fixture.num_open() == 2);  // the second half still needs the block
  CHECK(fixture.num_sealed() == 1);
  REQUIRE(table.Grow(8));
  CHECK(table.refs()[1].sealing);
  table.FinishSealing();
  CHECK(fixture.num_open() == 2);  // of positions 14 to 33
  CHECK(fixture.num_sealed() == 2);
  CHECK(table.refs()[0].block != table.refs()[1].block);
  CheckConsistent(table);
}

TEST_CASE("block table: dropping releases sealed blocks like open ones") {
  SealingFixture fixture;
  BlockTable table = fixture.Table({.recent_tokens = 16, .sink_tokens = 4});
  REQUIRE(table.Grow(16 * 5));
  table.FinishSealing();  // open: 0 and 4
  CHECK(table.DropBefore(33));
  CHECK(fixture.num_open() == 1);
  CHECK(fixture.num_sealed() == 2);
  CHECK(table.num_dropped_refs() == 2);
  CHECK(table.begin_position() == 32);
  REQUIRE(table.Grow(16));
  CHECK(fixture.num_sealed() == 3);
  CHECK(table.DropBefore(16 * 6));  // in the middle of sealing, too
  CHECK(fixture.num_open() == 0);
  CHECK(fixture.num_sealed() == 0);
}

TEST_CASE("block table: a growth that fails for want of either form takes nothing of both") {
  SealingFixture fixture(13);
  BlockTable table = fixture.Table({.recent_tokens = 16, .sink_tokens = 4});
  REQUIRE(table.Grow(40));
  table.FinishSealing();
  CHECK(fixture.num_open() == 3);
  CHECK(fixture.num_sealed() == 0);
  {
    BlockTable copy = table;
    // 41 more: one block to copy, three to add (14 pages).  25: one to copy, two to add and two to seal (14 pages).
    for (const int64_t too_many : {41, 25, 100000}) {
      CAPTURE(too_many);
      const auto refused = copy.Grow(too_many);
      REQUIRE(!refused);
      CHECK(refused.error().code == ErrorCode::kOutOfMemory);
      CHECK(copy.end_position() == 40);
      CHECK(copy.refs().size() == 3);
      CHECK(copy.refs()[2].block == table.refs()[2].block);
      CHECK(std::ranges::none_of(copy.refs(), [](const BlockRef& ref) { return ref.sealing.has_value(); }));
      CHECK(fixture.num_open() == 3);
      CHECK(fixture.num_sealed() == 0);
      fixture.open_pool->Trim();
      fixture.sealed_pool->Trim();
      CHECK(fixture.budget.used_bytes() == 6 * PageBytes());
    }
  }
  REQUIRE(table.Grow(40));  // 5 open, 3 to seal: exactly what there is
  CHECK(fixture.budget.used_bytes() == 13 * PageBytes());
  CHECK_FALSE(table.FinishSealing().empty());
  CHECK(fixture.num_open() == 2);
  CHECK_FALSE(fixture.open_pool->IsShared(table.refs()[0].block));
}

TEST_CASE("block table: what was reserved and is not used can be given back") {
  SealingFixture fixture;
  BlockTable table = fixture.Table({.recent_tokens = 0, .sink_tokens = 0});
  REQUIRE(table.Grow(20));
  table.FinishSealing();
  const auto fresh = table.Reserve(16 * 3);
  REQUIRE(fresh);
  CHECK(fresh->open.size() == 3);
  CHECK(fresh->sealed.size() == 3);
  CHECK(fixture.num_open() == 4);
  CHECK(fixture.num_sealed() == 4);
  table.Release(*fresh);
  CHECK(fixture.num_open() == 1);
  CHECK(fixture.num_sealed() == 1);
}

}  // namespace
}  // namespace kvist::block_table_test
