// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kvist/error.h"
#include "kvist/geometry.h"
#include "kvist/growth.h"
#include "kvist/page_selection.h"
#include "kvist/retention.h"
#include "kvist/reuse.h"
#include "kvist/sealing.h"
#include "kvist/tier_stats.h"

namespace kvist {

class Sequence;
class SpillStage;
class TierStore;

// What computes a cache's keys and values. Stored ones are used only where the fingerprint is the same.
struct ModelIdentity {
  std::string name = {};                     // for people
  std::array<uint64_t, 2> fingerprint = {};  // of the weights, and of whatever else the numbers depend on
};

// Of CacheOptions::reuses_moved_chunks.
struct MovedChunkOptions {
  // A chunk is used when at least so many tokens of the prompt are stored one after another, the recomputed ones
  // included. Of those with fewer than 2 * block_tokens - 1 only some are found.
  int64_t min_tokens = 64;
  // The first tokens of each chunk are computed anew all the same: they lack the most of what precedes them
  // (docs/tiers.md has what it helps; the idea is EPIC's, arXiv 2410.15332). 0 to min_tokens - 1.
  int64_t recomputed_tokens = 16;

  Status Validate() const;  // kInvalidArgument
};

struct CacheOptions {
  // Quantised codecs apply to blocks that are old enough (sealed); the others are stored in OpenForm(form).
  Form form = {};
  // Bytes that blocks may take, checked before memory is taken: KvBytes (kv_size.h) is what a sequence needs. 0: seven
  // eighths of the memory that this process may use (the machine's, or its control group's).
  size_t budget_bytes = 0;
  // How far ahead of each sequence memory is taken. It is taken and given back by a thread of the cache's own.
  GrowthOptions growth = {};
  // Instead of `form`, one of its own for each layer: [layer], or empty. Finer first and last layers lose less.
  std::vector<Form> layer_forms = {};
  SealingOptions sealing = {};
  // Sequences find each other's blocks by their tokens (Sequence::Reuse), and blocks of ended sequences stay as idle
  // prefixes until the budget is wanted for something else.
  bool shares_prefixes = false;
  // Sequences may also go on with blocks that were computed behind other tokens, at another position, as for a document
  // behind another beginning (Sequence::FindMoved). That is an APPROXIMATION: their keys and values were computed with
  // those other tokens in view (prompt cache: arXiv 2311.04934; CacheBlend: 2405.16444; EPIC: 2410.15332). Answers may
  // change, and depend on what happens to be stored. Needs shares_prefixes.
  bool reuses_moved_chunks = false;
  MovedChunkOptions moved_chunks = {};
  // Where prefixes and sessions go when memory is short and stay when the process ends, the faster ones first:
  // "disk:PATH,size=8G", "redis://host:port,ttl=3600" (docs/tiers.md). They need shares_prefixes and a model.
  std::vector<std::string> tiers = {};
  // A step that attends to spilled blocks (Sequence::Spill) has the next layer's read by other threads while one is
  // attended to, where cores are free or the disk is slow. false: never; it reads each layer's when it comes to it.
  bool reads_ahead = true;
  ModelIdentity model = {};
};

// Bytes and events since the cache was opened. Live: blocks in use, each counted once however many sequences share it.
// Committed: live plus spare blocks: those that growth expects, or 1/64 of live, and for 0.2 s what was just freed.
// Reserved: address space only.
struct CacheStats {
  size_t reserved_bytes = 0;
  size_t committed_bytes = 0;
  size_t live_bytes = 0;
  size_t peak_live_bytes = 0;
  size_t peak_committed_bytes = 0;  // with staging_bytes: all that the budget counts
  size_t cumulative_bytes = 0;      // sum of all block allocations ever made
  size_t copied_bytes = 0;          // by copy-on-write of a shared open block; growing copies nothing
  size_t num_live_blocks = 0;
  size_t num_sequences = 0;
  size_t num_commits = 0;  // system calls that took memory
  size_t num_decommits = 0;
  size_t num_stalls = 0;  // blocks that an append had to wait for, because they were not taken ahead
  // Of the live ones, blocks that no sequence holds: prefixes that may be reused, and make room when it is wanted.
  size_t idle_bytes = 0;
  size_t num_idle_blocks = 0;
  uint64_t num_evicted_blocks = 0;   // idle ones that made room
  size_t kept_bytes = 0;             // of the live ones, memory of tokens that eviction has left (Sequence::Retain)
  size_t page_bounds_bytes = 0;      // of Sequence::SelectPages, beside the budget and committed_bytes
  size_t staging_bytes = 0;          // memory into which spilled blocks are read, beside committed_bytes
  uint64_t spill_bytes_read = 0;     // of spilled blocks, by steps
  double spill_wait_s = 0;           // that steps waited for them
  uint64_t num_damaged_records = 0;  // of the tiers, found when they were read; not used again
};

// What a sequence's growth policy has done and seen.
struct SequenceGrowth {
  int64_t capacity_tokens = 0;  // that memory was taken for, ahead or not
  int64_t num_resizes = 0;      // times that blocks had to be added to it
  double mean_step_ratio = 1;   // predictive: tokens of a step over those of the step before, mean over the window
  double step_ratio_variance = 0;
};

// One of the threads that work together on a call: every one of `count` threads makes the same call once, with its own
// index. The work is shared out among them; the result does not depend on how many they are.
struct Worker {
  int index = 0;
  int count = 1;
};

// Stored tokens that go on as a prompt does, whatever precedes them.
struct MovedChunk {
  int64_t position = 0;    // where Sequence::ReuseMoved goes on with them
  int64_t num_tokens = 0;  // from there on
};

struct ResumedSession;
struct SessionInfo {
  std::string name;
  uint64_t bytes = 0;      // on disk, of blocks that sessions may share, too
  int64_t saved_at_s = 0;  // seconds since 1970
};

// A store of keys and values in fixed-size blocks that sequences share. Growing commits memory and copies nothing.
// Thread-safe: sequences of one cache may be used by different threads at once.
// The memory lives until the cache and its last sequence are gone, in whichever order.
class Cache {
 public:
  // kInvalidArgument for a geometry or option out of range; kOutOfMemory when address space can't be reserved; kIo for
  // a disk tier's folder; kUnsupported for what this build or CPU has not (Redis without hiredis, KVIST_ISA).
  static Result<std::unique_ptr<Cache>> Open(const CacheGeometry& geometry, const CacheOptions& options);
  ~Cache();
  Cache(const Cache&) = delete;
  Cache& operator=(const Cache&) = delete;

