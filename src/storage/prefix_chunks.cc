// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
// How the prefix index finds tokens whatever precedes them.
#include <algorithm>
#include <utility>

#include "storage/prefix_index.h"
#include "storage/rolling_hash.h"

namespace kvist {

// Of the texts that hold the same block, the newest so many are looked at for the longest chunk.
constexpr size_t kMaxTexts = 16;

// Nodes one after another whose tokens go on as the prompt does.
struct PrefixIndex::Match {
  int64_t position = 0;
  int64_t num_tokens = 0;
  int64_t first_slot = 0;
  std::vector<Node*> nodes;
};

void PrefixIndex::AddContent(Node& node, const std::optional<Digest>& root, const Lock&) {
  if (!root || node.entry.root) return;
  node.entry.root = root;
  contents_[*root][RollingHash(node.entry.tokens).value()].push_back(node.entry.digest);
}

void PrefixIndex::RemoveContent(const Node& node, const Lock&) {
  if (!node.entry.root) return;
  const auto of_root = contents_.find(*node.entry.root);
  const auto digests = of_root->second.find(RollingHash(node.entry.tokens).value());
  std::erase(digests->second, node.entry.digest);
  if (digests->second.empty()) of_root->second.erase(digests);
  if (of_root->second.empty()) contents_.erase(of_root);
}

// The chunk around a node whose tokens the prompt has at the position.
PrefixIndex::Match PrefixIndex::MatchAt(Node& node, int64_t position, const ChunkQuery& query, const Lock& lock) {
  Match match{.position = position, .nodes = {}};
  if (const auto before = nodes_.find(node.entry.parent);
      before != nodes_.end() && before->second.num_blocks == pools_.size()) {
    const auto& stored = before->second.entry.tokens;
    const auto of_prompt = query.prompt.subspan(size_t(query.first_position), size_t(position - query.first_position));
    const auto differ = std::mismatch(stored.rbegin(), stored.rend(), of_prompt.rbegin(), of_prompt.rend());
    const int64_t num_common = differ.first - stored.rbegin();
    if (num_common > 0) match.nodes.push_back(&before->second);
    if (num_common > 0) match.first_slot = std::ssize(stored) - num_common;
    match.position -= num_common;
  }
  int64_t end = position;
  for (std::pair<Node*, int64_t> next{&node, query.block_tokens}; next.first != nullptr;) {
    match.nodes.push_back(next.first);
    end += next.second;
    if (next.second < query.block_tokens) break;
    next = MostCommonChild(next.first->entry.digest, query.prompt.subspan(size_t(end)), pools_.size(), lock);
  }
  match.num_tokens = end - match.position;
  return match;
}

// The longest of those that one of the nodes is a block of, or none.
PrefixIndex::Match PrefixIndex::BestMatch(std::span<const Digest> digests, int64_t position, const ChunkQuery& query,
                                          const Lock& lock) {
  const auto of_block = query.prompt.subspan(size_t(position), size_t(query.block_tokens));
  Match best;
  for (const Digest& digest : digests.last(std::min(digests.size(), kMaxTexts))) {
    Node& node = nodes_.at(digest);
    if (node.num_blocks < pools_.size() || !std::ranges::equal(node.entry.tokens, of_block)) continue;
    Match match = MatchAt(node, position, query, lock);
    if (match.position <= query.last_position && match.num_tokens > best.num_tokens) best = std::move(match);
  }
  return best;
}

std::optional<PrefixIndex::Chunk> PrefixIndex::FindChunk(const ChunkQuery& query) {
  const Lock lock(mutex_);
  const auto contents = contents_.find(query.root);
  int64_t position = query.first_position;
  const auto of_block = [&] { return query.prompt.subspan(size_t(position), size_t(query.block_tokens)); };
  // The first whole block of a chunk begins less than a block after the chunk.
  const int64_t end = std::min(std::ssize(query.prompt), query.last_position) + query.block_tokens;
  if (contents == contents_.end() || position + query.block_tokens > std::ssize(query.prompt)) return std::nullopt;
  for (RollingHash hash(of_block()); position < end; ++position) {
    const auto found = contents->second.find(hash.value());
    if (found != contents->second.end()) {
      const Match match = BestMatch(found->second, position, query, lock);
      if (match.num_tokens >= query.min_tokens) {
        Chunk chunk{match.position, match.num_tokens, match.first_slot, {}};
        for (Node* node : match.nodes) chunk.entries.push_back(Take(*node, lock));
        return chunk;
      }
    }
    const int64_t next = position + query.block_tokens;
    if (next >= std::ssize(query.prompt)) break;
    hash.Move(query.prompt[size_t(position)], query.prompt[size_t(next)]);
  }
  return std::nullopt;
}

}  // namespace kvist
