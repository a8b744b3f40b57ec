// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <mutex>
#include <optional>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/digest.h"
#include "kvist/cache.h"
#include "storage/block_pool.h"

namespace kvist {

// A block of a group's open pool, or of its sealed one.
struct StoredBlock {
  BlockId block;
  bool is_sealed = false;
  bool operator==(const StoredBlock&) const = default;
};

// The digest of tokens that follow those of another: parent, tokens.
Digest ChildDigest(const Digest& parent, std::span<const Token> tokens);

// Blocks that sequences may share, found by the digest of all that their numbers depend on; the tokens are compared,
// too. Holds one reference for each entry that a block is in: the first tokens of a block may be an entry of their own.
// Blocks that nobody else holds are idle: kept until memory is wanted, the least recently used go first. What has been
// evicted is remembered for a while, so that a miss can be explained. Thread-safe. Everything is O(1) but FindPart
// (children of one parent), FindChunk (tokens of the prompt) and Evict (blocks it passes).
class PrefixIndex {
 public:
  struct Pools {
    BlockPool* open = nullptr;
    BlockPool* sealed = nullptr;  // may be null
    BlockPool& of(const StoredBlock& block) const { return block.is_sealed ? *sealed : *open; }
  };
  // Blocks of consecutive tokens, one of each group that has it: [group].
  struct Entry {
    Digest digest;
    Digest parent;
    int64_t position = 0;  // of the first token
    std::vector<Token> tokens;
    std::vector<std::optional<StoredBlock>> blocks;
    // Of a full block: the parent of its text's first one. FindChunk finds only blocks that have it.
    std::optional<Digest> root = {};
  };

  explicit PrefixIndex(std::vector<Pools> pools) : pools_(std::move(pools)), num_entries_(pools_.size()) {}
  ~PrefixIndex();

  // The blocks with that digest if the tokens are those and any group has its block; each with a reference for the
  // caller. Counts as a use.
  std::optional<Entry> Find(const Digest& digest, std::span<const Token> tokens);
  // Of the entries that follow `parent`, that which begins with most of the tokens, at least one; as Find. The caller
  // compares: how many they have in common is the number of slots that it may use.
  std::optional<Entry> FindPart(const Digest& parent, std::span<const Token> tokens);

  // Consecutive tokens of one stored text, whatever precedes them there; every group has them.
  struct Chunk {
    int64_t position = 0;  // in the prompt, of the first of them
    int64_t num_tokens = 0;
    int64_t first_slot = 0;      // of the first entry
    std::vector<Entry> entries;  // which hold them one after another, each with references for the caller
    int64_t delta() const { return position - entries.front().position - first_slot; }
  };
  struct ChunkQuery {
    Digest root;                    // only texts with this one count
    std::span<const Token> prompt;  // the chunk may go to its end
    int64_t block_tokens = 0;
    int64_t first_position = 0;  // where in the prompt the chunk may begin
    int64_t last_position = 0;
    int64_t min_tokens = 0;
  };
  // The first chunk of the prompt that is stored and long enough; it holds at least one whole block, so some that are
  // shorter than 2 * block_tokens - 1 are not found. Blocks are found by a hash of their tokens and the root, and the
  // tokens are compared. Counts as a use. Cost: one look-up (20 to 50 ns) for each token up to the chunk.
  std::optional<Chunk> FindChunk(const ChunkQuery& query);
  void ReleaseChunk(const Chunk& chunk) const {
    for (const Entry& entry : chunk.entries) Release(entry);
  }

  // Offers a group's block: the index takes a reference of its own if it has none yet. Returns the block that
  // everybody should use: this one, or an equal one that was there before (with a reference for the caller, who lets go
  // of the other). A sealed block takes the place of an open one, not the other way round.
  // `entry` says what it is; its blocks don't matter.
  StoredBlock Share(const Entry& entry, size_t group, StoredBlock block);

  // The same from a caller who is done with the block.
  void Offer(const Entry& entry, size_t group, StoredBlock block);

