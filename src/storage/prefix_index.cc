// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "storage/prefix_index.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace kvist {
namespace {

constexpr size_t kMaxGhosts = 16384;

int64_t NumCommon(std::span<const Token> a, std::span<const Token> b) {
  return std::ranges::mismatch(a, b).in1 - a.begin();
}

}  // namespace

Digest ChildDigest(const Digest& parent, std::span<const Token> tokens) {
  return DigestOf({parent.bytes, std::as_bytes(tokens)});
}

size_t PrefixIndex::DigestHash::operator()(const Digest& digest) const {
  size_t hash;
  std::memcpy(&hash, digest.bytes.data(), sizeof(hash));
  return hash;
}

PrefixIndex::~PrefixIndex() {
  for (const auto& [digest, node] : nodes_) Release(node.entry);
}

void PrefixIndex::Release(const Entry& entry) const {
  for (size_t group = 0; group < entry.blocks.size(); ++group) {
    if (const auto& block = entry.blocks[group]) pools_[group].of(*block).Release(block->block);
  }
}

PrefixIndex::Entry PrefixIndex::Take(Node& node, const Lock& lock) {
  MarkUsed(node, lock);
  for (size_t group = 0; group < node.entry.blocks.size(); ++group) {
    const auto& block = node.entry.blocks[group];
    if (!block) continue;
    pools_[group].of(*block).AddReference(block->block);
  }
  return node.entry;
}

void PrefixIndex::MarkUsed(Node& node, const Lock&) {
  for (const auto use : node.uses) {
    if (use != uses_.end()) uses_.splice(uses_.begin(), uses_, use);
  }
}

std::optional<PrefixIndex::Entry> PrefixIndex::Find(const Digest& digest, std::span<const Token> tokens) {
  const Lock lock(mutex_);
  const auto found = nodes_.find(digest);
  if (found == nodes_.end() || found->second.num_blocks == 0) return std::nullopt;
  if (!std::ranges::equal(found->second.entry.tokens, tokens)) return std::nullopt;
  return Take(found->second, lock);
}

std::optional<PrefixIndex::Entry> PrefixIndex::FindPart(const Digest& parent, std::span<const Token> tokens) {
  const Lock lock(mutex_);
  Node* const best = MostCommonChild(parent, tokens, 1, lock).first;
  if (best == nullptr) return std::nullopt;
  return Take(*best, lock);
}

std::pair<PrefixIndex::Node*, int64_t> PrefixIndex::MostCommonChild(const Digest& parent, std::span<const Token> tokens,
                                                                    size_t min_blocks, const Lock&) {
  std::pair<Node*, int64_t> best{nullptr, 0};
  const auto children = children_.find(parent);
  if (children == children_.end()) return best;
  for (const Digest& child : children->second) {
    Node& node = nodes_.at(child);
    const int64_t num_common = node.num_blocks < min_blocks ? 0 : NumCommon(node.entry.tokens, tokens);
    if (num_common > best.second) best = {&node, num_common};
  }
  return best;
}

PrefixIndex::Node& PrefixIndex::AddNode(const Entry& entry, const Lock& lock) {
  const auto [place, is_new] = nodes_.try_emplace(entry.digest);
  Node& node = place->second;
  if (is_new) {
    node.entry = entry;
    node.entry.root.reset();
    node.entry.blocks.assign(pools_.size(), std::nullopt);
    node.uses.assign(pools_.size(), uses_.end());
    children_[entry.parent].push_back(entry.digest);
    if (entry.position == 0) ++beginnings_[ChildDigest({}, entry.tokens)];
  } else if (node.num_blocks == 0) {
    ghosts_.erase(node.ghost);
  }
  AddContent(node, entry.root, lock);
  return node;
}

StoredBlock PrefixIndex::Share(const Entry& entry, size_t group, StoredBlock block) {
  const Lock lock(mutex_);
  Node& node = AddNode(entry, lock);
  KVIST_CHECK(node.entry.tokens == entry.tokens);
  std::optional<StoredBlock>& held = node.entry.blocks[group];
  if (held && held->is_sealed == block.is_sealed) {
    if (*held != block) pools_[group].of(*held).AddReference(held->block);
    return *held;
  }
  if (held && held->is_sealed) return block;
  Hold(group, block, lock);
  if (held) {
    LetGoOnce(group, *held, lock);
  } else {
    uses_.push_front({entry.digest, group});
    node.uses[group] = uses_.begin();
    ++node.num_blocks;
  }
  held = block;
  return block;
}

void PrefixIndex::Offer(const Entry& entry, size_t group, StoredBlock block) {
  const StoredBlock shared = Share(entry, group, block);
  if (shared != block) ReleaseBlock(group, shared);
  ReleaseBlock(group, block);
}

void PrefixIndex::Touch(std::span<const Digest> digests) {
  const Lock lock(mutex_);
  for (size_t i = digests.size(); i-- > 0;) {
    if (const auto found = nodes_.find(digests[i]); found != nodes_.end()) MarkUsed(found->second, lock);
  }
}

