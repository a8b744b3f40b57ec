// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "storage/prefix_index.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <span>
#include <vector>

#include "base/address_range.h"
#include "storage/rolling_hash.h"

namespace kvist::prefix_index_test {
namespace {

struct Rig {
  MemoryBudget budget{64 * PageBytes()};
  std::unique_ptr<BlockPool> open = BlockPool::Open(PageBytes(), 32, &budget).value();
  std::unique_ptr<BlockPool> sealed = BlockPool::Open(PageBytes(), 32, &budget).value();
  PrefixIndex index{{{open.get(), sealed.get()}, {open.get(), nullptr}}};

  PrefixIndex::Entry Entry(const Digest& parent, std::vector<Token> tokens, int64_t position = 0) const {
    return {ChildDigest(parent, tokens), parent, position, tokens, {}};
  }
  StoredBlock NewOpen() { return {open->Allocate().value(), false}; }
  StoredBlock NewSealed() { return {sealed->Allocate().value(), true}; }
  size_t num_live() const { return open->stats().num_live_blocks + sealed->stats().num_live_blocks; }
};

TEST_CASE("prefix index: what was offered is found, by its digest and its tokens both") {
  Rig rig;
  const auto entry = rig.Entry({}, {1, 2, 3});
  rig.index.Offer(entry, 0, rig.NewOpen());
  const auto found = rig.index.Find(entry.digest, entry.tokens);
  REQUIRE(found);
  CHECK(found->blocks[0].has_value());
  CHECK_FALSE(found->blocks[1].has_value());
  rig.index.Release(*found);
  CHECK_FALSE(rig.index.Find(entry.digest, std::vector<Token>{1, 2, 4}));  // another text with the same digest
  CHECK_FALSE(rig.index.Find(ChildDigest(entry.digest, entry.tokens), entry.tokens));
}

TEST_CASE("prefix index: of two equal blocks one is kept; a sealed one takes the place of an open one") {
  Rig rig;
  const auto entry = rig.Entry({}, {1});
  const StoredBlock first = rig.NewOpen(), second = rig.NewOpen();
  CHECK(rig.index.Share(entry, 0, first) == first);
  CHECK(rig.index.Share(entry, 0, second) == first);
  rig.open->Release(second.block);
  rig.open->Release(first.block);  // the reference that Share gave
  const StoredBlock sealed = rig.NewSealed();
  CHECK(rig.index.Share(entry, 0, sealed) == sealed);
  rig.open->Release(first.block);
  CHECK(rig.open->stats().num_live_blocks == 0);
  rig.sealed->Release(sealed.block);
  const StoredBlock open_again = rig.NewOpen();
  CHECK(rig.index.Share(entry, 0, open_again) == open_again);  // the index keeps the sealed one
  rig.open->Release(open_again.block);
  CHECK(rig.num_live() == 1);
}

TEST_CASE("prefix index: the least recently used go first, and none that somebody holds") {
  Rig rig;
  std::vector<PrefixIndex::Entry> entries;
  Digest parent;
  for (int i = 0; i < 4; ++i) {
    entries.push_back(rig.Entry(parent, {i}, i));
    parent = entries.back().digest;
    rig.index.Offer(entries.back(), 0, rig.NewOpen());
  }
  std::vector<Digest> digests;
  for (const auto& entry : entries) digests.push_back(entry.digest);
  rig.index.Touch(digests);
  const auto held = rig.index.Find(entries[3].digest, entries[3].tokens);
  CHECK(rig.index.stats().num_idle_blocks == 3);
  CHECK(rig.index.Evict(PageBytes()) == PageBytes());
  CHECK_FALSE(rig.index.Find(entries[2].digest, entries[2].tokens));  // the end of the chain that is not held
  CHECK(rig.index.Evict(100 * PageBytes()) == 2 * PageBytes());
  CHECK(rig.num_live() == 1);
  rig.index.Release(*held);
  CHECK(rig.index.Evict(100 * PageBytes()) == PageBytes());
  CHECK(rig.num_live() == 0);
  CHECK(rig.index.stats().num_evicted == 4);
}

TEST_CASE("prefix index: a part is found by the most tokens in common, and a miss is explained") {
  Rig rig;
  const Digest root = ChildDigest({}, std::vector<Token>{7});
  for (const std::vector<Token>& tokens : {std::vector<Token>{1, 2, 3, 4}, {1, 2, 9, 9}, {5}}) {
    rig.index.Offer(rig.Entry(root, tokens), 0, rig.NewOpen());
  }
  const std::vector<Token> wanted{1, 2, 3, 8};
  const auto part = rig.index.FindPart(root, wanted);
  REQUIRE(part);
  CHECK(part->tokens == std::vector<Token>{1, 2, 3, 4});
  rig.index.Release(*part);
  CHECK_FALSE(rig.index.FindPart(root, std::vector<Token>{6}));
  CHECK_FALSE(rig.index.FindPart({}, wanted));
  auto nearest = rig.index.Explain(root, wanted).value();
  CHECK(nearest.num_common == 3);
  CHECK(nearest.other_token == 4);
  CHECK_FALSE(nearest.was_evicted);
  CHECK_FALSE(rig.index.Explain({}, wanted));
  rig.index.Evict(100 * PageBytes());
  nearest = rig.index.Explain(root, std::vector<Token>{1, 2, 3, 4, 5}).value();
  CHECK(nearest.was_evicted);
  CHECK(rig.index.IsKnownBeginning(std::vector<Token>{5}));
  CHECK_FALSE(rig.index.IsKnownBeginning(std::vector<Token>{6}));
}

TEST_CASE("prefix index: a block is let go of while somebody holds it") {
  Rig rig;
  const auto entry = rig.Entry({}, {1});
  const StoredBlock block = rig.NewOpen();
  rig.index.Share(entry, 0, block);
  CHECK_FALSE(rig.index.LetGo({}, 1, block));
  CHECK(rig.index.LetGo({}, 0, block));
  CHECK_FALSE(rig.index.LetGo({}, 0, block));
  CHECK_FALSE(rig.open->IsShared(block.block));
  rig.open->Release(block.block);
}

TEST_CASE("prefix index: a block in two entries is idle when nobody else holds it, and goes with the last of them") {
  Rig rig;
  const auto whole = rig.Entry({}, {1, 2, 3}), part = rig.Entry({}, {1, 2});
  const StoredBlock block = rig.NewOpen();
  rig.index.Share(whole, 0, block);
  rig.index.Share(part, 0, block);
  CHECK(rig.index.stats().num_idle_blocks == 0);
  rig.open->Release(block.block);
  CHECK(rig.index.stats().num_blocks == 1);
  CHECK(rig.index.stats().num_idle_blocks == 1);
  CHECK(rig.index.stats().idle_bytes == PageBytes());
  CHECK(rig.index.Evict(PageBytes()) == PageBytes());
  CHECK(rig.num_live() == 0);
  CHECK(rig.index.stats().num_evicted == 1);

  const StoredBlock again = rig.NewOpen();
  rig.index.Share(whole, 0, again);
  rig.index.Share(part, 0, again);
  CHECK(rig.index.LetGo({}, 0, again));
  CHECK_FALSE(rig.open->IsShared(again.block));
  rig.open->Release(again.block);
}

TEST_CASE("prefix index: what was evicted is forgotten some time") {
  Rig rig;
  const auto first = rig.Entry({}, {-1});
  rig.index.Offer(first, 0, rig.NewOpen());
  for (int i = 0; i < 17000; ++i) {
    rig.index.Offer(rig.Entry({}, {i}), 0, rig.NewOpen());
    rig.index.Evict(100 * PageBytes());
  }
  CHECK_FALSE(rig.index.Explain({}, first.tokens)->was_evicted);
  CHECK(rig.index.Explain({}, std::vector<Token>{16999})->was_evicted);
}

// Texts of blocks of four tokens.
struct ChunkRig : Rig {
  PrefixIndex::ChunkQuery Query(std::span<const Token> prompt, int64_t min_tokens) const {
    return {.root = root,
            .prompt = prompt,
            .block_tokens = 4,
            .first_position = 0,
            .last_position = std::ssize(prompt),
            .min_tokens = min_tokens};
  }
  // In the first group, or in both.
  void Store(const std::vector<Token>& text, bool in_both = true) {
    Digest parent = root;
    for (int64_t i = 0; i < std::ssize(text); i += 4) {
      const auto end = std::min(i + 4, std::ssize(text));
      auto entry = Entry(parent, {text.begin() + i, text.begin() + end}, i);
      if (end - i == 4) entry.root = root;
      index.Offer(entry, 0, NewOpen());
      if (in_both) index.Offer(entry, 1, NewOpen());
      parent = entry.digest;
    }
  }
  // Where the chunk is in the prompt, how long it is, and by how much it has moved.
  std::vector<int64_t> Find(const PrefixIndex::ChunkQuery& query) {
    const auto chunk = index.FindChunk(query);
    if (!chunk) return {};
    index.ReleaseChunk(*chunk);
    return {chunk->position, chunk->num_tokens, chunk->delta()};
  }
  const Digest root = ChildDigest({}, std::vector<Token>{-1});
};

TEST_CASE("prefix index: a chunk is found at any offset, with the parts of blocks at its ends") {
  ChunkRig rig;
  rig.Store({1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14});
  const std::vector<Token> prompt = {90, 4, 5, 6, 7, 8, 9, 10, 91, 92};
  CHECK(rig.Find(rig.Query(prompt, 7)) == std::vector<int64_t>{1, 7, -2});
  CHECK(rig.Find(rig.Query(prompt, 8)).empty());
  CHECK(rig.Find(rig.Query(std::span(prompt).first(7), 6)) == std::vector<int64_t>{1, 6, -2});
  const std::vector<Token> at_the_end = {9, 10, 11, 12, 13, 14, 15};
  CHECK(rig.Find(rig.Query(at_the_end, 6)) == std::vector<int64_t>{0, 6, -8});
  PrefixIndex::ChunkQuery query = rig.Query(prompt, 5);
  query.last_position = 0;
  CHECK(rig.Find(query).empty());
  query.first_position = query.last_position = 2;
  CHECK(rig.Find(query) == std::vector<int64_t>{2, 6, -2});
  query.root = {};
  CHECK(rig.Find(query).empty());
  CHECK(rig.Find(rig.Query(std::span(prompt).first(3), 1)).empty());
}

TEST_CASE("prefix index: of texts with the same block the one with the longest chunk is taken") {
  ChunkRig rig;
  rig.Store({1, 2, 3, 4, 5, 6, 7, 8, 9});
  rig.Store({0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12});
  rig.Store({7, 7, 7, 7, 1, 2, 3, 4, 5});
  const std::vector<Token> prompt = {9, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11};
  CHECK(rig.Find(rig.Query(prompt, 4)) == std::vector<int64_t>{1, 10, -3});
}

TEST_CASE("prefix index: no chunk is of blocks that a group has not, or that are gone") {
  ChunkRig rig;
  const std::vector<Token> text = {1, 2, 3, 4, 5, 6, 7, 8}, other = {11, 12, 13, 14};
  rig.Store(text, false);
  CHECK(rig.Find(rig.Query(text, 4)).empty());
  rig.Store(text);
  rig.Store(other);
  CHECK(rig.Find(rig.Query(text, 4)) == std::vector<int64_t>{0, 8, 0});
  CHECK(rig.Find(rig.Query(other, 4)).size() == 3);  // used last
  rig.index.Evict(2 * PageBytes());
  CHECK(rig.Find(rig.Query(text, 8)).empty());
  rig.index.Evict(100 * PageBytes());
  CHECK(rig.Find(rig.Query(other, 4)).empty());
  CHECK(rig.num_live() == 0);
  rig.Store(text);
  CHECK(rig.Find(rig.Query(text, 8)).size() == 3);
}

TEST_CASE("prefix index: another block with the same hash is no chunk") {
  ChunkRig rig;
  rig.Store({1, 2, 3, 4});
  const std::vector<Token> other = {1, 3, 3 - Token(RollingHash::kBase), 4};
  REQUIRE(RollingHash(other).value() == RollingHash(std::vector<Token>{1, 2, 3, 4}).value());
  CHECK(rig.Find(rig.Query(other, 4)).empty());
}

TEST_CASE("prefix index: a hash that has moved on is the hash of where it is") {
  std::vector<Token> text;
  for (int i = 0; i < 50; ++i) text.push_back(i * 7919 % 1000 - 500);
  const std::span<const Token> all = text;
  RollingHash hash(all.first(8));
  for (size_t i = 0; i + 8 < text.size(); ++i) {
    CHECK(hash.value() == RollingHash(all.subspan(i, 8)).value());
    hash.Move(text[i], text[i + 8]);
  }
}

}  // namespace
}  // namespace kvist::prefix_index_test