  // Makes the digests the most recently used, the last of them first: a parent outlives its children.
  void Touch(std::span<const Digest> digests);
  // The entries of the digests that are there, with references for the caller.
  std::vector<Entry> FindAll(std::span<const Digest> digests);
  void Release(const Entry& entry) const;  // the references that a Find gave
  void ReleaseBlock(size_t group, const StoredBlock& block) const { pools_[group].of(block).Release(block.block); }
  void AddReference(size_t group, const StoredBlock& block) const { pools_[group].of(block).AddReference(block.block); }

  // Lets go of idle blocks until so many bytes are free or none is left; returns the bytes.
  size_t Evict(size_t bytes);

  // Lets go of a block of entries after `parent` that only one sequence holds: whether there was one.
  bool LetGo(const Digest& parent, size_t group, const StoredBlock& block);

  // Why nothing follows `parent` as the tokens do: what is or was there instead.
  struct Nearest {
    int64_t num_common = 0;            // tokens
    std::optional<Token> other_token;  // at that place, if there is one
    bool was_evicted = false;          // it has been there
  };
  std::optional<Nearest> Explain(const Digest& parent, std::span<const Token> tokens) const;
  // Whether some text begins, or began, with this block of tokens, whatever the parent.
  bool IsKnownBeginning(std::span<const Token> tokens) const;

  struct Stats {
    size_t num_blocks = 0;
    size_t num_idle_blocks = 0;
    size_t idle_bytes = 0;
    uint64_t num_evicted = 0;
  };
  Stats stats() const;  // passes all blocks

 private:
  struct DigestHash {
    size_t operator()(const Digest& digest) const;
  };
  struct Use {
    Digest digest;
    size_t group;
  };
  struct Node {
    Entry entry;
    std::vector<std::list<Use>::iterator> uses;  // [group]; uses_.end(): no block
    size_t num_blocks = 0;
    std::list<Digest>::iterator ghost = {};  // in ghosts_, when it has no block
  };
  using Lock = std::unique_lock<std::mutex>;
  struct BlockHash {
    size_t operator()(const StoredBlock& block) const {
      return size_t{block.block.index} * 2 + (block.is_sealed ? 1 : 0);
    }
  };
  struct Match;
  Entry Take(Node& node, const Lock&);
  // Of the nodes after `parent` that have at least so many groups' blocks, that which begins with most of the tokens,
  // at least one; and how many these are.
  std::pair<Node*, int64_t> MostCommonChild(const Digest& parent, std::span<const Token> tokens, size_t min_blocks,
                                            const Lock&);
  void AddContent(Node& node, const std::optional<Digest>& root, const Lock&);
  void RemoveContent(const Node& node, const Lock&);
  Match MatchAt(Node& node, int64_t position, const ChunkQuery& query, const Lock&);
  Match BestMatch(std::span<const Digest> digests, int64_t position, const ChunkQuery& query, const Lock&);
  void MarkUsed(Node& node, const Lock&);
  Node& AddNode(const Entry& entry, const Lock&);
  void Hold(size_t group, const StoredBlock& block, const Lock&);
  bool LetGoOnce(size_t group, const StoredBlock& block, const Lock&);  // whether no entry has it any more
  bool IsIdle(size_t group, const StoredBlock& block, const Lock&) const;
  bool IsHeldOnce(size_t group, const StoredBlock& block, const Lock&) const;
  bool DropBlock(std::list<Use>::iterator use, const Lock&);  // as LetGoOnce
  void ForgetOldGhosts(const Lock&);

  const std::vector<Pools> pools_;  // [group]
  mutable std::mutex mutex_;
  std::unordered_map<Digest, Node, DigestHash> nodes_;                    // with blocks, and ghosts without
  std::unordered_map<Digest, std::vector<Digest>, DigestHash> children_;  // of nodes
  std::unordered_map<Digest, int, DigestHash> beginnings_;  // tokens of nodes at position 0, without their parent
  // [root][hash of a block's tokens]: the nodes that have these, or others with the same hash, the newest last.
  std::unordered_map<Digest, std::unordered_map<uint64_t, std::vector<Digest>>, DigestHash> contents_;
  std::vector<std::unordered_map<StoredBlock, uint32_t, BlockHash>> num_entries_;  // [group], of each block held
  std::list<Use> uses_;                                                            // the most recently used first
  std::list<Digest> ghosts_;  // nodes whose blocks are gone, newest first
  uint64_t num_evicted_ = 0;
};

}  // namespace kvist
