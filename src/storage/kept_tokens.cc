// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "storage/kept_tokens.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/round_up.h"

namespace kvist {

Result<std::shared_ptr<KeptTokens>> KeptTokens::Make(Account account, const BlockLayout& layout, int block_tokens,
                                                     Lanes lanes) {
  constexpr size_t kAlignment = 64;
  std::vector<std::vector<size_t>> offsets;
  std::vector<size_t> lane_bytes;
  size_t num_bytes = 0;
  int max_num_tiles = 0;
  for (size_t layer = 0; layer < lanes.size(); ++layer) {
    lane_bytes.push_back(layout.layers[layer].lane_bytes());
    offsets.emplace_back();
    for (const Positions& positions : lanes[layer]) {
      const size_t num_tiles = (positions.size() + size_t(block_tokens) - 1) / size_t(block_tokens);
      offsets.back().push_back(num_bytes);
      num_bytes = RoundUp(num_bytes + num_tiles * lane_bytes.back(), kAlignment);
      max_num_tiles = std::max(max_num_tiles, int(num_tiles));
    }
  }
  num_bytes = RoundUp(std::max<size_t>(num_bytes, 1), PageBytes());
  KVIST_TRY(AddressRange memory, AddressRange::Reserve(num_bytes));
  if (!account.budget->Charge(num_bytes)) {
    return Fail(ErrorCode::kOutOfMemory, "there is no room for the " + std::to_string(num_bytes) +
                                             " bytes of the tokens that are to be kept: the KV budget of " +
                                             std::to_string(account.budget->limit_bytes()) + " bytes is used up");
  }
  Status taken = memory.Commit(0, num_bytes);
  if (taken) taken = memory.Populate(0, num_bytes);
  if (!taken) {
    account.budget->Refund(num_bytes);
    return std::unexpected(taken.error());
  }
  std::shared_ptr<KeptTokens> kept(new KeptTokens(account, std::move(memory), block_tokens, std::move(lanes)));
  kept->offsets_ = std::move(offsets);
  kept->lane_bytes_ = std::move(lane_bytes);
  kept->max_num_tiles_ = max_num_tiles;
  return kept;
}

KeptTokens::KeptTokens(Account account, AddressRange memory, int block_tokens, Lanes lanes)
    : account_(account), memory_(std::move(memory)), block_tokens_(block_tokens), lanes_(std::move(lanes)) {
  account_.num_bytes->fetch_add(num_bytes(), std::memory_order_relaxed);
}

KeptTokens::~KeptTokens() {
  account_.num_bytes->fetch_sub(num_bytes(), std::memory_order_relaxed);
  account_.budget->Refund(num_bytes());
}

double KeptTokens::mean_num_tokens() const {
  size_t num_tokens = 0, num_lanes = 0;
  for (const auto& of_layer : lanes_) {
    for (const Positions& positions : of_layer) num_tokens += positions.size();
    num_lanes += of_layer.size();
  }
  return double(num_tokens) / double(num_lanes);
}

}  // namespace kvist
