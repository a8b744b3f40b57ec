// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "cache/attend.h"
#include "cache/core.h"
#include "kvist/cache.h"
#include "policy/growth.h"
#include "storage/block_table.h"
#include "storage/prefix_index.h"

namespace kvist {

struct Sequence::State {
  State(std::shared_ptr<Cache::Core> core_in, const std::string& salt);
  State(const State& other);  // shares all blocks; leaves out a step under way
  State& operator=(const State&) = delete;
  ~State();

  void ForgetStep();
  // The blocks that every table needs for so many more tokens, [group]; all of them or none.
  Result<std::vector<FreshBlocks>> ReserveBlocks(int64_t num_tokens_in) const;
  size_t BytesToReserve(int64_t num_tokens_in) const;
  // Whether every sliding-window layer still holds what a query at that position would see, when what lies at
  // gap_position and after is as far from the query as it is today.
  Status CheckWindows(int64_t next_position, int64_t gap_position) const;

  LayerView ViewLayer(int layer) const;

  // Takes memory ahead as the growth policy says, or lets go of what was.
  void Expect(int64_t capacity_tokens);
  void CountResize();
  void FollowShrinking();  // after tokens have gone
  // All of a static sequence's memory when it begins; whether so many tokens fit.
  Status TakeStaticCapacity(int64_t num_wanted_tokens);
  Status MakeStaticCapacityReady(int64_t num_capacity_tokens);

  // --- sequence_prefix.cc ---
  // with_tail: the tokens of the prompt's last, partly filled block may be stored as such in a tier.
  ReuseReport Reuse(std::span<const Token> prompt, int64_t max_tokens, bool with_tail);
  // Shares the blocks that have become full, and those that have become sealed: [group] indexes of refs.
  void ShareBlocks(const std::vector<std::vector<size_t>>& newly_sealed);
  // Shares the last, partly filled block, too. The digests of all that is shared.
  std::vector<Digest> ShareAll();
  void End();
  void TruncatePrefix(int64_t num_kept_tokens);
  const Digest& DigestBefore(int64_t block_index) const {
    return block_index == 0 ? root : chain[size_t(block_index) - 1];
  }
  PrefixIndex::Entry EntryOf(int64_t block_index) const;
  void ShareBlock(const PrefixIndex::Entry& entry, size_t group, size_t ref_index);
  struct Run;
  Run FindRun(std::span<const Token> prompt, int64_t max_tokens);
  bool IsUsable(const Run& run, size_t num_blocks, int64_t end_position) const;
  std::vector<ReuseReport::FromTier> FetchFromTiers(const Run& run, std::span<const Token> prompt, bool with_tail,
                                                    MissReason& reason);
  // The last block, which a step would have to copy because it is also a prefix, is no prefix any more.
  bool LetGoOfTail();
  void ReleaseRun(const Run& run) const;
  int64_t TakeRun(const Run& run, std::span<const Token> prompt);
  void ExplainMiss(std::span<const Token> prompt, ReuseReport& report) const;
  void AttachRun(const Run& run, size_t num_blocks, int64_t end_position);

  std::shared_ptr<Cache::Core> core;
  std::vector<Token> tokens;       // stored, then prepared
  int64_t num_tokens = 0;          // stored
  std::vector<BlockTable> tables;  // [group], with room for the prepared tokens
  AttendSpace attend_space;
  GrowthPredictor growth;
  bool has_static_capacity = false;
  int64_t num_resizes = 0;
  int64_t room_blocks = 0;  // of the first group, used and expected, at the last step
  struct ExpectedBlocks {
    int64_t ahead = 0;  // after those there are; whichever pools they will be in
    int64_t open = 0;
    int64_t sealed = 0;
  };
  // Where prefixes are shared:
  std::string salt;
  Digest root;                                  // before the first token
  std::vector<Digest> chain;                    // [block] of full ones that depend on nothing but tokens before them
  int64_t num_shared_blocks = 0;                // of these, that the index was offered
  int64_t end_of_prefix = INT64_MAX;            // tokens from here on were computed with removed ones in view
  std::vector<ExpectedBlocks> expected_blocks;  // [group] that the pools were told to expect for this sequence
};

}  // namespace kvist
