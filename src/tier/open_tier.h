// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "tier/tier.h"

namespace kvist {

// Opens the tier that a specification names (docs/tiers.md):
//   disk:PATH[,size=BYTES]                  BYTES as in 512M, 8G (the default)
//   redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE][,ttl=SECONDS][,prefix=TEXT][,timeout=MS]   rediss:// with TLS
// kInvalidArgument says what is wrong with it and what it should look like; errors of DiskTier and RedisTier.
Result<std::unique_ptr<Tier>> OpenTier(std::string_view spec);
// The first of these errors alone: whether it can be read. Opens nothing.
Status CheckTierSpec(std::string_view spec);
// The folder of a disk tier; nothing for another tier, or a specification that can't be read.
std::optional<std::string> DiskPathOf(std::string_view spec);
// Whether it names a disk tier, or tries to.
bool IsDiskSpec(std::string_view spec);

}  // namespace kvist
