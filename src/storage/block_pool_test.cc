// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "storage/block_pool.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <random>
#include <set>
#include <span>
#include <thread>
#include <vector>

namespace kvist::block_pool_test {
namespace {

std::unique_ptr<BlockPool> OpenPool(MemoryBudget& budget, size_t max_blocks = 4096) {
  auto pool = BlockPool::Open(PageBytes(), max_blocks, &budget);
  REQUIRE(pool);
  return std::move(*pool);
}

// As the housekeeper does after the time that spare blocks wait.
void TidyLater(BlockPool& pool) {
  const auto now = BlockPool::Clock::now();
  pool.Tidy(now);
  pool.Tidy(now + BlockPool::kSpareTime);
}

TEST_CASE("block pool: a block lives until its last reference goes") {
  MemoryBudget budget(100 * PageBytes());
  auto pool = OpenPool(budget);
  const BlockId block = pool->Allocate().value();
  CHECK_FALSE(pool->IsShared(block));
  pool->AddReference(block);
  CHECK(pool->IsShared(block));
  pool->data(block)[0] = std::byte{42};
  pool->Release(block);
  CHECK_FALSE(pool->IsShared(block));
  CHECK(pool->data(block)[0] == std::byte{42});
  CHECK(pool->stats().num_live_blocks == 1);
  pool->Release(block);
  CHECK(pool->stats().num_live_blocks == 0);
  CHECK(pool->stats().cumulative_blocks == 1);
}

TEST_CASE("block pool: blocks don't overlap, never move, and are used again") {
  MemoryBudget budget(1000 * PageBytes());
  auto pool = OpenPool(budget);
  std::vector<BlockId> blocks;
  std::vector<std::byte*> addresses;
  for (int i = 0; i < 500; ++i) {
    blocks.push_back(pool->Allocate().value());
    addresses.push_back(pool->data(blocks.back()));
    std::memset(addresses.back(), i % 251, pool->block_bytes());
  }
  CHECK(std::set<std::byte*>(addresses.begin(), addresses.end()).size() == 500);
  bool same = true;
  for (int i = 0; i < 500; ++i) {
    same &= pool->data(blocks[size_t(i)]) == addresses[size_t(i)];
    same &=
        addresses[size_t(i)][0] == std::byte(i % 251) && addresses[size_t(i)][PageBytes() - 1] == std::byte(i % 251);
  }
  CHECK(same);
  for (const BlockId block : blocks) pool->Release(block);
  TidyLater(*pool);
  CHECK(pool->ResidentBytes().value() == 0);
  CHECK(budget.used_bytes() == 0);
  for (int i = 0; i < 500; ++i) {
    blocks[size_t(i)] = pool->Allocate().value();
    CHECK(std::find(addresses.begin(), addresses.end(), pool->data(blocks[size_t(i)])) != addresses.end());
  }
  for (const BlockId block : blocks) pool->Release(block);
}

TEST_CASE("block pool: with the budget used up it refuses and is unchanged") {
  MemoryBudget budget(10 * PageBytes() + 100);
  auto pool = OpenPool(budget);
  std::vector<BlockId> blocks;
  for (int i = 0; i < 10; ++i) blocks.push_back(pool->Allocate().value());
  const BlockPoolStats before = pool->stats();
  for (int i = 0; i < 3; ++i) {
    const auto refused = pool->Allocate();
    REQUIRE(!refused);
    CHECK(refused.error().code == ErrorCode::kOutOfMemory);
  }
  const BlockPoolStats after = pool->stats();
  CHECK(std::memcmp(&before, &after, sizeof before) == 0);
  CHECK(budget.used_bytes() == 10 * PageBytes());
  pool->Release(blocks.back());
  blocks.back() = pool->Allocate().value();
  for (const BlockId block : blocks) pool->Release(block);
}

TEST_CASE("block pool: with the address range used up it refuses and refunds") {
  MemoryBudget budget(100 * PageBytes());
  auto pool = OpenPool(budget, 2);
  const BlockId first = pool->Allocate().value(), second = pool->Allocate().value();
  const auto refused = pool->Allocate();
  REQUIRE(!refused);
  CHECK(refused.error().code == ErrorCode::kOutOfMemory);
  CHECK(budget.used_bytes() == 2 * PageBytes());
  pool->Release(first);
  pool->Release(second);
}

TEST_CASE("block pool: through random use, spare blocks stay below 1/64 of the live and the budget counts both") {
  MemoryBudget budget(3000 * PageBytes());
  auto pool = OpenPool(budget);
  std::vector<BlockId> blocks;
  std::mt19937 random(11);
  bool within = true;
  for (int i = 0; i < 20000; ++i) {
    const bool grows = random() % 2000 < 1000 + 900 * ((i / 4000) % 2 == 0 ? 1 : -1);
    if (grows && blocks.size() < 2900) {
      blocks.push_back(pool->Allocate().value());
      *pool->data(blocks.back()) = std::byte{1};
    } else if (!blocks.empty()) {
      std::swap(blocks[random() % blocks.size()], blocks.back());
      pool->Release(blocks.back());
      blocks.pop_back();
    }
    TidyLater(*pool);
    const BlockPoolStats stats = pool->stats();
    within &= stats.num_live_blocks == blocks.size() &&
              (stats.num_committed_blocks - stats.num_live_blocks) * 64 <= stats.num_live_blocks &&
              budget.used_bytes() == stats.num_committed_blocks * PageBytes();
  }
  CHECK(within);
  CHECK(pool->ResidentBytes().value() <= pool->stats().num_committed_blocks * PageBytes());
  CHECK(pool->ResidentBytes().value() >= pool->stats().num_live_blocks * PageBytes());
  pool->Trim();
  CHECK(pool->ResidentBytes().value() == pool->stats().num_live_blocks * PageBytes());
  CHECK(budget.used_bytes() == pool->stats().num_live_blocks * PageBytes());
  for (const BlockId block : blocks) pool->Release(block);
}

TEST_CASE("block pool: trimming lets another pool of the budget have the spare blocks") {
  MemoryBudget budget(128 * PageBytes());
  auto first = OpenPool(budget), second = OpenPool(budget);
  std::vector<BlockId> blocks;
  for (int i = 0; i < 128; ++i) blocks.push_back(first->Allocate().value());
  first->Release(blocks.back());
  blocks.pop_back();
  CHECK(first->stats().num_committed_blocks == 128);
  CHECK_FALSE(second->Allocate());
  first->Trim();
  CHECK(first->stats().num_committed_blocks == 127);
  const auto block = second->Allocate();
  REQUIRE(block);
  second->Release(*block);
  for (const BlockId held : blocks) first->Release(held);
}

TEST_CASE("block pool: closing it refunds its spare blocks") {
  MemoryBudget budget(200 * PageBytes());
  {
    auto pool = OpenPool(budget);
    std::vector<BlockId> blocks;
    for (int i = 0; i < 200; ++i) blocks.push_back(pool->Allocate().value());
    for (const BlockId block : blocks) pool->Release(block);
  }
  CHECK(budget.used_bytes() == 0);
}

TEST_CASE("block pool: threads get different blocks, and all come back") {
  MemoryBudget budget(400 * PageBytes());
  auto pool = OpenPool(budget);
  std::atomic<int> num_mixed_up{0};
  auto work = [&](int mark) {
    std::mt19937 random{unsigned(mark)};
    std::vector<BlockId> mine;
    for (int i = 0; i < 3000; ++i) {
      if (mine.size() < 80 && random() % 2 == 0) {
        const auto block = pool->Allocate();
        if (!block) continue;
        std::memset(pool->data(*block), mark, 64);
        mine.push_back(*block);
      } else if (!mine.empty()) {
        const BlockId block = mine[random() % mine.size()];
        pool->AddReference(block);
        num_mixed_up += *pool->data(block) != std::byte(mark);
        pool->Release(block);
        std::swap(mine[random() % mine.size()], mine.back());
        pool->Release(mine.back());
        mine.pop_back();
      }
    }
    for (const BlockId block : mine) pool->Release(block);
  };
  std::vector<std::thread> threads;
  for (int mark = 1; mark <= 4; ++mark) threads.emplace_back(work, mark);
  for (std::thread& thread : threads) thread.join();
  CHECK(num_mixed_up == 0);
  CHECK(pool->stats().num_live_blocks == 0);
  TidyLater(*pool);
  CHECK(budget.used_bytes() == 0);
}

TEST_CASE("block pool: what is expected is made ready, within the budget, and used before new memory is taken") {
  MemoryBudget budget(16 * PageBytes());
  auto pool = OpenPool(budget);
  const auto now = BlockPool::Clock::now();
  pool->Expect(4);
  CHECK_FALSE(pool->Tidy(now).has_value());
  CHECK(pool->stats().num_committed_blocks == 4);
  CHECK(pool->ResidentBytes().value() == 4 * PageBytes());
  std::vector<BlockId> blocks;
  for (int i = 0; i < 5; ++i) blocks.push_back(pool->Allocate().value());
  CHECK(pool->stats().num_stalls == 1);
  pool->Expect(100);
  pool->Tidy(now);
  CHECK(pool->stats().num_committed_blocks == 14);  // an eighth of the budget is left to what is needed now
  CHECK_FALSE(pool->MakeExpectedReady());
  CHECK(pool->stats().num_committed_blocks == 16);
  blocks.push_back(pool->Allocate().value());
  CHECK(pool->stats().num_stalls == 1);
  pool->Expect(-104);
  TidyLater(*pool);
  CHECK(pool->stats().num_committed_blocks == blocks.size());
  for (const BlockId block : blocks) pool->Release(block);
}

TEST_CASE("block pool: up to an eighth of the live waits for its time, and a new use starts it again") {
  MemoryBudget budget(100 * PageBytes());
  auto pool = OpenPool(budget);
  const auto start = BlockPool::Clock::now();
  std::vector<BlockId> blocks;
  for (int i = 0; i < 20; ++i) blocks.push_back(pool->Allocate().value());
  auto release = [&](int count) {
    for (; count > 0; --count) pool->Release(blocks.back()), blocks.pop_back();
  };
  release(4);  // 16 stay live
  const auto due = pool->Tidy(start);
  REQUIRE(due.has_value());
  CHECK(*due == start + BlockPool::kSpareTime);
  CHECK(pool->stats().num_committed_blocks == 18);
  pool->Tidy(*due - std::chrono::milliseconds(1));
  CHECK(pool->stats().num_committed_blocks == 18);
  for (int i = 0; i < 2; ++i) blocks.push_back(pool->Allocate().value());
  CHECK_FALSE(pool->Tidy(*due).has_value());
  release(2);
  pool->Tidy(*due);
  CHECK(pool->stats().num_committed_blocks == 18);  // their time begins when they were freed last
  pool->Tidy(*due + BlockPool::kSpareTime);
  CHECK(pool->stats().num_committed_blocks == 16);
  CHECK(pool->ResidentBytes().value() == 16 * PageBytes());
  release(16);
  pool->Tidy(*due);
  CHECK(pool->stats().num_committed_blocks == 0);
}

// Blocks of 192 KiB: none of them begins and ends where huge pages do.
std::unique_ptr<BlockPool> OpenPoolForRuns(MemoryBudget& budget, size_t max_blocks = 4096) {
  auto pool = BlockPool::Open(48 * PageBytes(), max_blocks, &budget);
  REQUIRE(pool);
  return std::move(*pool);
}

TEST_CASE(
    "block pool: a run is charged at once, takes memory when it is told to, and is of ordinary blocks afterwards") {
  MemoryBudget budget(64 * 48 * PageBytes());
  auto pool = OpenPoolForRuns(budget);
  const BlockId before = pool->Allocate().value();
  std::vector<BlockId> blocks;
  {
    BlockRun run = pool->AllocateRun(32);
    REQUIRE(run.size() == 32);
    CHECK(budget.used_bytes() == 33 * pool->block_bytes());
    CHECK(pool->ResidentBytes().value() == pool->block_bytes());
    for (size_t i = 0; i < run.size(); ++i) {
      REQUIRE(run.TakeMemory(run[i]));
      CHECK(pool->data(run[i]) == pool->data(run[0]) + i * pool->block_bytes());
      blocks.push_back(run[i]);
    }
  }
  CHECK(pool->stats().num_live_blocks == 33);
  CHECK(pool->ResidentBytes().value() == 33 * pool->block_bytes());
  // Taken again, a block brings none of its neighbours' memory.
  for (const BlockId block : blocks) pool->Release(block);
  pool->Trim();
  CHECK(pool->ResidentBytes().value() == pool->block_bytes());
  const BlockId again = pool->Allocate().value();
  CHECK(std::ranges::find(blocks, again) != blocks.end());
  CHECK(pool->ResidentBytes().value() == 2 * pool->block_bytes());
  for (const BlockId block : {before, again}) pool->Release(block);
}

TEST_CASE("block pool: blocks of a run that got no memory go back with it, and nothing of them stays") {
  MemoryBudget budget(64 * 48 * PageBytes());
  auto pool = OpenPoolForRuns(budget);
  std::vector<BlockId> blocks;
  {
    BlockRun run = pool->AllocateRun(32);
    for (size_t i = 0; i < run.size(); ++i) {
      if (i % 7 == 3) continue;
      REQUIRE(run.TakeMemory(run[i]));
      *pool->data(run[i]) = std::byte(i + 1);
      blocks.push_back(run[i]);
    }
    CHECK(pool->stats().num_live_blocks == 32);
  }
  const size_t num_left = blocks.size();
  CHECK(num_left == 27);
  CHECK(pool->stats().num_live_blocks == num_left);
  CHECK(pool->stats().num_committed_blocks == num_left);
  CHECK(budget.used_bytes() == num_left * pool->block_bytes());
  CHECK(pool->ResidentBytes().value() == num_left * pool->block_bytes());
  for (const BlockId block : blocks) CHECK(*pool->data(block) == std::byte(block.index + 1));
  // They are handed out again before new addresses are.
  for (size_t i = num_left; i < 32; ++i) blocks.push_back(pool->Allocate().value());
  CHECK(std::ranges::all_of(blocks, [](BlockId block) { return block.index < 32; }));
  CHECK(pool->ResidentBytes().value() == 32 * pool->block_bytes());
  for (const BlockId block : blocks) pool->Release(block);
}

TEST_CASE("block pool: a run has no more blocks than there is budget for and addresses") {
  MemoryBudget budget(10 * 48 * PageBytes() + 100);
  auto pool = OpenPoolForRuns(budget, 12);
  {
    const BlockRun run = pool->AllocateRun(32);
    CHECK(run.size() == 10);
    CHECK(pool->AllocateRun(1).size() == 0);
    CHECK_FALSE(pool->Allocate());
  }
  CHECK(budget.used_bytes() == 0);
  CHECK(pool->AllocateRun(32).size() == 2);  // the others have addresses that were used before
  CHECK(budget.used_bytes() == 0);
  CHECK(pool->stats().num_live_blocks == 0);
}

TEST_CASE("block pool: threads take the memory of a run and fill it") {
  MemoryBudget budget(size_t{256} * 48 * PageBytes());
  auto pool = OpenPoolForRuns(budget);
  BlockRun run = pool->AllocateRun(128);
  std::atomic<size_t> next{0};
  std::atomic<int> num_failures{0};
  auto fill = [&] {
    for (size_t i = next++; i < run.size(); i = next++) {
      num_failures += !run.TakeMemory(run[i]);
      std::memset(pool->data(run[i]), int(i + 1), pool->block_bytes());
    }
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) threads.emplace_back(fill);
  for (std::thread& thread : threads) thread.join();
  CHECK(num_failures == 0);
  bool is_right = true;
  std::vector<BlockId> blocks;
  for (size_t i = 0; i < run.size(); ++i) {
    const std::span<const std::byte> bytes(pool->data(run[i]), pool->block_bytes());
    is_right &= std::ranges::all_of(bytes, [&](std::byte byte) { return byte == std::byte(i + 1); });
    blocks.push_back(run[i]);
  }
  CHECK(is_right);
  run = {};
  CHECK(pool->ResidentBytes().value() == 128 * pool->block_bytes());
  for (const BlockId block : blocks) pool->Release(block);
}

}  // namespace
}  // namespace kvist::block_pool_test
