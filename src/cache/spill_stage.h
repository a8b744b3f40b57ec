// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "base/address_range.h"
#include "cache/core.h"
#include "storage/block_table.h"
#include "tier/held_record.h"

namespace kvist {

// Of one layer, the parts of some spilled blocks, in memory.
struct StagedParts {
  std::byte* parts = nullptr;
  size_t part_bytes = 0;
  size_t part_offset = 0;                // of a part in its block
  size_t first_slot = 0;                 // that is here
  std::span<const int32_t> slot_of_ref;  // [ref index]; -1: the block is in memory

  std::byte* Part(size_t ref_index) const { return parts + (size_t(slot_of_ref[ref_index]) - first_slot) * part_bytes; }
};

// Bytes that reading blocks of this layout needs at most, in a cache of that budget.
size_t StagingBytes(const BlockLayout& layout, size_t budget_bytes);

// Where a step finds the blocks of its sequence that have been spilled. A layer attends in passes over consecutive
// splits, as many as have their spilled blocks in half of the memory; the other half can be read into meanwhile by
// other threads, for the next pass or the next layer. They do so where cores are free, or where reading waits for a
// device: while every core attends and what is read lies in memory anyway, they would only take turns with those who
// wait for them. What has been read stays for the next step while the same blocks are spilled. The memory, an eighth of
// the cache's budget or less (but two splits at least), counts in it. One thread at a time, but for Await.
class SpillStage {
 public:
  explicit SpillStage(Cache::Core* core);
  ~SpillStage();
  SpillStage(const SpillStage&) = delete;
  SpillStage& operator=(const SpillStage&) = delete;

  // Bytes that it takes for so many spilled blocks, [group].
  static size_t BytesFor(const Cache::Core& core, std::span<const size_t> num_spilled);

  // For a step over these tables: takes the memory, evicting idle prefixes for it, and begins to read. kOutOfMemory.
  Status Prepare(std::span<const BlockTable> tables);

  // Splits [first, end) of a layer; 0 and all of them where no block is spilled.
  struct Pass {
    int64_t first_split = 0, end_split = INT64_MAX;
    size_t first_slot = 0, end_slot = 0;
    bool operator==(const Pass&) const = default;
  };
  std::span<const Pass> PassesOf(int layer) const;
  // Begins to read for the pass that comes after this one, helps to read for this one, and returns when all of that is
  // there; nothing where no block of the layer is spilled. REQUIRES: no worker attends to another pass any more.
  std::optional<StagedParts> Await(int layer, size_t pass, Worker worker);

  // The first of the blocks that could not be read: the numbers of the step are not to be used.
  struct Loss {
    Error error;
    RecordKey key;
    int64_t position;  // in the sequence
  };
  std::optional<Loss> loss() const;

  size_t memory_bytes() const { return charged_bytes_; }

 private:
  // How fast one thread reads, as a mean in which old reads fade.
  class ReadSpeed {
   public:
    void Add(size_t bytes, int64_t nanoseconds);
    bool waits_for_device() const;  // false till something is known

   private:
    std::atomic<double> bytes_{0}, nanoseconds_{0};  // of little use and no harm when two threads add at once
  };
  class PartsRead;
  struct Group {
    std::vector<std::shared_ptr<const HeldRecord>> records;  // [slot]
    std::vector<int64_t> positions;                          // [slot]
    std::vector<int32_t> slot_of_ref;
    std::vector<Pass> passes;  // none when there is nothing to read
    bool IsReadLike(const Group& other) const { return records == other.records && passes == other.passes; }
  };
  struct Unread {  // a part that could not be read
    Error error;
    size_t group;
    size_t slot;
  };
  struct Turn {  // one pass of one layer
    int layer;
    size_t pass;
    bool operator==(const Turn&) const = default;
  };
  using Groups = std::vector<Group>;

  Groups Collect(std::span<const BlockTable> tables) const;
  static std::vector<Pass> PlanPasses(const BlockTable& table, size_t max_slots);
  Status TakeMemory(size_t bytes);
  void GiveMemoryBack();
  void Forget();
  void PlanTurns();
  std::shared_ptr<PartsRead> BeginTurn(size_t turn);
  std::shared_ptr<PartsRead> BeginThisAndNext(size_t turn);
  std::shared_ptr<PartsRead>& ReadOf(size_t turn) { return reads_[turn % reads_.size()]; }
  std::byte* PartsOf(size_t turn) const;
  bool ReadsAhead() const;
  void Note(const std::optional<Unread>& unread, std::optional<Loss>& loss) const;
  const BlockLayout& LayoutOf(int layer) const;
  const Group& GroupOf(int layer) const { return (*groups_)[size_t(core_->places[size_t(layer)].group)]; }

  Cache::Core* const core_;
  std::shared_ptr<const Groups> groups_;
  std::vector<Turn> turns_;         // of a step, in its order
  std::vector<size_t> first_turn_;  // [layer]
  std::optional<AddressRange> memory_;
  size_t charged_bytes_ = 0;
  const std::shared_ptr<ReadSpeed> speed_ = std::make_shared<ReadSpeed>();  // reads may outlive the stage
  std::atomic<int> num_workers_{1};                                         // of the last Attend
  std::mutex mutex_;                                 // of what follows, between the workers of an Attend
  std::array<std::shared_ptr<PartsRead>, 2> reads_;  // for the even and for the odd turns
  std::optional<Loss> loss_;                         // in turns that are over
};

}  // namespace kvist
