// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
// How a sequence goes on with blocks that were computed at another position, behind other tokens.
#include <algorithm>
#include <utility>

#include "cache/sequence_state.h"

namespace kvist {

Status MovedChunkOptions::Validate() const {
  if (recomputed_tokens >= 0 && recomputed_tokens < min_tokens) return {};
  return Fail(ErrorCode::kInvalidArgument, "moved chunks of at least " + std::to_string(min_tokens) + " tokens with " +
                                               std::to_string(recomputed_tokens) +
                                               " of them recomputed; fewer must be recomputed than a chunk has");
}

std::optional<Digest> Sequence::State::content_root() const {
  return core->options.reuses_moved_chunks ? std::optional(root) : std::nullopt;
}

std::optional<PrefixIndex::Chunk> Sequence::State::FindChunk(std::span<const Token> prompt, int64_t first_position,
                                                             int64_t last_position) const {
  if (!core->options.reuses_moved_chunks || first_position < 0) return std::nullopt;
  if (std::ssize(prompt) <= num_tokens) return std::nullopt;
  return core->prefixes->FindChunk({.root = root,
                                    .prompt = prompt,
                                    .block_tokens = core->geometry.block_tokens,
                                    .first_position = first_position,
                                    .last_position = last_position,
                                    .min_tokens = core->options.moved_chunks.min_tokens});
}

std::optional<MovedChunk> Sequence::State::FindMoved(std::span<const Token> prompt) const {
  const auto chunk = FindChunk(prompt, num_tokens, std::ssize(prompt));
  if (!chunk) return std::nullopt;
  core->prefixes->ReleaseChunk(*chunk);  // it may go until it is wanted: nothing is pinned meanwhile
  const int64_t num_recomputed = core->options.moved_chunks.recomputed_tokens;
  return MovedChunk{chunk->position + num_recomputed, chunk->num_tokens - num_recomputed};
}

int64_t Sequence::State::ReuseMoved(std::span<const Token> prompt) {
  ForgetStep();
  const int64_t begin = num_tokens - core->options.moved_chunks.recomputed_tokens;
  const auto chunk = FindChunk(prompt, begin, begin);
  if (!chunk) return 0;
  const int64_t num_before = num_tokens;
  AttachChunk(*chunk, prompt);
  core->prefixes->ReleaseChunk(*chunk);
  core->NotePeak();
  return num_tokens - num_before;
}

// What lies after the sequence's end; the chunk's first tokens are in the sequence.
void Sequence::State::AttachChunk(const PrefixIndex::Chunk& chunk, std::span<const Token> prompt) {
  const int64_t seam = num_tokens, end = chunk.position + chunk.num_tokens;
  int64_t block_position = chunk.position - chunk.first_slot;  // of an entry's first slot
  for (const PrefixIndex::Entry& entry : chunk.entries) {
    const int64_t from = std::max(seam, block_position);
    const int64_t to = std::min(end, block_position + std::ssize(entry.tokens));
    for (size_t group = 0; group < tables.size() && from < to; ++group) {
      const StoredBlock& stored = *entry.blocks[group];
      core->prefixes->AddReference(group, stored);
      tables[group].Attach({.block = stored.block,
                            .is_sealed = stored.is_sealed,
                            .first_slot = int32_t(from - block_position),
                            .num_slots = int32_t(to - from),
                            .position = from,
                            .delta = chunk.delta()});
    }
    block_position += std::ssize(entry.tokens);
  }
  tokens.assign(prompt.begin(), prompt.begin() + end);
  num_tokens = end;
  end_of_prefix = std::min(end_of_prefix, seam);
  for (size_t i = 0; i < tables.size(); ++i) {
    const int64_t window = core->groups[i].layout.window;
    if (window > 0) tables[i].DropBefore(num_tokens - window + 1);
  }
}

}  // namespace kvist
