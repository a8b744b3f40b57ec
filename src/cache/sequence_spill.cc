// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
// A sequence larger than the memory: its oldest blocks move to the disk tier, and steps read them from there.
#include <algorithm>
#include <string>
#include <utility>

#include "cache/sequence_state.h"
#include "cache/tier_store.h"

namespace kvist {
namespace {

// What one Spill frees beyond what is wanted now is so much of the budget: fewer and longer writes.
constexpr size_t kPartAhead = 16;

}  // namespace

// Full blocks that never change again, in the order of positions.
std::vector<Sequence::State::Candidate> Sequence::State::SpillCandidates() const {
  const int64_t block_tokens = core->geometry.block_tokens;
  std::vector<Candidate> candidates;
  for (size_t group = 0; group < tables.size(); ++group) {
    if (core->groups[group].layout.window > 0) continue;  // they keep little, and soon drop it
    const auto refs = tables[group].refs();
    for (size_t i = 0; i + 1 < refs.size(); ++i) {
      const BlockRef& ref = refs[i];
      const int64_t block_index = ref.position / block_tokens;
      if (ref.spilled || block_index >= num_shared_blocks || ref.position % block_tokens != 0) continue;
      if (ref.num_slots < block_tokens || ref.delta != 0) continue;
      if (ref.is_sealed == (core->groups[group].sealed_pool != nullptr)) candidates.push_back({group, i, block_index});
    }
  }
  std::ranges::stable_sort(candidates, {}, &Candidate::block_index);
  return candidates;
}

std::vector<size_t> Sequence::State::NumSpilled() const {
  std::vector<size_t> num_spilled;
  for (const BlockTable& table : tables) {
    num_spilled.push_back(
        size_t(std::ranges::count_if(table.refs(), [](const BlockRef& ref) { return ref.spilled != nullptr; })));
  }
  return num_spilled;
}

int64_t Sequence::State::num_spilled_tokens() const {
  int64_t num_spilled = 0;
  for (const BlockTable& table : tables) {
    for (const BlockRef& ref : table.refs()) num_spilled += ref.spilled ? ref.num_slots : 0;
  }
  return num_spilled;
}

std::optional<size_t> Sequence::State::NumToSpill(std::span<const Candidate> candidates, size_t bytes) const {
  std::vector<size_t> num_spilled = NumSpilled();
  size_t freed = stage->memory_bytes() + core->budget.limit_bytes() - core->budget.used_bytes();
  for (size_t i = 0; i < candidates.size(); ++i) {
    freed += core->groups[candidates[i].group].final_pool().block_bytes();
    ++num_spilled[candidates[i].group];
    if (freed >= SpillStage::BytesFor(*core, num_spilled) + bytes) return i + 1;
  }
  return std::nullopt;
}

Status Sequence::State::Spill(int64_t num_more_tokens) {
  if (!stage) {
    return Fail(ErrorCode::kFailedPrecondition,
                "a sequence larger than its memory needs a disk tier for the rest of it, and this cache has none; give "
                "it one as in disk:PATH,size=8G");
  }
  ForgetStep();
  const size_t wanted_bytes = BytesToReserve(num_more_tokens);
  const size_t ahead_bytes = core->budget.limit_bytes() / kPartAhead;
  bool has_waited = false;
  while (!HasRoomFor(num_more_tokens)) {
    if (core->EvictPrefixes(wanted_bytes + ahead_bytes)) continue;
    const std::vector<Candidate> candidates = SpillCandidates();
    std::optional<size_t> num_blocks = NumToSpill(candidates, wanted_bytes + ahead_bytes);
    if (!num_blocks && NumToSpill(candidates, wanted_bytes)) num_blocks = candidates.size();
    if (!num_blocks && !std::exchange(has_waited, true)) {
      core->tiers->WaitUntilWritten();  // what is being written can be evicted then
      continue;
    }
    if (!num_blocks && LetGoOfTail()) continue;  // as Prepare does
    if (!num_blocks) {
      return Fail(ErrorCode::kOutOfMemory, "the KV budget of " + std::to_string(core->budget.limit_bytes()) +
                                               " bytes is too small for what a step needs in memory, even with the " +
                                               "rest of the sequence in the disk tier; SpilledKvBytes tells how " +
                                               "many it needs");
    }
    const auto all = std::span(candidates);
    KVIST_TRY_VOID(SpillBlocks(all.first(*num_blocks)));
    WriteAhead(all.subspan(*num_blocks, std::min(*num_blocks, all.size() - *num_blocks)));
  }
  return {};
}

// Nothing is let go of before all of it can be read back.
Status Sequence::State::SpillBlocks(std::span<const Candidate> blocks) {
  std::vector<PrefixIndex::Entry> entries;
  for (const Candidate& block : blocks) {
    const BlockRef& ref = tables[block.group].refs()[block.ref_index];
    PrefixIndex::Entry entry = EntryOf(block.block_index);
    // Nobody else's: what others of its root compute is in another form.
    if (has_changed_sealing) entry.digest = ChildDigest(entry.digest, {});
    entry.blocks.resize(tables.size());
    entry.blocks[block.group] = StoredBlock{ref.block, ref.is_sealed};
    entries.push_back(std::move(entry));
  }
  std::vector<std::shared_ptr<const HeldRecord>> records;
  const auto hold_all = [&]() -> Status {
    records.clear();
    for (size_t i = 0; i < blocks.size(); ++i) {
      const size_t group = blocks[i].group;
      const bool is_sealed = entries[i].blocks[group]->is_sealed;
      KVIST_TRY(auto record, core->tiers->Hold(entries[i].digest, entries[i].tokens, group, is_sealed));
      records.push_back(std::move(record));
    }
    return {};
  };
  DiskTier::Keeper keeper(*core->tiers->disk());
  KVIST_TRY_VOID(core->tiers->WriteNow(entries, keeper));
  if (!hold_all()) {  // somebody has removed or damaged what was there before: the tier knows it now
    KVIST_TRY_VOID(core->tiers->WriteNow(entries, keeper));
    KVIST_TRY_VOID(hold_all());
  }
  for (size_t i = 0; i < blocks.size(); ++i) {
    tables[blocks[i].group].Spill(blocks[i].ref_index, std::move(records[i]));
  }
  return {};
}

void Sequence::State::WriteAhead(std::span<const Candidate> blocks) const {
  std::vector<Digest> digests;
  for (const Candidate& block : blocks) digests.push_back(chain[size_t(block.block_index)]);
  digests.erase(std::ranges::unique(digests).begin(), digests.end());
  core->tiers->WriteBehind(core->prefixes->FindAll(digests));
}

Sequence::State::HeldBlocks Sequence::State::HoldWhatHasNoRoom(std::vector<TierStore::Wanted>& wanted) const {
  const int64_t block_tokens = core->geometry.block_tokens;
  size_t wanted_bytes = core->tiers->BytesOf(wanted) + core->budget.limit_bytes() / kPartAhead;  // for the next step
  // Of two times: others may have made blocks idle in between.
  const size_t live_bytes = core->LiveBytes();
  const size_t used_bytes = live_bytes - std::min(live_bytes, core->prefixes->stats().idle_bytes);
  const size_t free_bytes = core->budget.limit_bytes() - std::min(core->budget.limit_bytes(), used_bytes);
  HeldBlocks held;
  std::vector<size_t> num_spilled = NumSpilled();
  for (TierStore::Wanted& one : wanted) {
    if (wanted_bytes + SpillStage::BytesFor(*core, num_spilled) <= free_bytes) break;
    if (std::ssize(one.tokens) < block_tokens) break;
    for (size_t group = 0; group < tables.size(); ++group) {
      const Cache::Core::Group& of_group = core->groups[group];
      const bool has_sealed = of_group.sealed_pool != nullptr;
      if (of_group.layout.window > 0 || one.sealed[group] != has_sealed) continue;
      auto record = core->tiers->Hold(one.digest, one.tokens, group, has_sealed);
      if (!record) return held;
      held.emplace(one.position / block_tokens, *std::move(record));
      one.sealed[group].reset();
      wanted_bytes -= of_group.LayoutOf(has_sealed).block_bytes;
      ++num_spilled[group];
    }
  }
  return held;
}

bool Sequence::State::HasRoomFor(int64_t num_more_tokens) {
  if (!stage->Prepare(tables)) return false;
  core->Trim();
  const auto fresh = ReserveBlocks(num_more_tokens);
  for (size_t i = 0; fresh && i < fresh->size(); ++i) tables[i].Release((*fresh)[i]);
  return fresh.has_value();
}

Status Sequence::State::RestoreSpilled(std::vector<RecordKey>& keys, DiskTier::Keeper& keeper) const {
  for (const BlockTable& table : tables) {
    for (const BlockRef& ref : table.refs()) {
      if (!ref.spilled || ref.end_position() > num_shared_blocks * core->geometry.block_tokens) continue;
      if (ref.spilled->header.digest != chain[size_t(ref.position / core->geometry.block_tokens)]) continue;
      keys.push_back(ref.spilled->key);
      KVIST_TRY_VOID(core->tiers->WriteAgain(*ref.spilled, keeper));
    }
  }
  return {};
}

Status Sequence::State::UnspillEnd(int64_t num_kept_tokens) {
  for (size_t group = 0; group < tables.size(); ++group) {
    const auto refs = tables[group].refs();
    for (size_t i = 0; i < refs.size(); ++i) {
      const bool ends_here = refs[i].position < num_kept_tokens && num_kept_tokens < refs[i].end_position();
      if (refs[i].spilled && ends_here) KVIST_TRY_VOID(Unspill(group, i));
    }
  }
  return {};
}

Status Sequence::State::Unspill(size_t group, size_t ref_index) {
  BlockPool& pool = core->groups[group].final_pool();
  auto block = pool.Allocate();
  if (!block) core->RetryWithRoom(pool.block_bytes(), [&] { return (block = pool.Allocate()).has_value(); });
  if (!block) return std::unexpected(block.error());
  const Status read = tables[group].refs()[ref_index].spilled->ReadPayload({pool.data(*block), pool.block_bytes()});
  if (read) {
    tables[group].Unspill(ref_index, *block);
  } else {
    pool.Release(*block);
  }
  return read;
}

void Sequence::State::EndBefore(const SpillStage::Loss& loss) {
  ForgetStep();
  core->tiers->ForgetDamaged(loss.key);  // else it would be there when the block is to be written anew
  // Where layers with a window no longer have what comes before, nothing is left to go on from.
  num_tokens = CheckWindows(loss.position, INT64_MAX) && CheckKept(loss.position) ? loss.position : 0;
  if (num_tokens == 0) {
    std::ranges::fill(kept, nullptr);
    end_of_kept = 0;
  }
  ForgetStep();
  TruncatePrefix(num_tokens);
  FollowShrinking();
}

}  // namespace kvist
