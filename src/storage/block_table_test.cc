// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "storage/block_table.h"

#include <doctest/doctest.h>

#include <cstring>
#include <memory>
#include <utility>

namespace kvist {
namespace {

constexpr int kBlockTokens = 16;

struct Fixture {
  explicit Fixture(size_t num_blocks = 100)
      : budget(num_blocks * PageBytes()), pool(BlockPool::Open(PageBytes(), 1000, &budget).value()) {}
  size_t num_live() const { return pool->stats().num_live_blocks; }
  BlockTable Table() { return BlockTable(pool.get(), kBlockTokens); }

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
  truncated.Truncate(0);
  CHECK(truncated.num_dropped_refs() == 0);
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

}  // namespace
}  // namespace kvist
