// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "base/address_range.h"

#include <doctest/doctest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/machine_memory.h"

namespace kvist::address_range_test {
namespace {

bool IsZero(const std::byte* data, size_t bytes) {
  return std::all_of(data, data + bytes, [](std::byte b) { return b == std::byte{0}; });
}

// Whether a child process that writes there is killed for it.
bool WriteKills(std::byte* address) {
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGSEGV, SIG_DFL);
    const rlimit no_core{0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    *const_cast<volatile std::byte*>(address) = std::byte{1};
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFSIGNALED(status);
}

TEST_CASE("address range: reserving takes no memory, touching takes it, decommitting gives it back") {
  const size_t page = PageBytes(), bytes = 256 * page;
  auto range = AddressRange::Reserve(bytes);
  REQUIRE(range);
  CHECK(range->size() == bytes);
  CHECK(range->ResidentBytes().value() == 0);

  REQUIRE(range->Commit(0, 64 * page));
  CHECK(range->ResidentBytes().value() == 0);
  CHECK(IsZero(range->data(), 64 * page));
  std::memset(range->data(), 0xab, 64 * page);
  CHECK(range->ResidentBytes().value() == 64 * page);

  range->Decommit(16 * page, 32 * page);
  CHECK(range->ResidentBytes().value() == 32 * page);
  CHECK(IsZero(range->data() + 16 * page, 32 * page));
  CHECK(range->data()[16 * page - 1] == std::byte{0xab});
  CHECK(range->data()[48 * page] == std::byte{0xab});

  std::memset(range->data() + 16 * page, 1, page);  // usable again without another Commit
  CHECK(range->data()[16 * page] == std::byte{1});
}

TEST_CASE("address range: far more can be reserved than the machine has, and too much is an error") {
  auto large = AddressRange::Reserve(4 * PhysicalBytes());
  REQUIRE(large);
  CHECK(large->ResidentBytes().value() == 0);
  auto too_large = AddressRange::Reserve(size_t{1} << 62);
  REQUIRE(!too_large);
  CHECK(too_large.error().code == ErrorCode::kOutOfMemory);
}

TEST_CASE("address range: sizes are rounded up to whole pages") {
  auto range = AddressRange::Reserve(1);
  REQUIRE(range);
  CHECK(range->size() == PageBytes());
  REQUIRE(range->Commit(0, PageBytes()));
  range->data()[PageBytes() - 1] = std::byte{1};
}

TEST_CASE("address range: one byte outside, and what is not committed, can't be written") {
  const size_t page = PageBytes();
  auto range = AddressRange::Reserve(4 * page);
  REQUIRE(range);
  REQUIRE(range->Commit(0, page));
  REQUIRE(range->Commit(3 * page, page));
  CHECK_FALSE(WriteKills(range->data()));
  CHECK_FALSE(WriteKills(range->data() + 4 * page - 1));
  CHECK(WriteKills(range->data() - 1));
  CHECK(WriteKills(range->data() + 4 * page));
  CHECK(WriteKills(range->data() + page));
}

TEST_CASE("address range: moving moves the mapping, and each is unmapped once") {
  auto first = AddressRange::Reserve(PageBytes());
  auto second = AddressRange::Reserve(2 * PageBytes());
  REQUIRE(first);
  REQUIRE(second);
  std::byte* const first_data = first->data();
  AddressRange moved = std::move(*first);
  CHECK(moved.data() == first_data);
  CHECK(first->data() == nullptr);
  CHECK(first->size() == 0);
  moved = std::move(*second);
  CHECK(moved.size() == 2 * PageBytes());
}

// Two ranges side by side: what one holds must not show up in the other.
TEST_CASE("address range: resident bytes are its own") {
  const size_t bytes = 8 * PageBytes();
  auto left = AddressRange::Reserve(bytes), right = AddressRange::Reserve(bytes);
  REQUIRE(left);
  REQUIRE(right);
  REQUIRE(left->Commit(0, bytes));
  REQUIRE(right->Commit(0, bytes));
  std::memset(left->data(), 1, bytes);
  CHECK(left->ResidentBytes().value() == bytes);
  CHECK(right->ResidentBytes().value() == 0);
}

}  // namespace
}  // namespace kvist::address_range_test
