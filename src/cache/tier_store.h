// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cache/core.h"
#include "policy/load_plan.h"
#include "tier/disk_tier.h"
#include "tier/tier.h"
#include "tier/transfer_queue.h"

namespace kvist {

// Moves blocks between the prefix index and the tiers. What it reads it verifies: checksums, the digest, the tokens; a
// record that fails is erased and counted as damaged. Thread-safe.
class TierStore {
 public:
  // kInvalidArgument for a tier's specification; errors of opening it.
  static Result<std::unique_ptr<TierStore>> Open(Cache::Core* core);
  ~TierStore();
  // Finishes what is being written; nothing runs afterwards. Before anything goes that transfers use.
  void Stop() { queue_->Stop(); }

  // A block of tokens after others: what Fetch looks for.
  struct Wanted {
    Digest digest;
    Digest parent;
    int64_t position = 0;
    std::span<const Token> tokens;
    std::vector<std::optional<bool>> sealed;  // [group] the form wanted first; nothing: the group's is not needed
    std::optional<Digest> root = {};          // as that of a PrefixIndex::Entry
    int64_t end_position() const { return position + std::ssize(tokens); }
  };
  struct Fetched {
    size_t num_blocks = 0;  // of `wanted`, from the first: they are in the index now
    std::vector<ReuseReport::FromTier> tiers;
    MissReason reason = MissReason::kNothingStored;  // that there are no more
  };
  // Loads what the tiers have of consecutive blocks, from the first, into the index. Evicts idle prefixes for room, if
  // it may, and may wait for writes then (so it must not on a thread of the queue).
  Fetched Fetch(std::span<const Wanted> wanted, bool may_evict = true);

  // Memory for all that is needed of consecutive blocks: in groups with a window, what the next query sees.
  size_t BytesOf(std::span<const Wanted> wanted) const;

  // Writes the blocks that no tier has yet, some time later; takes over the entries' references. When there is too much
  // to write already, they stay in memory only.
  void WriteBehind(std::vector<PrefixIndex::Entry> entries);
  void WaitUntilWritten();
  // Calls is_enough while blocks are being written, now and again, until it is true or nothing is left to wait for.
  // After 2 s what is not being written yet is given up.
  void WaitForWrites(const std::function<bool()>& is_enough);
  // Writes them now, to the first disk tier, whose keeper it is. kIo when it can't; kOutOfMemory when they
  // don't fit into it beside what is kept there.
  Status WriteNow(const std::vector<PrefixIndex::Entry>& entries, DiskTier::Keeper& keeper);

  // Likewise a record that somebody holds, if the first disk tier has evicted it.
  Status WriteAgain(const HeldRecord& record, DiskTier::Keeper& keeper);

  DiskTier* disk() { return disk_; }  // the first; null when there is none
  TransferQueue& queue() { return *queue_; }
  static RecordKey KeyOf(const Digest& digest, size_t group, bool is_sealed);

  // How long computing takes: seconds a token at a position. Sequences note it.
  CostLine compute_cost;

  // A block's record in the first disk tier. Errors as DiskTier::Hold; kCorrupt when it is another block's of the key.
  Result<std::shared_ptr<const HeldRecord>> Hold(const Digest& digest, std::span<const Token> tokens, size_t group,
                                                 bool is_sealed);
  void ForgetDamaged(const RecordKey& key);  // a record of the first disk tier

  std::vector<std::pair<std::string, TierStats>> stats() const;  // by tier
  uint64_t num_damaged() const;

 private:
  struct Place;  // of a record that is to be loaded
  struct OneTier {
    std::unique_ptr<Tier> tier;
    CostLine load_cost;
  };
  explicit TierStore(Cache::Core* core) : core_(core) {}
  const BlockLayout& layout(size_t group, bool is_sealed) const;
  BlockPool& pool(size_t group, bool is_sealed) const;
  void ForgetDamaged(Tier& tier, std::span<const RecordKey> keys);
  // Whether a header says that the record is the block's, in this form and geometry.
  bool IsOf(const RecordHeader& header, const Digest& digest, std::span<const Token> tokens, size_t group,
            bool is_sealed) const;
  // Whether a query at that position sees any of the block, in this group.
  bool IsSeen(const Wanted& wanted, size_t group, int64_t end_position) const;
  std::vector<Place> FindPlaces(std::span<const Wanted> wanted);
  size_t NumLeading(std::span<const Wanted> wanted, std::span<const Place> places) const;
  size_t BlockBytes(const Place& place) const;
  std::optional<double> LoadSeconds(std::span<const Place> places) const;
  using Runs = std::map<BlockPool*, BlockRun>;
  bool AllocateBlocks(std::vector<Place>& places, Runs& runs, bool may_evict);
  std::optional<BlockId> AllocateBlock(BlockPool& of_block, size_t evictable_bytes);
  void ReadFromAllTiers(std::span<const Wanted> wanted, std::vector<Place>& places, Fetched& fetched);
  void OfferLoaded(std::span<const Wanted> wanted, std::span<const Place> places, Fetched& fetched);
  void ReadPlaces(std::span<const Wanted> wanted, std::span<Place> places);
  std::vector<std::span<Place>> PiecesOf(std::span<Place> places, size_t piece_bytes) const;
  void ReadPiece(Tier& tier, std::span<const Wanted> wanted, std::span<Place> piece);
  void Verify(const Wanted& wanted, Place& place, const std::vector<std::byte>& header);
  void WritePart(std::vector<PrefixIndex::Entry> entries);
  // keeper: null, or of the tier.
  size_t WriteTo(Tier& tier, const std::vector<PrefixIndex::Entry>& entries, DiskTier::Keeper* keeper);

  Cache::Core* const core_;
  std::vector<std::unique_ptr<OneTier>> tiers_;
  DiskTier* disk_ = nullptr;
  std::atomic<uint64_t> num_damaged_{0};
  std::optional<TransferQueue> queue_;  // last: its transfers use the others
};

}  // namespace kvist