  // An empty sequence; takes no block yet. Sequences share prefixes with those of the same salt only: give each tenant
  // one of its own.
  Sequence Begin(const std::string& salt = {});

  // --- sessions: sequences that outlive the process, in the first disk tier. They need one: kFailedPrecondition. ---

  // Stores the sequence under the name, in place of an earlier session, with notes of the caller's own (at most 16
  // MiB). Only blocks that the tier does not have yet are written. When it returns, the session survives a power
  // failure; when it fails, the earlier one is as it was (but for kIo after it was replaced, when the system could not
  // say that the new one is durable). Of a name that this cache has resumed or saved before, kFailedPrecondition when
  // another cache or program has saved it since: resume it again, save under another name, or remove it.
  // Blocks that others have stored, too, become shared. Names are 1 to 100 letters, digits, - _ and dots, not a dot
  // first. kInvalidArgument for a name, or a sequence of another cache; kIo and kOutOfMemory (the tier's size) say what
  // to do.
  Status Save(const std::string& name, const Sequence& sequence, std::span<const std::byte> notes = {});
  // The session with as much of its sequence as can be used: all of it as a rule. What is missing, because the model or
  // the form is another now or because stored bytes are damaged (reuse.reason), is to be computed from its tokens; so
  // is what follows tokens that had been removed, and a chunk of another position and all after it. What memory has no
  // room for stays in the tier, spilled. kNotFound; kCorrupt; kUnsupported for one that a newer version saved.
  Result<ResumedSession> Resume(const std::string& name);
  Status RemoveSession(const std::string& name);  // kNotFound
  Result<std::vector<SessionInfo>> ListSessions();

  // Begins to load what the tiers have of the prompt, and memory has room for, so that a later Reuse finds it there
  // (and reports it as shared). Returns at once; the loading gives way to whatever somebody waits for.
  void Prefetch(std::vector<Token> prompt, const std::string& salt = {});

