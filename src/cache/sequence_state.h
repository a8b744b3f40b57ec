// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cache/attend.h"
#include "cache/attention_observer.h"
#include "cache/core.h"
#include "cache/page_bounds.h"
#include "cache/spill_stage.h"
#include "cache/step_calls.h"
#include "cache/tier_store.h"
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

  // Whether the sequence may be cut at the position: all that follows is in blocks.
  Status CheckKept(int64_t position) const;

  void SetSealing(bool is_wanted);
  // Whether old blocks come to be in the form that spilled ones are read back in.
  bool has_final_form() const { return is_sealing || !is_quantised(); }
  bool is_quantised() const;
  Status SetGrowth(const GrowthOptions& options);

  LayerView ViewLayer(int layer) const;
  // Stops the process where Append or Attend must not be called so.
  void RequireStep(const char* call, int layer, Worker worker) const;
  void RequireBeginning(const char* call, std::span<const Token> prompt) const;
  Status SelectPages(const PageSelection& selection);

  // Takes memory ahead as the growth policy says, or lets go of what was.
  void Expect(int64_t capacity_tokens);
  void CountResize();
  void FollowShrinking();  // after tokens have gone
  // All of a static sequence's memory when it begins; whether so many tokens fit.
  Status TakeStaticCapacity(int64_t num_wanted_tokens);
  Status MakeStaticCapacityReady(int64_t num_capacity_tokens);

  // --- sequence_prefix.cc ---
  struct ReuseHow {
    bool with_tail = false;  // the tokens of the prompt's last, partly filled block may be stored as such in a tier
    bool may_spill = false;  // what there is no room for may stay in the disk tier
  };
  ReuseReport Reuse(std::span<const Token> prompt, int64_t max_tokens, ReuseHow how);
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
  void Prefetch(std::span<const Token> prompt);
  using HeldBlocks = std::map<int64_t, std::shared_ptr<const HeldRecord>>;  // [block index] of the group that spills
  Run FindRun(std::span<const Token> prompt, int64_t max_tokens, const HeldBlocks& held);
  bool IsUsable(const Run& run, size_t num_blocks, int64_t end_position) const;
  std::vector<TierStore::Wanted> MissingBlocks(const Run& run, std::span<const Token> prompt, bool with_tail) const;
  // Takes the oldest of the wanted blocks out that there is no room for.
  HeldBlocks HoldWhatHasNoRoom(std::vector<TierStore::Wanted>& wanted) const;
  // The last block, which a step would have to copy because it is also a prefix, is no prefix any more.
  bool LetGoOfTail();
  void ReleaseRun(const Run& run) const;
  int64_t TakeRun(const Run& run, std::span<const Token> prompt);
  void ExplainMiss(std::span<const Token> prompt, ReuseReport& report) const;
  void AttachRun(const Run& run, size_t num_blocks, int64_t end_position);

  // --- sequence_moved.cc ---
  // What its blocks are found by beside their tokens, where they may be reused at another position.
  std::optional<Digest> content_root() const;
  std::optional<PrefixIndex::Chunk> FindChunk(std::span<const Token> prompt, int64_t first_position,
                                              int64_t last_position) const;
  std::optional<MovedChunk> FindMoved(std::span<const Token> prompt) const;
  int64_t ReuseMoved(std::span<const Token> prompt);
  void AttachChunk(const PrefixIndex::Chunk& chunk, std::span<const Token> prompt);

  // --- sequence_spill.cc ---
  Status Spill(int64_t num_more_tokens);
  struct Candidate {  // a block that may be spilled
    size_t group;
    size_t ref_index;
    int64_t block_index;
  };
  std::vector<Candidate> SpillCandidates() const;
  std::vector<size_t> NumSpilled() const;  // [group]
  int64_t num_spilled_tokens() const;
  // How many of the candidates have to go, so that so many bytes become free; nothing when all of them are too few.
  std::optional<size_t> NumToSpill(std::span<const Candidate> candidates, size_t bytes) const;
  Status SpillBlocks(std::span<const Candidate> blocks);
  void WriteAhead(std::span<const Candidate> blocks) const;
  bool HasRoomFor(int64_t num_more_tokens);
  // Adds the keys of spilled blocks that belong to the prefix; what the disk tier has evicted meanwhile is written
  // again.
  Status RestoreSpilled(std::vector<RecordKey>& keys, DiskTier::Keeper& keeper) const;
  // Brings the block back that a sequence of so many tokens would end inside of, so that it can be written to.
  Status UnspillEnd(int64_t num_kept_tokens);
  Status Unspill(size_t group, size_t ref_index);
  // After a step in which blocks could not be read: the sequence ends before them.
  void EndBefore(const SpillStage::Loss& loss);

  // --- sequence_retain.cc ---
  Status Observe(RetentionPolicy policy);
  Status ObserveRepeating(int64_t begin, int64_t end);
  // own: of the policy kOwn.
  Result<RetentionReport> Retain(const RetentionOptions& options, const TokenScorer& own, int64_t num_tokens_to_keep);
  struct RetainPlan {  // by position: [begin, end) may be evicted
    int64_t begin = 0;
    int64_t end = 0;
    int64_t num_kept = 0;  // of them, in a lane on average
  };
  Status CheckRetain(const RetentionOptions& options, const TokenScorer& own, int64_t num_tokens_to_keep) const;
  RetainPlan PlanRetain(const BlockTable& table, const RetentionOptions& options, int64_t num_tokens_to_keep) const;
  std::vector<LaneEvidence> GatherEvidence(const LayerView& layer, const RetentionOptions& options);
  struct ScoredLanes {  // of a layer: [kv head]
    std::vector<std::vector<float>> scores;
    std::vector<std::vector<int32_t>> positions;
    std::vector<CandidateRange> candidates;
  };
  ScoredLanes ScoreLayer(const LayerView& layer, const RetentionOptions& options, const TokenScorer& own,
                         const RetainPlan& plan);
  static Status CheckScores(std::span<const ScoredLanes> layers);
  static KeptTokens::Lanes ChooseTokens(BudgetShape shape, std::span<const ScoredLanes> layers,
                                        std::span<const int64_t> budgets);
  void Compact(const LayerView& layer, const KeptTokens& into) const;
  Result<std::shared_ptr<KeptTokens>> RetainGroup(size_t group, const RetentionOptions& options, const TokenScorer& own,
                                                  const RetainPlan& plan, RetentionReport& report);
  double MeanHeldTokens() const;
  double MeanReadTokens() const;
  size_t HeldBytes() const;
  std::vector<int64_t> HeldPositions(const LayerView& layer, int kv_head) const;

  std::shared_ptr<Cache::Core> core;
  std::vector<Token> tokens;       // stored, then prepared
  int64_t num_tokens = 0;          // stored
  std::vector<BlockTable> tables;  // [group], with room for the prepared tokens
  // What eviction has left of the tokens that are in no block any more, [group]; null: none are.
  std::vector<std::shared_ptr<const KeptTokens>> kept;
  int64_t end_of_kept = 0;  // all tokens from here on are in blocks
  std::optional<AttentionObserver> observer;
  std::optional<PageBounds> pages;  // where decode steps leave out blocks
  AttendSpace attend_space;
  std::optional<SpillStage> stage;  // where there is a disk tier
  StepCalls calls;
  GrowthOptions growth_options;
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
  bool is_sealing = true;                       // Sequence::SetSealing
  bool has_changed_sealing = false;             // when there were tokens: from then on nothing is shared
  std::vector<Digest> chain;                    // [block] of full ones that depend on nothing but tokens before them
  int64_t num_shared_blocks = 0;                // of these, that the index was offered
  int64_t end_of_prefix = INT64_MAX;            // tokens from here on were computed with others in view
  std::vector<ExpectedBlocks> expected_blocks;  // [group] that the pools were told to expect for this sequence
};

}  // namespace kvist