std::vector<PrefixIndex::Entry> PrefixIndex::FindAll(std::span<const Digest> digests) {
  const Lock lock(mutex_);
  std::vector<Entry> entries;
  for (const Digest& digest : digests) {
    const auto found = nodes_.find(digest);
    if (found != nodes_.end() && found->second.num_blocks > 0) entries.push_back(Take(found->second, lock));
  }
  return entries;
}

void PrefixIndex::Hold(size_t group, const StoredBlock& block, const Lock&) {
  AddReference(group, block);
  ++num_entries_[group][block];
}

bool PrefixIndex::LetGoOnce(size_t group, const StoredBlock& block, const Lock&) {
  const auto held = num_entries_[group].find(block);
  const bool is_last = --held->second == 0;
  if (is_last) num_entries_[group].erase(held);
  ReleaseBlock(group, block);
  return is_last;
}

bool PrefixIndex::IsIdle(size_t group, const StoredBlock& block, const Lock&) const {
  return pools_[group].of(block).NumReferences(block.block) == num_entries_[group].at(block);
}

bool PrefixIndex::IsHeldOnce(size_t group, const StoredBlock& block, const Lock&) const {
  return pools_[group].of(block).NumReferences(block.block) == num_entries_[group].at(block) + 1;
}

bool PrefixIndex::DropBlock(std::list<Use>::iterator use, const Lock& lock) {
  Node& node = nodes_.at(use->digest);
  const size_t group = use->group;
  const StoredBlock block = *std::exchange(node.entry.blocks[group], std::nullopt);
  node.uses[group] = uses_.end();
  if (--node.num_blocks == 0) node.ghost = ghosts_.insert(ghosts_.begin(), node.entry.digest);
  uses_.erase(use);
  const bool is_last = LetGoOnce(group, block, lock);
  if (is_last) ++num_evicted_;
  return is_last;
}

void PrefixIndex::ForgetOldGhosts(const Lock& lock) {
  while (ghosts_.size() > kMaxGhosts) {
    const auto node = nodes_.find(ghosts_.back());
    const auto siblings = children_.find(node->second.entry.parent);
    std::erase(siblings->second, node->first);
    if (node->second.entry.position == 0) {
      const auto beginning = beginnings_.find(ChildDigest({}, node->second.entry.tokens));
      if (--beginning->second == 0) beginnings_.erase(beginning);
    }
    if (siblings->second.empty()) children_.erase(siblings);
    RemoveContent(node->second, lock);
    nodes_.erase(node);
    ghosts_.pop_back();
  }
}

size_t PrefixIndex::Evict(size_t bytes) {
  const Lock lock(mutex_);
  size_t num_freed = 0;
  for (auto use = uses_.end(); use != uses_.begin() && num_freed < bytes;) {
    --use;
    const StoredBlock block = *nodes_.at(use->digest).entry.blocks[use->group];
    if (!IsIdle(use->group, block, lock)) continue;
    const size_t block_bytes = pools_[use->group].of(block).block_bytes();
    const auto next = std::next(use);
    if (DropBlock(use, lock)) num_freed += block_bytes;
    use = next;
  }
  ForgetOldGhosts(lock);
  return num_freed;
}

bool PrefixIndex::LetGo(const Digest& parent, size_t group, const StoredBlock& block) {
  const Lock lock(mutex_);
  const auto children = children_.find(parent);
  if (children == children_.end()) return false;
  bool any = false;
  for (const Digest& child : children->second) {
    const Node& node = nodes_.at(child);
    if (node.entry.blocks[group] != block || !IsHeldOnce(group, block, lock)) continue;
    DropBlock(node.uses[group], lock);
    any = true;
  }
  return any;
}

std::optional<PrefixIndex::Nearest> PrefixIndex::Explain(const Digest& parent, std::span<const Token> tokens) const {
  const Lock lock(mutex_);
  const auto children = children_.find(parent);
  if (children == children_.end()) return std::nullopt;
  Nearest nearest;
  nearest.num_common = -1;
  for (const Digest& child : children->second) {
    const Node& node = nodes_.at(child);
    const int64_t num_common = NumCommon(node.entry.tokens, tokens);
    if (num_common <= nearest.num_common) continue;
    nearest.num_common = num_common;
    nearest.other_token.reset();
    const bool differs = num_common < std::ssize(node.entry.tokens) && num_common < std::ssize(tokens);
    if (differs) nearest.other_token = node.entry.tokens[size_t(num_common)];
    nearest.was_evicted = node.num_blocks == 0 && !differs;
  }
  return nearest;
}

bool PrefixIndex::IsKnownBeginning(std::span<const Token> tokens) const {
  const Lock lock(mutex_);
  return beginnings_.contains(ChildDigest({}, tokens));
}

PrefixIndex::Stats PrefixIndex::stats() const {
  const Lock lock(mutex_);
  Stats stats{.num_evicted = num_evicted_};
  for (size_t group = 0; group < num_entries_.size(); ++group) {
    stats.num_blocks += num_entries_[group].size();
    for (const auto& [block, num_entries] : num_entries_[group]) {
      if (!IsIdle(group, block, lock)) continue;
      ++stats.num_idle_blocks;
      stats.idle_bytes += pools_[group].of(block).block_bytes();
    }
  }
  return stats;
}

}  // namespace kvist