  // What computing a token at that position has cost: by this and by what loading costs, Reuse decides between the two.
  // Whoever runs the model calls it after each step of a prompt. Nothing happens without tiers.
  void NoteComputing(double position, double seconds_a_token);
  // Waits until the blocks of ended sequences are in the tiers, and what is being prefetched is in memory.
  void Flush();

  const CacheGeometry& geometry() const;
  const CacheOptions& options() const;                                // as given, and budget_bytes as it is in force
  CacheStats stats() const;                                           // cost: a look at every idle block
  std::vector<std::pair<std::string, TierStats>> tier_stats() const;  // by name, in the order of CacheOptions::tiers
  // Bytes of the cache's blocks that the operating system holds in memory right now, from /proc (slow: for checks).
  Result<size_t> ResidentBytes() const;

 private:
  struct Core;
  friend class Sequence;
  friend class SpillStage;
  friend class TierStore;
  explicit Cache(std::shared_ptr<Core> core);
  std::shared_ptr<Core> core_;
};

// An ordered list of tokens and the blocks that hold their keys and values. Destroying it releases the blocks.
//
// One step of a model adds n tokens:
//   Prepare(tokens)                        makes room; may fail: only a step under way is forgotten then
//   for each layer: Append, then Attend    can't fail; all workers of a call return before the next call begins
//   Commit()                               the tokens count from now on; fails where a layer's Append was left out, and
//                                          where blocks had been spilled
// Append and Attend stop the process when there is no such layer or worker, or no step under way. Attend may be left
// out where nobody wants its result and the sequence observes nothing (Observe).
// Without Commit the next Prepare, Truncate or Remove forgets the step, and so does whatever changes the sequence or
// how it is kept: Reuse, Retain, SetGrowth, SetSealing, SelectPages, ObserveRepeating. A Fork leaves it out.
//
// One thread at a time, but for the workers of one Append or Attend.
class Sequence {
 public:
  Sequence(Sequence&&) noexcept;
  Sequence& operator=(Sequence&&) noexcept;
  ~Sequence();

  int64_t num_tokens() const;
  std::span<const Token> tokens() const;  // [num_tokens], till the next change
  int64_t num_prepared_tokens() const;    // of the step under way
  SequenceGrowth growth() const;

  // Continues the sequence, which `prompt` begins with, by stored blocks that go on as the prompt does: of running
  // sequences, of ended ones, and of the tiers; to the token, a block that is needed in part is shared until it is
  // written to. Nothing is computed, and what is attended to later is the same to the last bit as if it had been
  // (but in quantised forms some of the recent window may be sealed already).
  // The sequence gets no longer than max_tokens: the last token of a prompt has to be computed for its logits, so give
  // one fewer than the prompt has.
  // may_spill: what the first disk tier has and memory has no room for stays there, spilled, instead of being computed
  // again.
  // Changes nothing and says so (kUnshared) where the cache does not share prefixes or tokens were removed from the
  // sequence.
  // REQUIRES: the prompt begins with the sequence's tokens, else the process stops; so do FindMoved and ReuseMoved.
  ReuseReport Reuse(std::span<const Token> prompt, int64_t max_tokens = INT64_MAX, bool may_spill = false);

  // Where CacheOptions::reuses_moved_chunks is set, the next position of the prompt, which the sequence begins with,
  // from which on stored tokens go on as it does, up to max_tokens at most; at any offset, of running sequences and
  // idle prefixes of the same salt, model and form, whatever they stood behind. Only what is in memory counts, in all
  // layers. The position is after the tokens that are to be recomputed. Changes nothing and holds nothing: the chunk
  // may be gone when the position is reached. Cost: up to 50 ns a token of the prompt.
  std::optional<MovedChunk> FindMoved(std::span<const Token> prompt, int64_t max_tokens = INT64_MAX) const;
  // At that position: goes on with the chunk, by reference; returns the tokens, 0 when there is none any more. An
  // APPROXIMATION: keys and values are those that were computed behind other tokens; queries are turned back by the
  // difference of positions, nothing is rewritten. From the position on nothing of the sequence is offered to others or
  // stored in a session, until it is truncated to before it: as after Remove.
  int64_t ReuseMoved(std::span<const Token> prompt, int64_t max_tokens = INT64_MAX);

  // Whether some of the tokens were computed with others in view than those before them: after ReuseMoved, after Remove
  // of what was not the end, after Retain, and after steps that left out blocks (SelectPages).
  bool is_approximate() const;

