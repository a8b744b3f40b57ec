// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "kvist/cache.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "base/machine_memory.h"
#include "cache/core.h"
#include "cache/sequence_state.h"
#include "cache/tier_store.h"

namespace kvist {

namespace {

Status CheckForm(Form form) {
  const auto is_known = [](Codec codec) { return std::ranges::find(kAllCodecs, codec) != std::end(kAllCodecs); };
  if (is_known(form.k) && is_known(form.v)) return {};
  return Fail(ErrorCode::kInvalidArgument, "a form of codecs " + std::to_string(int(form.k)) + " and " +
                                               std::to_string(int(form.v)) +
                                               ", which there are not; use those that kAllCodecs has");
}

Result<std::vector<Form>> FormsOfLayers(const CacheGeometry& geometry, const CacheOptions& options) {
  KVIST_TRY_VOID(CheckForm(options.form));
  for (const Form& form : options.layer_forms) KVIST_TRY_VOID(CheckForm(form));
  if (options.layer_forms.empty()) return std::vector<Form>(geometry.layers.size(), options.form);
  if (options.layer_forms.size() == geometry.layers.size()) return options.layer_forms;
  return Fail(ErrorCode::kInvalidArgument, "layer_forms has " + std::to_string(options.layer_forms.size()) +
                                               " forms for " + std::to_string(geometry.layers.size()) +
                                               " layers; give one for each, or none");
}

Status CheckTiers(const CacheOptions& options) {
  if (!options.shares_prefixes) return Fail(ErrorCode::kInvalidArgument, "tiers need shares_prefixes; set it");
  if (options.model.fingerprint != std::array<uint64_t, 2>{}) return {};
  return Fail(ErrorCode::kInvalidArgument,
              "tiers need the model's fingerprint, so that no other model's keys are ever used; set model.fingerprint");
}

Status CheckMovedChunks(const CacheOptions& options) {
  if (options.shares_prefixes) return options.moved_chunks.Validate();
  return Fail(ErrorCode::kInvalidArgument, "reuses_moved_chunks needs shares_prefixes; set it");
}

Result<std::unique_ptr<BlockPool>> OpenPool(const BlockLayout& layout, MemoryBudget& budget) {
  const size_t max_blocks = std::max<size_t>(1, budget.limit_bytes() / layout.block_bytes);
  return BlockPool::Open(layout.block_bytes, max_blocks, &budget);
}

CacheOptions WithBudget(CacheOptions options) {
  if (options.budget_bytes == 0) options.budget_bytes = UsableBytes() / 8 * 7;
  return options;
}

}  // namespace

Result<std::unique_ptr<Cache>> Cache::Open(const CacheGeometry& geometry, const CacheOptions& options) {
  KVIST_TRY_VOID(geometry.Validate());
  KVIST_TRY_VOID(options.growth.Validate());
  KVIST_TRY_VOID(options.sealing.Validate());
  if (options.reuses_moved_chunks) KVIST_TRY_VOID(CheckMovedChunks(options));
  KVIST_TRY(const std::vector<Form> forms, FormsOfLayers(geometry, options));
  KVIST_TRY(const Kernels* kernels, ChooseKernels());
  auto core = std::make_shared<Core>(geometry, WithBudget(options), kernels);
  core->places.resize(geometry.layers.size());
  std::vector<BlockLayout> sealed_layouts = LayOutGroups(geometry, forms);
  for (BlockLayout& layout : LayOutOpenGroups(geometry, forms)) {
    const size_t group = core->groups.size();
    BlockLayout& sealed_layout = sealed_layouts[group];
    for (size_t i = 0; i < layout.layers.size(); ++i) {
      core->places[size_t(layout.layers[i].layer)] = {int(group), int(i)};
    }
    KVIST_TRY(auto pool, OpenPool(layout, core->budget));
    std::unique_ptr<BlockPool> sealed_pool;
    if (sealed_layout.any_is_quantised()) {
      KVIST_TRY(sealed_pool, OpenPool(sealed_layout, core->budget));
    }
    core->groups.push_back({std::move(layout), std::move(pool), std::move(sealed_layout), std::move(sealed_pool)});
  }
  if (options.shares_prefixes) {
    std::vector<PrefixIndex::Pools> pools_of_groups;
    for (const Core::Group& group : core->groups)
      pools_of_groups.push_back({group.pool.get(), group.sealed_pool.get()});
    core->prefixes.emplace(std::move(pools_of_groups));
  }
  std::vector<BlockPool*> pools;
  core->ForEachPool([&](BlockPool& pool) { pools.push_back(&pool); });
  core->housekeeper.emplace(std::move(pools));
  if (!options.tiers.empty()) {
    KVIST_TRY_VOID(CheckTiers(options));
    KVIST_TRY(core->tiers, TierStore::Open(core.get()));
  }
  return std::unique_ptr<Cache>(new Cache(std::move(core)));
}

Cache::Cache(std::shared_ptr<Core> core) : core_(std::move(core)) {}
Cache::~Cache() = default;

Cache::Core::Core(const CacheGeometry& geometry_in, CacheOptions options_in, const Kernels* kernels_in)
    : geometry(geometry_in), options(std::move(options_in)), kernels(kernels_in), budget(options.budget_bytes) {}

Cache::Core::~Core() {
  if (tiers) tiers->Stop();
}

void Cache::Core::Trim() {
  ForEachPool([](BlockPool& pool) { pool.Trim(); });
}

bool Cache::Core::EvictPrefixes(size_t bytes) {
  if (!prefixes) return false;
  size_t num_freed = prefixes->Evict(bytes);
  if (num_freed == 0 && tiers) tiers->WaitForWrites([&] { return (num_freed = prefixes->Evict(bytes)) > 0; });
  Trim();
  return num_freed > 0;
}

Sequence Cache::Begin(const std::string& salt) {
  return Sequence(std::make_unique<Sequence::State>(core_, salt));
}

void Cache::Prefetch(std::vector<Token> prompt, const std::string& salt) {
  if (!core_->tiers) return;
  // The queue ends before the core does, so it needs no share in it.
  const std::shared_ptr<Core> core(std::shared_ptr<void>(), core_.get());
  core_->tiers->queue().Submit(TransferPriority::kPrefetch, 0, [core, prompt = std::move(prompt), salt] {
    Sequence::State(core, salt).Prefetch(prompt);
  });
}

void Cache::NoteComputing(double position, double seconds_a_token) {
  if (core_->tiers) core_->tiers->compute_cost.Add(position, seconds_a_token);
}

void Cache::Flush() {
  if (core_->tiers) core_->tiers->WaitUntilWritten();
}

const CacheGeometry& Cache::geometry() const {
  return core_->geometry;
}
const CacheOptions& Cache::options() const {
  return core_->options;
}

CacheStats Cache::stats() const {
  CacheStats stats;
  core_->ForEachPool([&](const BlockPool& pool) {
    const BlockPoolStats of_pool = pool.stats();
    const size_t block_bytes = pool.block_bytes();
    stats.reserved_bytes += pool.reserved_bytes();
    stats.committed_bytes += of_pool.num_committed_blocks * block_bytes;
    stats.live_bytes += of_pool.num_live_blocks * block_bytes;
    stats.cumulative_bytes += of_pool.cumulative_blocks * block_bytes;
    stats.num_live_blocks += of_pool.num_live_blocks;
    stats.num_commits += of_pool.num_commits;
    stats.num_decommits += of_pool.num_decommits;
    stats.num_stalls += of_pool.num_stalls;
  });
  if (core_->prefixes) {
    const PrefixIndex::Stats of_prefixes = core_->prefixes->stats();
    stats.idle_bytes = of_prefixes.idle_bytes;
    stats.num_idle_blocks = of_prefixes.num_idle_blocks;
    stats.num_evicted_blocks = of_prefixes.num_evicted;
  }
  stats.kept_bytes = core_->kept_bytes.load(std::memory_order_relaxed);
  stats.committed_bytes += stats.kept_bytes;
  stats.live_bytes += stats.kept_bytes;
  stats.page_bounds_bytes = core_->page_bounds_bytes.load(std::memory_order_relaxed);
  stats.staging_bytes = core_->staging_bytes.load(std::memory_order_relaxed);
  if (core_->tiers) stats.num_damaged_records = core_->tiers->num_damaged();
  stats.spill_bytes_read = core_->spill_bytes_read.load(std::memory_order_relaxed);
  stats.spill_wait_s = double(core_->spill_wait_ns.load(std::memory_order_relaxed)) * 1e-9;
  stats.peak_live_bytes = core_->peak_live_bytes.load(std::memory_order_relaxed);
  stats.peak_committed_bytes = core_->budget.peak_bytes();
  stats.copied_bytes = core_->copied_bytes.load(std::memory_order_relaxed);
  stats.num_sequences = core_->num_sequences.load(std::memory_order_relaxed);
  return stats;
}

std::vector<std::pair<std::string, TierStats>> Cache::tier_stats() const {
  return core_->tiers ? core_->tiers->stats() : std::vector<std::pair<std::string, TierStats>>();
}

Result<size_t> Cache::ResidentBytes() const {
  size_t bytes = core_->staging_bytes.load(std::memory_order_relaxed) +
                 core_->kept_bytes.load(std::memory_order_relaxed);  // taken as a whole
  Status status;
  core_->ForEachPool([&](const BlockPool& pool) {
    const Result<size_t> of_pool = pool.ResidentBytes();
    if (of_pool) bytes += *of_pool;
    if (!of_pool && status) status = std::unexpected(of_pool.error());
  });
  KVIST_TRY_VOID(status);
  return bytes;
}

}  // namespace kvist
