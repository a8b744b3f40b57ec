// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
// Sessions: sequences that are saved under a name, in the first disk tier.
#include <utility>

#include "cache/sequence_state.h"
#include "cache/session_manifest.h"
#include "cache/tier_store.h"
#include "kvist/cache.h"

namespace kvist {
namespace {

Result<DiskTier*> DiskOf(TierStore* tiers) {
  if (tiers != nullptr && tiers->disk() != nullptr) return tiers->disk();
  return Fail(ErrorCode::kFailedPrecondition,
              "sessions are kept in a disk tier and this cache has none; give it one as in disk:PATH,size=8G");
}

Status NotSaved(const std::string& name, const Error& why) {
  return Fail(why.code, "session '" + name + "' is not saved: " + why.message);
}

}  // namespace

Status Cache::Save(const std::string& name, const Sequence& sequence, std::span<const std::byte> notes) {
  KVIST_TRY(DiskTier* const disk, DiskOf(core_->tiers.get()));
  Sequence::State& state = *sequence.state_;
  if (state.core != core_) {
    return Fail(ErrorCode::kInvalidArgument,
                "the sequence for session '" + name + "' is another cache's; save it there");
  }
  const std::vector<PrefixIndex::Entry> entries = core_->prefixes->FindAll(state.ShareAll());
  SessionManifest manifest{.root = state.root,
                           .model = core_->options.model.name,
                           .form = FormName(core_->options.form),
                           .salt = state.salt,
                           .tokens = {sequence.tokens().begin(), sequence.tokens().end()},
                           .keys = {},
                           .notes = {notes.begin(), notes.end()}};
  for (const PrefixIndex::Entry& entry : entries) {
    for (size_t group = 0; group < entry.blocks.size(); ++group) {
      if (entry.blocks[group]) {
        manifest.keys.push_back(TierStore::KeyOf(entry.digest, group, entry.blocks[group]->is_sealed));
      }
    }
  }
  DiskTier::Keeper keeper(*disk);
  const Status written = core_->tiers->WriteNow(entries, keeper);
  for (const PrefixIndex::Entry& entry : entries) core_->prefixes->Release(entry);
  if (!written) return NotSaved(name, written.error());
  if (const Status restored = state.RestoreSpilled(manifest.keys, keeper); !restored) {
    return NotSaved(name, restored.error());
  }
  Status saved = core_->known_sessions.Save(*disk, name, EncodeManifest(manifest), manifest.keys);
  if (saved || saved.error().code != ErrorCode::kNotFound) return saved;
  return NotSaved(name, {ErrorCode::kIo, "another program has evicted its blocks meanwhile; try again"});
}

Result<ResumedSession> Cache::Resume(const std::string& name) {
  KVIST_TRY(DiskTier* const disk, DiskOf(core_->tiers.get()));
  KVIST_TRY(const std::vector<std::byte> bytes, core_->known_sessions.Read(*disk, name));
  KVIST_TRY(SessionManifest manifest, DecodeManifest(bytes));
  ResumedSession session{Begin(manifest.salt), std::move(manifest.tokens), std::move(manifest.notes), {}};
  if (session.sequence.state_->root != manifest.root) session.sequence.SetSealing(false);  // it may not have been
  if (session.sequence.state_->root != manifest.root) {
    session.sequence.SetSealing(true);
    const bool is_other_form = manifest.form != FormName(core_->options.form);
    session.reuse.reason = is_other_form ? MissReason::kOtherForm : MissReason::kOtherModel;
    return session;
  }
  session.reuse = session.sequence.state_->Reuse(session.tokens, std::ssize(session.tokens),
                                                 {.with_tail = true, .may_spill = true});
  return session;
}

Status Cache::RemoveSession(const std::string& name) {
  KVIST_TRY(DiskTier* const disk, DiskOf(core_->tiers.get()));
  return core_->known_sessions.Remove(*disk, name);
}

Result<std::vector<SessionInfo>> Cache::ListSessions() {
  KVIST_TRY(DiskTier* const disk, DiskOf(core_->tiers.get()));
  std::vector<SessionInfo> sessions;
  for (const StoredSession& stored : disk->ListSessions()) {
    sessions.push_back({stored.name, stored.bytes, stored.saved_at_s});
  }
  return sessions;
}

}  // namespace kvist
