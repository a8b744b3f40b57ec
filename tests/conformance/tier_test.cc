// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include <doctest/doctest.h>

#include <string>

#include "tests/conformance/tier_conformance.h"
#include "tier/disk_tier.h"
#include "tier/redis_test_server.h"
#include "tier/redis_tier.h"

namespace kvist::tier_test {
namespace {

TEST_CASE("tier conformance: disk") {
  const TestFolder folder;
  CheckTier([&]() -> std::unique_ptr<Tier> {
    return DiskTier::Open(folder.path(), {.limit_bytes = uint64_t{256} << 20}).value();
  });
}

TEST_CASE("tier conformance: Redis") {
  if (!RedisTestServer::IsThere()) return;
  const RedisTestServer server;
  CheckTier([&]() -> std::unique_ptr<Tier> {
    RedisTierOptions options = server.options();
    options.timeout = std::chrono::seconds(20);
    return RedisTier::Open(options).value();
  });
}

}  // namespace
}  // namespace kvist::tier_test
