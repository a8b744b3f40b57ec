// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
// How sequences share blocks: what they offer to the prefix index and what they take from it.
#include <algorithm>
#include <utility>

#include "cache/sequence_state.h"
#include "cache/tier_store.h"
#include "policy/sealing.h"

namespace kvist {

// What the index has of a prompt after a sequence's last full block.
struct Sequence::State::Run {
  int64_t first_block = 0;
  std::vector<Digest> digests;                          // of the full blocks
  std::vector<PrefixIndex::Entry> blocks;               // full ones, in order
  std::vector<std::shared_ptr<const HeldRecord>> held;  // [block] to be used spilled in the group without a window
  std::optional<PrefixIndex::Entry> part;               // of which the first tokens follow
  int64_t num_part_tokens = 0;
  int64_t end_position(int64_t block_tokens) const {
    return (first_block + int64_t(blocks.size())) * block_tokens + num_part_tokens;
  }
};

PrefixIndex::Entry Sequence::State::EntryOf(int64_t block_index) const {
  const int64_t block_tokens = core->geometry.block_tokens, begin = block_index * block_tokens;
  const auto of_block = std::span(tokens).subspan(size_t(begin), size_t(block_tokens));
  return {.digest = chain[size_t(block_index)],
          .parent = DigestBefore(block_index),
          .position = begin,
          .tokens = {of_block.begin(), of_block.end()},
          .blocks = {},
          .root = content_root()};
}

void Sequence::State::ShareBlock(const PrefixIndex::Entry& entry, size_t group, size_t ref_index) {
  BlockTable& table = tables[group];
  const BlockRef& ref = table.refs()[ref_index];
  if (ref.spilled) return;
  const StoredBlock shared = core->prefixes->Share(entry, group, {ref.block, ref.is_sealed});
  if (shared.block != ref.block) table.Replace(ref_index, shared.block);
}

void Sequence::State::ShareBlocks(const std::vector<std::vector<size_t>>& newly_sealed) {
  if (!core->prefixes || has_changed_sealing) return;
  const int64_t block_tokens = core->geometry.block_tokens;
  for (size_t group = 0; group < tables.size(); ++group) {
    for (const size_t ref_index : newly_sealed[group]) {
      const int64_t position = tables[group].refs()[ref_index].position;
      if (position % block_tokens == 0 && position / block_tokens < num_shared_blocks) {
        ShareBlock(EntryOf(position / block_tokens), group, ref_index);
      }
    }
  }
  const int64_t end_block = std::min(num_tokens, end_of_prefix) / block_tokens;
  for (; num_shared_blocks < end_block; ++num_shared_blocks) {
    const int64_t begin = num_shared_blocks * block_tokens;
    chain.push_back(
        ChildDigest(DigestBefore(num_shared_blocks), std::span(tokens).subspan(size_t(begin), size_t(block_tokens))));
    const PrefixIndex::Entry entry = EntryOf(num_shared_blocks);
    for (size_t group = 0; group < tables.size(); ++group) {
      const auto ref_index = tables[group].FindRef(begin, int32_t(block_tokens));
      if (ref_index) ShareBlock(entry, group, *ref_index);
    }
  }
}

std::vector<Digest> Sequence::State::ShareAll() {
  std::vector<Digest> digests = chain;
  const int64_t begin = num_shared_blocks * core->geometry.block_tokens;
  if (num_tokens <= begin || num_tokens > end_of_prefix || has_changed_sealing) return digests;
  const auto of_tail = std::span(tokens).subspan(size_t(begin), size_t(num_tokens - begin));
  const PrefixIndex::Entry entry{.digest = ChildDigest(DigestBefore(num_shared_blocks), of_tail),
                                 .parent = DigestBefore(num_shared_blocks),
                                 .position = begin,
                                 .tokens = {of_tail.begin(), of_tail.end()},
                                 .blocks = {},
                                 .root = {}};
  for (size_t group = 0; group < tables.size(); ++group) {
    const auto ref_index = tables[group].FindRef(begin, int32_t(of_tail.size()));
    if (ref_index && !tables[group].refs()[*ref_index].is_sealed) ShareBlock(entry, group, *ref_index);
  }
  digests.push_back(entry.digest);
  return digests;
}

bool Sequence::State::LetGoOfTail() {
  bool any = false;
  for (size_t group = 0; group < tables.size() && core->prefixes; ++group) {
    if (tables[group].refs().empty()) continue;
    const BlockRef& tail = tables[group].refs().back();
    if (tail.spilled) continue;
    any |= core->prefixes->LetGo(DigestBefore(num_shared_blocks), group, {tail.block, tail.is_sealed});
  }
  return any;
}

void Sequence::State::End() {
  if (!core->prefixes || num_tokens == 0) return;
  const std::vector<Digest> all = ShareAll();
  std::vector<PrefixIndex::Entry> entries;
  if (core->tiers) entries = core->prefixes->FindAll(chain);
  core->prefixes->Touch(all);  // after FindAll, which uses them in another order
  if (!core->tiers) return;
  core->tiers->WriteBehind(std::move(entries));
  std::vector<RecordKey> spilled;  // used as late as the rest
  for (const BlockTable& table : tables) {
    for (const BlockRef& ref : table.refs()) {
      if (ref.spilled) spilled.push_back(ref.spilled->key);
    }
  }
  if (!spilled.empty()) core->tiers->disk()->Contains(spilled);
}

void Sequence::State::TruncatePrefix(int64_t num_kept_tokens) {
  if (num_kept_tokens <= end_of_prefix) end_of_prefix = INT64_MAX;
  num_shared_blocks = std::min(num_shared_blocks, num_kept_tokens / core->geometry.block_tokens);
  // Others may want what goes, and when the sequence ends it is no part of it any more.
  const auto gone = std::span(chain).subspan(size_t(num_shared_blocks));
  if (core->tiers && !gone.empty()) core->tiers->WriteBehind(core->prefixes->FindAll(gone));
  chain.resize(size_t(num_shared_blocks));
}

Sequence::State::Run Sequence::State::FindRun(std::span<const Token> prompt, int64_t max_tokens,
                                              const HeldBlocks& held) {
  const int64_t block_tokens = core->geometry.block_tokens, num_prompt = std::ssize(prompt);
  Run run{};
  run.first_block = num_shared_blocks;
  Digest before = DigestBefore(num_shared_blocks);
  int64_t begin = run.first_block * block_tokens;
  for (; begin < max_tokens && begin + block_tokens <= num_prompt; begin += block_tokens) {
    const auto of_block = prompt.subspan(size_t(begin), size_t(block_tokens));
    const Digest digest = ChildDigest(before, of_block);
    auto entry = core->prefixes->Find(digest, of_block);
    const auto on_disk = held.find(begin / block_tokens);
    if (!entry && on_disk == held.end()) break;
    if (!entry) entry = {.digest = digest, .parent = before, .position = begin, .tokens = {}, .blocks = {}};
    entry->blocks.resize(tables.size());
    run.digests.push_back(digest);
    run.blocks.push_back(*std::move(entry));
    run.held.push_back(on_disk == held.end() ? nullptr : on_disk->second);
    before = digest;
  }
  if (begin > max_tokens) {  // the last block is needed in part only
    run.part = std::move(run.blocks.back());
    run.blocks.pop_back();
    run.digests.pop_back();
    run.held.pop_back();
    run.num_part_tokens = max_tokens - (begin - block_tokens);
    return run;
  }
  const auto rest = prompt.subspan(size_t(begin), size_t(std::min(block_tokens, max_tokens - begin)));
  run.part = core->prefixes->FindPart(before, rest);
  if (run.part) run.num_part_tokens = std::ranges::mismatch(run.part->tokens, rest).in2 - rest.begin();
  return run;
}

// Whether every group has what a query at end_position sees, when so many of the run's blocks are taken, and its part
// where that is needed to get there.
bool Sequence::State::IsUsable(const Run& run, size_t num_blocks, int64_t end_position) const {
  const int64_t block_tokens = core->geometry.block_tokens;
  const bool takes_part = end_position > (run.first_block + int64_t(num_blocks)) * block_tokens;
  for (size_t group = 0; group < tables.size(); ++group) {
    const int64_t window = core->groups[group].layout.window;
    const int64_t first_needed = window == 0 ? 0 : std::max<int64_t>(0, end_position - window + 1);
    const int64_t own_end = run.first_block * block_tokens;
    if (first_needed < std::min(own_end, end_position) && tables[group].begin_position() > first_needed) return false;
    for (size_t i = 0; i < num_blocks; ++i) {
      const bool is_needed = (run.first_block + int64_t(i) + 1) * block_tokens > first_needed;
      if (is_needed && !run.blocks[i].blocks[group] && !(window == 0 && run.held[i])) return false;
    }
    if (takes_part && (!run.part->blocks[group] || run.part->blocks[group]->is_sealed)) return false;
  }
  return true;
}

void Sequence::State::AttachRun(const Run& run, size_t num_blocks, int64_t end_position) {
  const int64_t block_tokens = core->geometry.block_tokens, own_end = run.first_block * block_tokens;
  for (size_t group = 0; group < tables.size(); ++group) {
    BlockTable& table = tables[group];
    table.Truncate(own_end);
    const int64_t window = core->groups[group].layout.window;
    const int64_t first_needed = window == 0 ? 0 : std::max<int64_t>(0, end_position - window + 1);
    const int64_t first_block = first_needed / block_tokens;
    if (first_block > run.first_block) table.SkipTo(first_block * block_tokens);
    auto attach = [&](const PrefixIndex::Entry& entry, int64_t num_slots, std::shared_ptr<const HeldRecord> held) {
      if (!entry.blocks[group]) {
        table.Attach({.block = {},
                      .is_sealed = core->groups[group].sealed_pool != nullptr,
                      .num_slots = int32_t(num_slots),
                      .position = table.end_position(),
                      .spilled = std::move(held)});
        return;
      }
      const StoredBlock& stored = *entry.blocks[group];
      core->prefixes->AddReference(group, stored);
      table.Attach({.block = stored.block,
                    .is_sealed = stored.is_sealed,
                    .num_slots = int32_t(num_slots),
                    .position = table.end_position()});
    };
    for (size_t i = 0; i < num_blocks; ++i) {
      if (run.first_block + int64_t(i) >= first_block) attach(run.blocks[i], block_tokens, run.held[i]);
    }
    if (table.end_position() < end_position) attach(*run.part, end_position - table.end_position(), nullptr);
  }
}

// Of the prompt, the blocks that are in memory in some groups at most, from the first of the run on.
std::vector<TierStore::Wanted> Sequence::State::MissingBlocks(const Run& run, std::span<const Token> prompt,
                                                              bool with_tail) const {
  const int64_t block_tokens = core->geometry.block_tokens;
  std::vector<TierStore::Wanted> wanted;
  Digest before = DigestBefore(run.first_block);
  for (int64_t i = run.first_block; i * block_tokens < std::ssize(prompt); ++i) {
    const int64_t num_in_block = std::min(block_tokens, std::ssize(prompt) - i * block_tokens);
    if (num_in_block < block_tokens && !with_tail) break;
    const auto of_block = prompt.subspan(size_t(i * block_tokens), size_t(num_in_block));
    TierStore::Wanted one{ChildDigest(before, of_block), before, i * block_tokens, of_block, {}};
    if (num_in_block == block_tokens) one.root = content_root();
    const auto in_run = size_t(i - run.first_block);
    for (size_t group = 0; group < tables.size(); ++group) {
      const bool is_there = in_run < run.blocks.size()
                                ? run.blocks[in_run].blocks[group].has_value()
                                : num_in_block < block_tokens && run.part && run.part->blocks[group] &&
                                      run.num_part_tokens == num_in_block;
      const bool wants_sealed =
          num_in_block == block_tokens && core->groups[group].sealed_pool != nullptr &&
          SealedFrom(tables[group].sealing(), one.position, one.position + block_tokens) <= std::ssize(prompt);
      one.sealed.push_back(is_there ? std::nullopt : std::optional(wants_sealed));
    }
    before = one.digest;
    wanted.push_back(std::move(one));
  }
  const bool is_all_there = std::ranges::all_of(wanted, [](const TierStore::Wanted& one) {
    return std::ranges::none_of(one.sealed, [](const auto& sealed) { return sealed.has_value(); });
  });
  if (is_all_there) wanted.clear();
  return wanted;
}

void Sequence::State::ReleaseRun(const Run& run) const {
  for (const PrefixIndex::Entry& entry : run.blocks) core->prefixes->Release(entry);
  if (run.part) core->prefixes->Release(*run.part);
}

// How many tokens there were before: what comes after the run's last block.
int64_t Sequence::State::TakeRun(const Run& run, std::span<const Token> prompt) {
  const int64_t block_tokens = core->geometry.block_tokens;
  size_t num_blocks = run.blocks.size();
  int64_t end_position = run.end_position(block_tokens);
  while (end_position > num_tokens && !IsUsable(run, num_blocks, end_position)) {
    if (end_position % block_tokens == 0) --num_blocks;
    end_position = (run.first_block + int64_t(num_blocks)) * block_tokens;
  }
  if (end_position <= num_tokens) return 0;
  AttachRun(run, num_blocks, end_position);
  tokens.assign(prompt.begin(), prompt.begin() + end_position);
  chain.insert(chain.end(), run.digests.begin(), run.digests.begin() + int64_t(num_blocks));
  num_shared_blocks += int64_t(num_blocks);
  core->NotePeak();
  return end_position - std::exchange(num_tokens, end_position);
}

void Sequence::State::ExplainMiss(std::span<const Token> prompt, ReuseReport& report) const {
  const int64_t num_whole = num_shared_blocks * core->geometry.block_tokens;
  const auto rest = prompt.subspan(size_t(num_whole));
  const auto nearest = core->prefixes->Explain(DigestBefore(num_shared_blocks), rest);
  report.miss_position = num_tokens;
  if (!nearest) {
    const auto block_tokens = size_t(core->geometry.block_tokens);
    const bool is_other_salt = num_whole == 0 && rest.size() >= block_tokens &&
                               report.reason == MissReason::kNothingStored &&
                               core->prefixes->IsKnownBeginning(rest.first(block_tokens));
    if (is_other_salt) report.reason = MissReason::kOtherSalt;
    return;
  }
  if (nearest->was_evicted && report.reason == MissReason::kNothingStored) report.reason = MissReason::kEvicted;
  if (!nearest->other_token || report.reason != MissReason::kNothingStored) return;
  report.reason = MissReason::kOtherToken;
  report.miss_position = num_whole + nearest->num_common;
  report.wanted_token = prompt[size_t(report.miss_position)];
  report.stored_token = nearest->other_token;
}

void Sequence::State::Prefetch(std::span<const Token> prompt) {
  const Run run = FindRun(prompt, std::ssize(prompt), {});
  const std::vector<TierStore::Wanted> missing = MissingBlocks(run, prompt, false);
  const size_t free_bytes = core->budget.limit_bytes() - std::min(core->budget.limit_bytes(), core->LiveBytes());
  if (!missing.empty() && core->tiers->BytesOf(missing) <= free_bytes) core->tiers->Fetch(missing, false);
  ReleaseRun(run);
}

ReuseReport Sequence::State::Reuse(std::span<const Token> prompt, int64_t max_tokens, ReuseHow how) {
  ForgetStep();
  ReuseReport report;
  report.own_tokens = report.miss_position = num_tokens;
  if (max_tokens <= num_tokens) return report;
  if (!core->prefixes || num_tokens > end_of_prefix || has_changed_sealing) {
    report.reason = MissReason::kUnshared;
    return report;
  }
  report.reason = MissReason::kNothingStored;
  Run run = FindRun(prompt, max_tokens, {});
  std::vector<TierStore::Wanted> missing;
  if (core->tiers) missing = MissingBlocks(run, prompt, how.with_tail);
  if (!missing.empty()) {
    HeldBlocks held;
    if (how.may_spill && stage && has_final_form()) held = HoldWhatHasNoRoom(missing);
    TierStore::Fetched fetched = core->tiers->Fetch(missing);
    report.reason = fetched.reason;
    report.loaded = std::move(fetched.tiers);
    if (!report.loaded.empty() || !held.empty()) ReleaseRun(std::exchange(run, FindRun(prompt, max_tokens, held)));
  }
  const int64_t end_found = run.end_position(core->geometry.block_tokens), spilled_before = num_spilled_tokens();
  report.shared_tokens = TakeRun(run, prompt);
  ReleaseRun(run);
  report.spilled_tokens = num_spilled_tokens() - spilled_before;
  report.shared_tokens -= report.spilled_tokens;
  for (ReuseReport::FromTier& from : report.loaded) {
    from.tokens = std::min(from.tokens, report.shared_tokens);
    report.shared_tokens -= from.tokens;
  }
  if (num_tokens == max_tokens) {
    report.reason = MissReason::kNone;
    report.miss_position = num_tokens;
  } else if (end_found > num_tokens) {
    report.reason = MissReason::kWindow;
    report.miss_position = num_tokens;
  } else {
    ExplainMiss(prompt, report);
  }
  return report;
}

}  // namespace kvist