  // Makes room for the tokens at positions num_tokens() and on. Allocates blocks, and copies the open block when it is
  // shared (copy-on-write). kOutOfMemory when the budget is used up, kOutOfRange past the capacity of a static
  // sequence, kInvalidArgument for no tokens.
  Status Prepare(std::span<const Token> tokens);

  // Stores keys [token, kv_head, key_dim] and values [token, kv_head, value_dim] of the prepared tokens, keys already
  // rotated to their positions. Cost: one conversion and write per number. Seals the layer's tiles of blocks that have
  // become old enough (5 to 20 ns a number).
  void Append(int layer, const float* keys, const float* values, Worker worker = {});

  // Attention of queries [token, query_head, key_dim] (rotated, not scaled) over every stored token each may see,
  // itself included. Writes out [token, query_head, value_dim]. Reads the stored form; each KV tile is read once for
  // all query heads of its group. A token's result is the same to the last bit however many tokens the step has and
  // however many workers there are, in quantised forms, too: which blocks it sees sealed depends on positions alone.
  void Attend(int layer, const float* queries, float* out, Worker worker = {});

  // The tokens count from now on. Fails when blocks that had been spilled could not be read back during the step (kIo;
  // kCorrupt when they are not what was stored): the step's numbers are worthless then, and the sequence now ends
  // before the first token that was lost; compute what follows again. kFailedPrecondition when a layer was not appended
  // to, by all workers of a call and before it was attended to: the tokens don't count, so that nobody is given what
  // their blocks happened to hold; the step is still under way. Without a step does nothing.
  [[nodiscard]] Status Commit();
  // Whether Commit is going to succeed, after the last Attend: for a step of several sequences, of which none is to be
  // committed when one can't be.
  Status CheckStep() const;

  // Makes room for so many more tokens by moving the sequence's oldest blocks to the first disk tier: for when Prepare
  // has failed with kOutOfMemory. From then on each step reads them from there, layer by layer, the next ones while one
  // is attended to; results are the same to the last bit. Only a small part of the sequence has to be in memory, but
  // every step reads all the rest. Layers with a sliding window stay in memory.
  // The file space stays taken until the sequence lets go of the blocks, even beyond the tier's size.
  // kFailedPrecondition without a disk tier; kIo when it can't store them; kOutOfMemory when the budget is too small
  // even so (SpilledKvBytes of kv_size.h is enough), the tier's size is, or what is in memory can't be spilled (tokens
  // after a Remove).
  Status Spill(int64_t num_more_tokens);
  int64_t num_spilled_tokens() const;

