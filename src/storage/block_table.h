// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "kvist/error.h"
#include "kvist/sealing.h"
#include "storage/block_pool.h"

namespace kvist {

struct HeldRecord;  // tier/held_record.h

// Consecutive tokens of a sequence that lie in consecutive slots of one block.
struct BlockRef {
  BlockId block;  // of the open pool, or the sealed one; of neither when it is spilled
  bool is_sealed = false;
  std::optional<BlockId> sealing = {};  // of an open block that the step under way seals: its sealed form
  int32_t first_slot = 0;
  int32_t num_slots = 0;
  int64_t position = 0;  // of the first slot's token in this sequence
  int64_t delta = 0;     // position now less the position its key was rotated to
  // Of what the slots hold, never 0: another one each time that other tokens are in them, or the same in another form.
  uint64_t version = 0;
  std::shared_ptr<const HeldRecord> spilled = {};  // where the block is when it is not in memory
  int64_t end_position() const { return position + num_slots; }
};

// Blocks that a table is going to use.
struct FreshBlocks {
  std::vector<BlockId> open;
  std::vector<BlockId> sealed;
};

// The blocks of one sequence and group, in the order of positions. Holds one reference to each.
// Copying shares the blocks. One thread at a time; the pools must outlive it.
class BlockTable {
 public:
  // Without a sealed pool nothing is sealed.
  BlockTable(BlockPool* open_pool, BlockPool* sealed_pool, const SealingOptions& sealing, int block_tokens)
      : open_pool_(open_pool), sealed_pool_(sealed_pool), sealing_(sealing), block_tokens_(block_tokens) {}
  BlockTable(const BlockTable& other);
  BlockTable(BlockTable&& other) noexcept;
  BlockTable& operator=(const BlockTable&) = delete;
  ~BlockTable();

  // Makes room for that many tokens at end_position(), which moves. Copies the open block first when it is shared.
  // Returns the bytes copied. On failure nothing has changed.
  Result<size_t> Grow(int64_t num_tokens);
  // Its two halves, so that several tables can grow together or not at all: the blocks that are wanted, and their use.
  Result<FreshBlocks> Reserve(int64_t num_tokens) const;
  size_t GrowInto(FreshBlocks fresh, int64_t num_tokens);
  void Release(const FreshBlocks& fresh) const;
  size_t BytesToReserve(int64_t num_tokens) const;

  // Blocks that a query of the last growth sees sealed have room for that form since then; whoever grew the table
  // fills it, and the open one stays for the queries that see it. From here on the sealed form is the block.
  // Returns the indexes of these refs.
  std::vector<size_t> FinishSealing();
  void ForgetSealing();

  // How many blocks so many more tokens need beyond the open one.
  int64_t NumBlocksAfterTail(int64_t num_tokens) const;
  // Adds a block that holds the tokens from end_position() on, and takes over one reference to it.
  void Attach(const BlockRef& ref);
  // Lets go of everything: the table begins again at the position, a multiple of block_tokens not before
  // end_position(), as if all before had been dropped.
  void SkipTo(int64_t position);
  // The ref's block is that one now, which holds the same; takes over one reference to it.
  void Replace(size_t ref_index, BlockId block);

  // The ref's block, full and never written to again, is in the record from now on, and no longer in memory.
  void Spill(size_t ref_index, std::shared_ptr<const HeldRecord> record);
  bool HasSpilled() const;
  // It is in memory again, in a block of the ref's form; takes over one reference to it.
  void Unspill(size_t ref_index, BlockId block);

  // Keeps positions below the given one.
  void Truncate(int64_t end_position);
  // Takes positions [begin, end) out; what follows moves to the front by a delta.
  void Remove(int64_t begin, int64_t end);
  // Releases the blocks of refs that lie in positions [begin, end) as a whole; what follows stays where it is.
  void CutOut(int64_t begin, int64_t end);
  // Releases blocks that hold only positions below the given one; whether there were any.
  bool DropBefore(int64_t position);

  std::span<const BlockRef> refs() const { return refs_; }
  // How many refs were dropped before refs()[0], so that a ref's index in the whole sequence never changes.
  int64_t num_dropped_refs() const { return num_dropped_refs_; }
  // Of the ref that holds these tokens and no others, from its block's first slot on, with keys as they were computed.
  std::optional<size_t> FindRef(int64_t position, int32_t num_slots) const;
  int64_t begin_position() const { return refs_.empty() ? end_position_ : refs_.front().position; }
  int64_t end_position() const { return end_position_; }
  size_t first_unsettled_ref() const;    // no ref before it will ever be sealed that is not yet
  int64_t NumNewestOpenBlocks() const;   // at the end, after the last sealed one
  int64_t newest_open_position() const;  // where these begin
  BlockPool* open_pool() const { return open_pool_; }
  BlockPool* sealed_pool() const { return sealed_pool_; }  // may be null
  const SealingOptions& sealing() const { return sealing_; }
  void SetSealing(const SealingOptions& sealing) { sealing_ = sealing; }  // for what is still open

 private:
  int64_t TailRoom() const;  // free slots of the last block that an append may use
  void CopyTailInto(BlockId fresh);
  BlockPool* pool(const BlockRef& ref) const { return ref.is_sealed ? sealed_pool_ : open_pool_; }
  void AddReferences(const BlockRef& ref) const;
  void ReleaseBlocks(const BlockRef& ref) const;
  // Whether a query before `end_position` sees the ref sealed that is still open; it is the last one or not.
  bool IsToBeSealed(const BlockRef& ref, bool is_last, int64_t end_position) const;
  int64_t NumBlocksToSeal(int64_t num_tokens) const;

  BlockPool* open_pool_;
  BlockPool* sealed_pool_;
  SealingOptions sealing_;
  int block_tokens_;
  std::vector<BlockRef> refs_;
  int64_t num_dropped_refs_ = 0;
  int64_t end_position_ = 0;
  uint64_t last_version_ = 0;
  // Blocks are sealed in order, but a sealed one may have been attached behind others that are still open.
  bool has_open_before_sealed_ = false;
};

}  // namespace kvist
