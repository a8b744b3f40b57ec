// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include <algorithm>
#include <string>
#include <utility>

#include "cache/attend.h"
#include "cache/prefixes.h"
#include "cache/sequence_state.h"
#include "cache/splits.h"
#include "cache/tier_store.h"
#include "codec/tile.h"
#include "kvist/cache.h"
#include "policy/sealing.h"

namespace kvist {

Sequence::State::State(std::shared_ptr<Cache::Core> core_in, const std::string& salt_in)
    : core(std::move(core_in)),
      calls(core->geometry.layers.size()),
      growth_options(core->options.growth),
      growth(growth_options),
      salt(salt_in),
      expected_blocks(core->groups.size()) {
  if (core->prefixes) root = RootDigest(core->geometry, core->options, salt);
  if (core->tiers && core->tiers->disk() != nullptr) stage.emplace(core.get());
  for (const Cache::Core::Group& group : core->groups) {
    tables.emplace_back(group.pool.get(), group.sealed_pool.get(), core->options.sealing, core->geometry.block_tokens);
  }
  kept.resize(tables.size());
  core->num_sequences.fetch_add(1, std::memory_order_relaxed);
}

Sequence::State::State(const State& other)
    : core(other.core),
      tokens(other.tokens),
      num_tokens(other.num_tokens),
      tables(other.tables),
      kept(other.kept),
      end_of_kept(other.end_of_kept),
      observer(other.observer),
      pages(other.pages),
      calls(core->geometry.layers.size()),
      growth_options(other.growth_options),
      growth(other.growth),
      salt(other.salt),
      root(other.root),
      is_sealing(other.is_sealing),
      has_changed_sealing(other.has_changed_sealing),
      chain(other.chain),
      num_shared_blocks(other.num_shared_blocks),
      end_of_prefix(other.end_of_prefix),
      expected_blocks(core->groups.size()) {
  if (other.stage) stage.emplace(core.get());
  core->num_sequences.fetch_add(1, std::memory_order_relaxed);
  ForgetStep();
}

Sequence::State::~State() {
  if (num_tokens > 0) core->lengths.AddLength(num_tokens);
  ForgetStep();
  End();
  Expect(0);
  tables.clear();
  core->housekeeper->Wake();
  core->num_sequences.fetch_sub(1, std::memory_order_relaxed);
}

LayerView Sequence::State::ViewLayer(int layer) const {
  const auto [group_index, layer_in_group] = core->places[size_t(layer)];
  const Cache::Core::Group& group = core->groups[size_t(group_index)];
  return {.index = layer,
          .geometry = core->geometry.layers[size_t(layer)],
          .open = group.layout.layers[size_t(layer_in_group)],
          .sealed = group.sealed_layout.layers[size_t(layer_in_group)],
          .table = tables[size_t(group_index)],
          .block_tokens = core->geometry.block_tokens,
          .kernels = *core->kernels,
          .layer_in_group = size_t(layer_in_group),
          .kept = kept[size_t(group_index)].get()};
}

void Sequence::State::RequireStep(const char* call, int layer, Worker worker) const {
  const size_t num_layers = core->geometry.layers.size();
  KVIST_REQUIRE(layer >= 0 && size_t(layer) < num_layers, std::string(call) + " of layer " + std::to_string(layer) +
                                                              " in a cache with " + std::to_string(num_layers));
  KVIST_REQUIRE(
      worker.index >= 0 && worker.index < worker.count,
      std::string(call) + " by worker " + std::to_string(worker.index) + " of " + std::to_string(worker.count));
  KVIST_REQUIRE(std::cmp_greater(tokens.size(), num_tokens),
                std::string(call) + " without a step under way; call Prepare before it");
}

void Sequence::State::RequireBeginning(const char* call, std::span<const Token> prompt) const {
  const auto own = std::span(tokens).first(size_t(num_tokens));
  KVIST_REQUIRE(prompt.size() >= own.size() && std::ranges::equal(own, prompt.first(own.size())),
                std::string(call) + " with a prompt that does not begin with the sequence's " +
                    std::to_string(num_tokens) + " tokens; truncate the sequence first");
}

Status Sequence::State::SelectPages(const PageSelection& selection) {
  KVIST_TRY_VOID(selection.Validate());
  if (selection == (pages ? pages->selection() : PageSelection())) return {};
  ForgetStep();
  pages.reset();
  if (selection.num_tokens == 0) return {};
  std::vector<int> group_of_layer;
  for (const Cache::Core::LayerPlace& place : core->places) group_of_layer.push_back(place.group);
  pages.emplace(selection, &core->geometry, std::move(group_of_layer), &core->page_bounds_bytes);
  return {};
}

void Sequence::State::Expect(int64_t capacity_tokens) {
  const int64_t block_tokens = core->geometry.block_tokens;
  bool has_changed = false;
  auto expect = [&](BlockPool* pool, int64_t num_blocks, int64_t& num_expected) {
    const int64_t change = num_blocks - std::exchange(num_expected, num_blocks);
    if (change == 0) return;
    pool->Expect(change);
    has_changed = true;
  };
  for (size_t i = 0; i < tables.size(); ++i) {
    const BlockTable& table = tables[i];
    const int64_t window = core->groups[i].layout.window;
    int64_t ahead = std::max<int64_t>(0, capacity_tokens - table.end_position());
    if (window > 0) {  // what leaves the window makes room for the rest
      const int64_t num_live = table.end_position() - table.begin_position();
      ahead = std::min(ahead, std::max<int64_t>(window - num_live, block_tokens));
    }
    expected_blocks[i].ahead = table.NumBlocksAfterTail(ahead);
    int64_t num_open = expected_blocks[i].ahead, num_sealed = 0;
    if (table.sealed_pool() != nullptr && ahead > 0) {  // what is sealed makes room in the open pool
      const int64_t num_tokens_then = table.end_position() + ahead;
      const int64_t most = MostOpenBlocks(table.sealing(), num_tokens_then, block_tokens);
      num_open = std::clamp<int64_t>(most - table.NumNewestOpenBlocks(), 0, num_open);
      num_sealed = NumBlocksSealedFrom(table.sealing(), table.newest_open_position(), num_tokens_then, block_tokens);
    }
    expect(table.open_pool(), num_open, expected_blocks[i].open);
    if (table.sealed_pool() != nullptr) expect(table.sealed_pool(), num_sealed, expected_blocks[i].sealed);
  }
  if (has_changed) core->housekeeper->Wake();
}

Status Sequence::State::TakeStaticCapacity(int64_t num_wanted_tokens) {
  const GrowthOptions& options = growth_options;
  if (options.kind != GrowthKind::kStatic) return {};
  if (num_wanted_tokens > options.max_tokens) {
    return Fail(ErrorCode::kOutOfRange, "a static sequence has room for " + std::to_string(options.max_tokens) +
                                            " tokens, " + std::to_string(num_wanted_tokens) +
                                            " are wanted; give growth a larger max, or choose a growing one");
  }
  if (has_static_capacity) return {};
  const Status taken = MakeStaticCapacityReady(options.max_tokens);
  has_static_capacity = taken.has_value();
  if (!taken) Expect(0);
  return taken;
}

Status Sequence::State::MakeStaticCapacityReady(int64_t num_capacity_tokens) {
  // Known before any of it is taken, where nothing leaves a window.
  const Cache::Core::Group& group = core->groups.front();
  const auto num_blocks = size_t(tables.front().NumBlocksAfterTail(num_capacity_tokens));
  const size_t needed_bytes = num_blocks * (group.sealed_pool ? group.sealed_pool : group.pool)->block_bytes();
  if (core->groups.size() == 1 && needed_bytes > core->budget.limit_bytes()) {
    return Fail(ErrorCode::kOutOfMemory,
                "a static sequence of " + std::to_string(num_capacity_tokens) + " tokens takes " +
                    std::to_string(needed_bytes) + " bytes and the KV budget is " +
                    std::to_string(core->budget.limit_bytes()) + "; give growth a smaller max");
  }
  Expect(num_capacity_tokens);
  Status ready;
  const auto make_ready = [&] {
    ready = {};
    core->ForEachPool([&](BlockPool& pool) {
      if (ready) ready = pool.MakeExpectedReady();
    });
    return ready.has_value();
  };
  if (!make_ready()) core->RetryWithRoom(needed_bytes, make_ready);
  return ready;
}

void Sequence::State::ForgetStep() {
  if (std::cmp_equal(tokens.size(), num_tokens)) return;
  tokens.resize(size_t(num_tokens));
  for (BlockTable& table : tables) {
    table.ForgetSealing();
    table.Truncate(num_tokens);
  }
  if (observer) observer->Truncate(num_tokens);
  growth.Shrink(num_tokens);
  core->housekeeper->Wake();
}

void Sequence::State::CountResize() {
  const BlockTable& table = tables.front();
  const int64_t room = table.num_dropped_refs() + int64_t(table.refs().size()) + expected_blocks.front().ahead;
  if (room > room_blocks && room_blocks > 0) ++num_resizes;
  room_blocks = room;
}

void Sequence::State::FollowShrinking() {
  Expect(growth.Shrink(num_tokens));
  core->housekeeper->Wake();
}

Result<std::vector<FreshBlocks>> Sequence::State::ReserveBlocks(int64_t num_tokens_in) const {
  std::vector<FreshBlocks> fresh;
  for (const BlockTable& table : tables) {
    auto of_table = table.Reserve(num_tokens_in);
    if (!of_table) {
      for (size_t i = 0; i < fresh.size(); ++i) tables[i].Release(fresh[i]);
      return std::unexpected(of_table.error());
    }
    fresh.push_back(*std::move(of_table));
  }
  return fresh;
}

size_t Sequence::State::BytesToReserve(int64_t num_tokens_in) const {
  size_t bytes = 0;
  for (const BlockTable& table : tables) bytes += table.BytesToReserve(num_tokens_in);
  return bytes;
}

Status Sequence::State::CheckWindows(int64_t next_position, int64_t gap_position) const {
  for (size_t i = 0; i < tables.size(); ++i) {
    const int64_t window = core->groups[i].layout.window;
    const int64_t first_needed = std::max<int64_t>(0, next_position - window + 1);
    const int64_t end_needed = std::min(gap_position, next_position);
    if (window == 0 || first_needed >= end_needed || tables[i].begin_position() <= first_needed) continue;
    return Fail(ErrorCode::kFailedPrecondition, "the layers with a sliding window of " + std::to_string(window) +
                                                    " tokens no longer hold tokens " + std::to_string(first_needed) +
                                                    " to " + std::to_string(tables[i].begin_position()) +
                                                    "; begin a new sequence and compute it again");
  }
  return {};
}

Status Sequence::State::CheckKept(int64_t position) const {
  if (position >= end_of_kept) return {};
  return Fail(ErrorCode::kFailedPrecondition,
              "tokens before position " + std::to_string(end_of_kept) +
                  " have been evicted in part, and the sequence can't be cut at position " + std::to_string(position) +
                  "; begin a new sequence and compute it again");
}

bool Sequence::State::is_quantised() const {
  return std::ranges::any_of(tables, [](const BlockTable& table) { return table.sealed_pool() != nullptr; });
}

void Sequence::State::SetSealing(bool is_wanted) {
  if (std::exchange(is_sealing, is_wanted) == is_wanted || !is_quantised()) return;
  ForgetStep();
  SealingOptions options = core->options.sealing;
  // Tokens so far were computed from open blocks: none of them is to be sealed for a query that has been answered.
  options.begin_position = is_wanted ? std::max(options.begin_position, num_tokens) : INT64_MAX;
  for (BlockTable& table : tables) table.SetSealing(options);
  if (num_tokens > 0) {
    has_changed_sealing = true;
  } else if (core->prefixes) {
    CacheOptions of_root = core->options;
    of_root.sealing = options;
    root = RootDigest(core->geometry, of_root, salt);
  }
}

Status Sequence::State::SetGrowth(const GrowthOptions& options) {
  KVIST_TRY_VOID(options.Validate());
  const bool is_static = options.kind == GrowthKind::kStatic;
  if (is_static && options.max_tokens < num_tokens) {
    return Fail(ErrorCode::kOutOfRange, "a sequence of " + std::to_string(num_tokens) +
                                            " tokens can't become static with room for " +
                                            std::to_string(options.max_tokens) + "; give growth a larger max");
  }
  if (options == growth_options) return {};
  ForgetStep();
  growth_options = options;
  growth = GrowthPredictor(options);
  has_static_capacity = false;
  if (num_tokens > 0) Expect(growth.Grow(num_tokens, 1, core->lengths));
  return {};
}

Sequence::Sequence(std::unique_ptr<State> state) : state_(std::move(state)) {}
Sequence::Sequence(Sequence&&) noexcept = default;
Sequence& Sequence::operator=(Sequence&&) noexcept = default;
Sequence::~Sequence() = default;

int64_t Sequence::num_tokens() const {
  return state_->num_tokens;
}
std::span<const Token> Sequence::tokens() const {
  return {state_->tokens.data(), size_t(state_->num_tokens)};
}
int64_t Sequence::num_prepared_tokens() const {
  return int64_t(state_->tokens.size()) - state_->num_tokens;
}

SequenceGrowth Sequence::growth() const {
  return {state_->growth.capacity(), state_->num_resizes, state_->growth.mean_growth(),
          state_->growth.growth_variance()};
}

ReuseReport Sequence::Reuse(std::span<const Token> prompt, int64_t max_tokens, bool may_spill) {
  state_->RequireBeginning("Sequence::Reuse", prompt);
  return state_->Reuse(prompt, std::min(max_tokens, std::ssize(prompt)), {.may_spill = may_spill});
}

namespace {

std::span<const Token> FirstOf(std::span<const Token> prompt, int64_t max_tokens) {
  return prompt.first(size_t(std::clamp<int64_t>(max_tokens, 0, std::ssize(prompt))));
}

}  // namespace

std::optional<MovedChunk> Sequence::FindMoved(std::span<const Token> prompt, int64_t max_tokens) const {
  state_->RequireBeginning("Sequence::FindMoved", prompt);
  return state_->FindMoved(FirstOf(prompt, max_tokens));
}
int64_t Sequence::ReuseMoved(std::span<const Token> prompt, int64_t max_tokens) {
  state_->RequireBeginning("Sequence::ReuseMoved", prompt);
  return state_->ReuseMoved(FirstOf(prompt, max_tokens));
}

bool Sequence::is_approximate() const {
  return state_->num_tokens > state_->end_of_prefix;
}

Status Sequence::Prepare(std::span<const Token> tokens) {
  if (tokens.empty()) return Fail(ErrorCode::kInvalidArgument, "a step needs at least one token");
  state_->ForgetStep();
  Cache::Core& core = *state_->core;
  const auto num_tokens = int64_t(tokens.size());
  KVIST_TRY_VOID(state_->TakeStaticCapacity(state_->num_tokens + num_tokens));
  auto fresh = state_->ReserveBlocks(num_tokens);
  if (!fresh) {
    core.RetryWithRoom(state_->BytesToReserve(num_tokens),
                       [&] { return (fresh = state_->ReserveBlocks(num_tokens)).has_value(); });
  }
  if (!fresh && state_->LetGoOfTail()) fresh = state_->ReserveBlocks(num_tokens);
  Status prepared;
  if (!fresh) {
    prepared = Fail(fresh.error().code, fresh.error().message + "; a step of " + std::to_string(num_tokens) +
                                            " tokens needs " + std::to_string(state_->BytesToReserve(num_tokens)) +
                                            " bytes more for this sequence");
  }
  if (fresh && state_->stage) {
    prepared = state_->stage->Prepare(state_->tables);
    for (size_t i = 0; i < fresh->size() && !prepared; ++i) state_->tables[i].Release((*fresh)[i]);
  }
  if (!prepared) {
    core.housekeeper->Wake();  // blocks that were taken before one was refused are spare now
    return prepared;
  }
  for (size_t i = 0; i < state_->tables.size(); ++i) {
    core.copied_bytes.fetch_add(state_->tables[i].GrowInto(std::move((*fresh)[i]), num_tokens),
                                std::memory_order_relaxed);
  }
  state_->tokens.insert(state_->tokens.end(), tokens.begin(), tokens.end());
  state_->calls.Begin();
  const bool has_passes = state_->stage && state_->stage->memory_bytes() > 0;
  int64_t max_kept_splits = 0;
  for (const auto& of_group : state_->kept) max_kept_splits = std::max(max_kept_splits, NumKeptSplits(of_group.get()));
  state_->attend_space.Resize(core.geometry, int64_t(tokens.size()), state_->tables, max_kept_splits, has_passes);
  if (state_->pages) state_->pages->Prepare(state_->tables, num_tokens);
  if (state_->observer) state_->observer->Prepare(state_->num_tokens, num_tokens);
  core.NotePeak();
  state_->Expect(state_->growth.Grow(int64_t(state_->tokens.size()), num_tokens, core.lengths));
  state_->CountResize();
  return {};
}

void Sequence::Append(int layer, const float* keys, const float* values, Worker worker) {
  state_->RequireStep("Sequence::Append", layer, worker);
  state_->calls.NoteAppend(layer, worker);
  AppendRows(state_->ViewLayer(layer), state_->num_tokens, keys, values, worker);
}

void Sequence::Attend(int layer, const float* queries, float* out, Worker worker) {
  state_->RequireStep("Sequence::Attend", layer, worker);
  state_->calls.NoteAttend(layer);
  LayerView view = state_->ViewLayer(layer);
  if (state_->pages && state_->pages->IsSelecting(layer)) view.pages = &*state_->pages;
  AttendRows(view, state_->num_tokens, num_prepared_tokens(), queries, out, worker, state_->attend_space,
             state_->stage ? &*state_->stage : nullptr);
  if (state_->observer) {
    state_->observer->Note(state_->ViewLayer(layer), state_->num_tokens, num_prepared_tokens(), queries, worker);
  }
}

Status Sequence::SelectPages(const PageSelection& selection) {
  return state_->SelectPages(selection);
}
Status Sequence::Observe(RetentionPolicy policy) {
  return state_->Observe(policy);
}
bool Sequence::is_observing() const {
  return state_->observer.has_value();
}
Status Sequence::ObserveRepeating(int64_t begin, int64_t end) {
  return state_->ObserveRepeating(begin, end);
}
void Sequence::TakeObserved(const Sequence& fork) {
  if (!fork.state_->observer) return;
  if (!state_->observer) state_->observer.emplace(&state_->core->geometry);
  state_->observer->TakePeaks(*fork.state_->observer);
}
void Sequence::SetSealing(bool is_sealing) {
  state_->SetSealing(is_sealing);
}
bool Sequence::is_sealing() const {
  return state_->is_sealing;
}
Status Sequence::SetGrowth(const GrowthOptions& options) {
  return state_->SetGrowth(options);
}
Result<RetentionReport> Sequence::Retain(const RetentionOptions& options, int64_t num_tokens_to_keep) {
  return state_->Retain(options, {}, num_tokens_to_keep);
}
Result<RetentionReport> Sequence::Retain(const TokenScorer& scorer, RetentionOptions options,
                                         int64_t num_tokens_to_keep) {
  options.policy = RetentionPolicy::kOwn;
  return state_->Retain(options, scorer, num_tokens_to_keep);
}
std::vector<int64_t> Sequence::HeldPositions(int layer, int kv_head) const {
  const auto& layers = state_->core->geometry.layers;
  KVIST_REQUIRE(
      layer >= 0 && size_t(layer) < layers.size() && kv_head >= 0 && kv_head < layers[size_t(layer)].num_kv_heads,
      "Sequence::HeldPositions of layer " + std::to_string(layer) + ", KV head " + std::to_string(kv_head) +
          ", which the cache has not");
  return state_->HeldPositions(state_->ViewLayer(layer), kv_head);
}
size_t Sequence::num_held_bytes() const {
  return state_->HeldBytes();
}
double Sequence::num_read_tokens() const {
  return state_->MeanReadTokens();
}
double Sequence::num_held_tokens() const {
  return state_->MeanHeldTokens();
}

Status Sequence::CheckStep() const {
  const auto loss = state_->stage ? state_->stage->loss() : std::nullopt;
  if (!loss) return num_prepared_tokens() > 0 ? state_->calls.Check() : Status();
  return Fail(loss->error.code == ErrorCode::kCorrupt ? ErrorCode::kCorrupt : ErrorCode::kIo,
              "spilled tokens from position " + std::to_string(loss->position) + " on could not be read back (" +
                  loss->error.message + "); compute the sequence again from there");
}

Status Sequence::Commit() {
  if (Status complete = CheckStep(); !complete) {
    if (const auto loss = state_->stage ? state_->stage->loss() : std::nullopt) state_->EndBefore(*loss);
    return complete;
  }
  if (state_->pages && state_->pages->is_selecting()) {
    state_->end_of_prefix = std::min(state_->end_of_prefix, state_->num_tokens);
  }
  state_->num_tokens = int64_t(state_->tokens.size());
  bool any_freed = false, any_sealed = false;
  std::vector<std::vector<size_t>> newly_sealed;
  for (BlockTable& table : state_->tables) {
    newly_sealed.push_back(table.FinishSealing());
    any_sealed |= !newly_sealed.back().empty();
  }
  state_->ShareBlocks(newly_sealed);
  for (size_t i = 0; i < state_->tables.size(); ++i) {
    const int64_t window = state_->core->groups[i].layout.window;
    if (window > 0) any_freed |= state_->tables[i].DropBefore(state_->num_tokens - window + 1);
  }
  if (any_sealed) state_->Expect(state_->growth.capacity());  // the next tokens will want what has become free
  if (any_freed || any_sealed) state_->core->housekeeper->Wake();
  return {};
}

Status Sequence::Spill(int64_t num_more_tokens) {
  return state_->Spill(num_more_tokens);
}

int64_t Sequence::num_spilled_tokens() const {
  return state_->num_spilled_tokens();
}

Sequence Sequence::Fork() const {
  return Sequence(std::make_unique<State>(*state_));
}

Status Sequence::Truncate(int64_t num_tokens) {
  if (num_tokens < 0 || num_tokens > state_->num_tokens) {
    return Fail(ErrorCode::kOutOfRange, "cannot truncate a sequence of " + std::to_string(state_->num_tokens) +
                                            " tokens to " + std::to_string(num_tokens));
  }
  KVIST_TRY_VOID(state_->CheckKept(num_tokens));
  KVIST_TRY_VOID(state_->CheckWindows(num_tokens, INT64_MAX));
  KVIST_TRY_VOID(state_->UnspillEnd(num_tokens));
  state_->num_tokens = num_tokens;
  state_->ForgetStep();
  state_->TruncatePrefix(num_tokens);
  state_->FollowShrinking();
  return {};
}

Status Sequence::Remove(int64_t begin, int64_t end) {
  if (begin < 0 || begin > end || end > state_->num_tokens) {
    return Fail(ErrorCode::kOutOfRange, "cannot remove tokens " + std::to_string(begin) + " to " + std::to_string(end) +
                                            " of a sequence of " + std::to_string(state_->num_tokens));
  }
  if (begin == end) return {};
  KVIST_TRY_VOID(state_->CheckKept(begin));
  KVIST_TRY_VOID(state_->CheckWindows(state_->num_tokens - (end - begin), begin));
  state_->ForgetStep();
  for (BlockTable& table : state_->tables) table.Remove(begin, end);
  state_->tokens.erase(state_->tokens.begin() + begin, state_->tokens.begin() + end);
  state_->num_tokens -= end - begin;
  if (state_->observer) state_->observer->Clear();
  state_->TruncatePrefix(begin);
  if (begin < state_->num_tokens) state_->end_of_prefix = std::min(state_->end_of_prefix, begin);
  state_->FollowShrinking();
  return {};
}

}  // namespace kvist