  // Gives up tokens for good: of the layers without a sliding window, each lane keeps those that the policy thinks the
  // most of, so many on average, and the others' memory is free at once (what other sequences or prefixes share stays
  // theirs). The first and the last tokens stay (options) and the kept ones go to memory of the sequence's own, in the
  // cache's form; a quantised one is rounded once more. Positions do not change: num_tokens() stays, and so do
  // tokens(). For after a prompt, before the question that it is to answer if there are several, and now and then while
  // an answer grows (num_held_tokens); each call reads and copies all that is left.
  //
  // Later steps see what is left, so from the first evicted token on the sequence is no prefix for others, and a saved
  // session has the tokens after it computed again. It can't be truncated, nor anything removed, before the last block
  // of evicted tokens.
  // kInvalidArgument for options; kFailedPrecondition when the policy needs Observe, or tokens are spilled;
  // kOutOfMemory when the budget has no room for the copy. Nothing has changed after an error.
  Result<RetentionReport> Retain(const RetentionOptions& options, int64_t num_tokens_to_keep);
  // The same by a policy of one's own (examples/own_policy.cc). It sees keys, values, and what has been observed: the
  // last 64 queries' probabilities after Observe(kSnapKv), mass after Observe(kH2o), moments after Observe(kExpected).
  // options.policy does not count. kInvalidArgument also where it gives a lane another number of scores than tokens.
  Result<RetentionReport> Retain(const TokenScorer& scorer, RetentionOptions options, int64_t num_tokens_to_keep);
  // From the next step on, Attend also notes what the policy wants to know of attention (tova, h2o, snapkv, expected);
  // what is noted for other policies stays. kInvalidArgument where it wants nothing. Cost: within the noise of a prompt
  // (docs/compression.md); memory beside the budget, for SmolLM2 4.4 MB for the last queries, as much for moments, and
  // 1 MB for h2o, or an eighth of the queries of the longest step.
  Status Observe(RetentionPolicy policy);
  bool is_observing() const;
  // For kvzip: the tokens of the next steps repeat tokens [begin, end) of the sequence, a few thousand at most, until
  // the next call; notes what each of them is attended to at most. Do it with a fork, chunk after chunk, and let the
  // sequence take over what the fork has noted. Tokens that nobody repeated count 0, those that came later 1.
  // kOutOfRange for tokens that the sequence has not.
  Status ObserveRepeating(int64_t begin, int64_t end);
  // REQUIRES: a fork of this sequence, since its tokens were the same.
  void TakeObserved(const Sequence& fork);
  // Tokens that a lane of the layers without a window holds, mean over lanes.
  double num_held_tokens() const;
  // From the next step on, steps of one token read less: in the layers after the first few and without a window, each
  // lane reads the blocks that promise this token's queries the largest scores, in ascending order as ever, up to
  // selection.num_tokens tokens. Nothing is given up: the next token may read others. An APPROXIMATION, but for
  // sequences that are no longer than that, which are attended to as without it, to the last bit. Which blocks are read
  // depends neither on threads nor on what else is in the batch.
  // Steps of several tokens read everything, and so does every step while blocks of the sequence are spilled, and all
  // of a model that has no more layers than the first few.
  // What was computed by leaving out blocks is no prefix for others, and a session has it computed again;
  // is_approximate tells. Forks select as the sequence does. num_tokens of 0 ends it; the same again changes nothing.
  // kInvalidArgument; a change forgets a step under way. Bounds of the keys are noted as blocks are first considered,
  // and take memory beside the budget, 3 % of f16 blocks, in each fork anew (CacheStats::page_bounds_bytes).
  Status SelectPages(const PageSelection& selection);
  // Tokens that the last step's queries read in such a lane, mean over lanes: all that it holds, or fewer.
  double num_read_tokens() const;
  // Of the blocks and kept tokens that the sequence uses, also those that others share.
  size_t num_held_bytes() const;
  // The positions of a lane's tokens, ascending. REQUIRES: there is such a layer and head.
  std::vector<int64_t> HeldPositions(int layer, int kv_head) const;

  // In a cache of a quantised form, whether this sequence's blocks are sealed once they are old enough (they are,
  // unless this says otherwise) or stay in the open form. From the next step on, which seals what it finds old enough;
  // what is sealed stays sealed, and nothing else is moved. Sequences that never seal share prefixes with one another.
  // When the sequence has tokens already, nothing computed from then on is shared or restored with a session. Only
  // sealed blocks can be spilled.
  void SetSealing(bool is_sealing);
  bool is_sealing() const;
  // How far ahead of this sequence memory is taken from now on, instead of CacheOptions::growth. kInvalidArgument as
  // GrowthOptions::Validate; kOutOfRange when it is static and shorter than the sequence.
  Status SetGrowth(const GrowthOptions& options);

  // A second sequence with the same tokens. All blocks are shared; costs no memory until one of them appends, but for a
  // copy of what was observed and of page bounds. When a
  // step is under way, its Appends have to be done before the fork prepares a step of its own.
  Sequence Fork() const;

  // Keeps the first `num_tokens` tokens. kOutOfRange past the end. kFailedPrecondition when a sliding-window layer has
  // already dropped tokens the next query would see. Where the new end lies in a spilled block, that is read back:
  // kIo, kCorrupt, kOutOfMemory. Nothing has changed after an error. In a quantised form, after a cut within a sealed
  // block nothing that follows is shared, stored or spilled: cut at a multiple of block_tokens instead.
  Status Truncate(int64_t num_tokens);

  // Takes tokens [begin, end) out. What follows keeps its keys and moves to the front by position delta: nothing is
  // rewritten, and removing again adds no error. Keys after the gap were computed with the gap's tokens in view.
  // Errors as Truncate.
  Status Remove(int64_t begin, int64_t end);

 private:
  struct State;
  friend class Cache;
  explicit Sequence(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

struct ResumedSession {
  Sequence sequence;  // the first of the tokens, as many as could be restored
  std::vector<Token> tokens;
  std::vector<std::byte> notes;
  ReuseReport reuse;
};

}  // namespace kvist
