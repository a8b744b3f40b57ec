// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "cache/spill_stage.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "base/round_up.h"
#include "cache/splits.h"
#include "cache/tier_store.h"

namespace kvist {
namespace {

// What one thread reads before it looks again whether there is more to do.
constexpr size_t kBytesAtOnce = size_t{256} << 10;
constexpr int kNumHelpers = 2;
// Halves of the memory are at most this part of the budget: enough that passes cost nothing to speak of.
constexpr size_t kHalvesOfBudget = 16;
// A thread that reads slower than this waits for a device; copying from the page cache is several times as fast.
constexpr double kDeviceBytesPerNs = 0.7;
constexpr double kFade = 0.98;  // what a read still weighs after the next one

}  // namespace

size_t StagingBytes(const BlockLayout& layout, size_t budget_bytes) {
  return 2 * RoundUp(std::max(budget_bytes / kHalvesOfBudget, size_t(kSplitBlocks) * layout.LargestPartBytes()),
                     PageBytes());
}

void SpillStage::ReadSpeed::Add(size_t bytes, int64_t nanoseconds) {
  bytes_ = bytes_ * kFade + double(bytes);
  nanoseconds_ = nanoseconds_ * kFade + double(nanoseconds);
}

bool SpillStage::ReadSpeed::waits_for_device() const {
  return bytes_ < nanoseconds_ * kDeviceBytesPerNs;
}

// Parts of one layer's blocks on their way into memory. Whoever wants to may read some of them; when there is nothing
// left to take and nobody reads any more, they are there.
class SpillStage::PartsRead {
 public:
  PartsRead(Turn turn_in, std::shared_ptr<const Groups> groups, size_t group, size_t part_index, std::byte* parts,
            size_t part_bytes, std::shared_ptr<ReadSpeed> speed, std::atomic<uint64_t>* bytes_read)
      : turn(turn_in),
        groups_(std::move(groups)),
        group_(group),
        pass_((*groups_)[group].passes[turn_in.pass]),
        part_index_(part_index),
        parts_(parts),
        part_bytes_(part_bytes),
        at_once_(std::max<size_t>(1, kBytesAtOnce / part_bytes)),
        speed_(std::move(speed)),
        bytes_read_(bytes_read),
        next_(pass_.first_slot) {}

  void Work() {
    while (const std::optional<size_t> first = Take()) Finish(Read(*first));
  }
  void Wait() {
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return next_ == pass_.end_slot && num_working_ == 0; });
  }
  void Stop() {
    {
      const std::lock_guard lock(mutex_);
      next_ = pass_.end_slot;
    }
    Wait();
  }
  std::optional<Unread> unread() const {
    const std::lock_guard lock(mutex_);
    return unread_;
  }

  const Turn turn;

 private:
  std::optional<size_t> Take() {
    const std::lock_guard lock(mutex_);
    if (next_ == pass_.end_slot) return std::nullopt;
    ++num_working_;
    return std::exchange(next_, std::min(next_ + at_once_, pass_.end_slot));
  }

  std::optional<Unread> Read(size_t first) {
    const auto& records = (*groups_)[group_].records;
    const size_t end = std::min(first + at_once_, pass_.end_slot);
    const auto start = std::chrono::steady_clock::now();
    for (size_t slot = first; slot < end; ++slot) {
      std::byte* const part = parts_ + (slot - pass_.first_slot) * part_bytes_;
      const Status read = records[slot]->ReadPart(part_index_, {part, part_bytes_});
      if (!read) return Unread{read.error(), group_, slot};
    }
    const std::chrono::nanoseconds taken = std::chrono::steady_clock::now() - start;
    speed_->Add((end - first) * part_bytes_, taken.count());
    bytes_read_->fetch_add((end - first) * part_bytes_, std::memory_order_relaxed);
    return std::nullopt;
  }

  void Finish(std::optional<Unread> unread) {
    const std::lock_guard lock(mutex_);
    if (unread && (!unread_ || unread->slot < unread_->slot)) unread_ = std::move(unread);
    if (--num_working_ == 0 && next_ == pass_.end_slot) done_.notify_all();
  }

  const std::shared_ptr<const Groups> groups_;
  const size_t group_;
  const Pass pass_;
  const size_t part_index_;
  std::byte* const parts_;
  const size_t part_bytes_, at_once_;
  const std::shared_ptr<ReadSpeed> speed_;
  std::atomic<uint64_t>* const bytes_read_;
  mutable std::mutex mutex_;
  std::condition_variable done_;
  size_t next_;
  int num_working_ = 0;
  std::optional<Unread> unread_;
};

SpillStage::SpillStage(Cache::Core* core)
    : core_(core), groups_(std::make_shared<Groups>(core->groups.size())), first_turn_(core->places.size()) {}

SpillStage::~SpillStage() {
  Forget();
  GiveMemoryBack();
}

const BlockLayout& SpillStage::LayoutOf(int layer) const {
  return core_->groups[size_t(core_->places[size_t(layer)].group)].final_layout();
}

size_t SpillStage::BytesFor(const Cache::Core& core, std::span<const size_t> num_spilled) {
  size_t bytes = 0;
  for (size_t group = 0; group < num_spilled.size(); ++group) {
    const BlockLayout& layout = core.groups[group].final_layout();
    const size_t for_all = 2 * RoundUp(num_spilled[group] * layout.LargestPartBytes(), PageBytes());
    bytes = std::max(bytes, std::min(for_all, StagingBytes(layout, core.budget.limit_bytes())));
  }
  return bytes;
}

SpillStage::Groups SpillStage::Collect(std::span<const BlockTable> tables) const {
  Groups groups(tables.size());
  for (size_t i = 0; i < tables.size(); ++i) {
    Group& group = groups[i];
    for (const BlockRef& ref : tables[i].refs()) {
      group.slot_of_ref.push_back(ref.spilled ? int32_t(group.records.size()) : -1);
      if (!ref.spilled) continue;
      group.records.push_back(ref.spilled);
      group.positions.push_back(ref.position);
    }
  }
  return groups;
}

// As many splits a pass as have no more spilled blocks than that; the last pass has all that come after it, too.
std::vector<SpillStage::Pass> SpillStage::PlanPasses(const BlockTable& table, size_t max_slots) {
  std::vector<Pass> passes;
  Pass pass{.end_split = 0};
  for (int64_t split = 0; split < NumSplits(table); ++split) {
    const auto is_spilled = [](const BlockRef& ref) { return ref.spilled != nullptr; };
    const auto num_here = size_t(std::ranges::count_if(RefsOfSplit(table, split), is_spilled));
    if (pass.end_slot + num_here - pass.first_slot > max_slots) {
      passes.push_back(pass);
      pass = {.first_split = split, .end_split = split, .first_slot = pass.end_slot, .end_slot = pass.end_slot};
    }
    pass.end_split = split + 1;
    pass.end_slot += num_here;
  }
  pass.end_split = INT64_MAX;
  passes.push_back(pass);
  return passes;
}

Status SpillStage::Prepare(std::span<const BlockTable> tables) {
  const bool is_any_spilled = std::ranges::any_of(tables, [](const BlockTable& table) { return table.HasSpilled(); });
  if (!is_any_spilled && charged_bytes_ == 0) return {};
  auto groups = std::make_shared<Groups>(Collect(tables));
  std::vector<size_t> num_spilled;
  for (const Group& group : *groups) num_spilled.push_back(group.records.size());
  const size_t bytes = BytesFor(*core_, num_spilled);
  for (size_t i = 0; i < tables.size(); ++i) {
    if (num_spilled[i] == 0) continue;
    const size_t max_slots = bytes / 2 / core_->groups[i].final_layout().LargestPartBytes();
    (*groups)[i].passes = PlanPasses(tables[i], max_slots);
  }
  if (loss() || !std::ranges::equal(*groups, *groups_, &Group::IsReadLike)) {
    Forget();
    KVIST_TRY_VOID(TakeMemory(bytes));
  }
  groups_ = std::move(groups);
  PlanTurns();
  if (!ReadsAhead()) return {};
  for (size_t turn = 0; turn < std::min(turns_.size(), reads_.size()); ++turn) BeginTurn(turn);
  return {};
}

void SpillStage::PlanTurns() {
  turns_.clear();
  for (int layer = 0; layer < int(core_->places.size()); ++layer) {
    first_turn_[size_t(layer)] = turns_.size();
    for (size_t pass = 0; pass < GroupOf(layer).passes.size(); ++pass) turns_.push_back({layer, pass});
  }
}

void SpillStage::Forget() {
  for (auto& read : reads_) {
    if (read) read->Stop();
    read.reset();
  }
  groups_ = std::make_shared<Groups>(core_->groups.size());
  turns_.clear();
  loss_.reset();
}

void SpillStage::GiveMemoryBack() {
  if (charged_bytes_ == 0) return;
  memory_->Decommit(0, charged_bytes_);
  core_->budget.Refund(charged_bytes_);
  core_->staging_bytes.fetch_sub(std::exchange(charged_bytes_, 0), std::memory_order_relaxed);
}

Status SpillStage::TakeMemory(size_t bytes) {
  if (bytes == charged_bytes_) return {};
  GiveMemoryBack();
  if (bytes == 0) return {};
  if (!memory_) {
    KVIST_TRY(memory_, AddressRange::Reserve(RoundUp(core_->budget.limit_bytes(), PageBytes())));
  }
  const auto charge = [&] { return bytes <= memory_->size() && core_->budget.Charge(bytes); };
  if (!charge() && !core_->RetryWithRoom(bytes, charge)) {
    return Fail(ErrorCode::kOutOfMemory, "reading spilled blocks needs " + std::to_string(bytes) +
                                             " bytes of the KV budget of " +
                                             std::to_string(core_->budget.limit_bytes()) + ", and so much is not free");
  }
  Status taken = memory_->Commit(0, bytes);
  if (taken) taken = memory_->Populate(0, bytes);
  if (!taken) {
    memory_->Decommit(0, bytes);  // what had been taken of it
    core_->budget.Refund(bytes);
    return taken;
  }
  charged_bytes_ = bytes;
  core_->staging_bytes.fetch_add(bytes, std::memory_order_relaxed);
  return {};
}

std::byte* SpillStage::PartsOf(size_t turn) const {
  return memory_->data() + turn % reads_.size() * (charged_bytes_ / reads_.size());
}

bool SpillStage::ReadsAhead() const {
  if (!core_->options.reads_ahead) return false;
  static const auto num_cores = int(std::thread::hardware_concurrency());
  return num_workers_ < num_cores || speed_->waits_for_device();
}

std::shared_ptr<SpillStage::PartsRead> SpillStage::BeginTurn(size_t turn) {
  std::shared_ptr<PartsRead>& read = ReadOf(turn);
  if (read && read->turn == turns_[turn]) return read;
  if (read) {
    read->Stop();
    Note(read->unread(), loss_);
  }
  const int layer = turns_[turn].layer;
  const auto [group, part_index] = core_->places[size_t(layer)];
  read = std::make_shared<PartsRead>(turns_[turn], groups_, size_t(group), size_t(part_index), PartsOf(turn),
                                     LayoutOf(layer).PartBytes(size_t(part_index)), speed_, &core_->spill_bytes_read);
  for (int i = 0; i < (ReadsAhead() ? kNumHelpers : 0); ++i) {
    core_->tiers->queue().Submit(TransferPriority::kFetch, 0, [read] { read->Work(); });
  }
  return read;
}

std::shared_ptr<SpillStage::PartsRead> SpillStage::BeginThisAndNext(size_t turn) {
  const std::lock_guard lock(mutex_);
  auto read = BeginTurn(turn);
  // After the last comes the first, for the next step, if it has the other half of the memory.
  const size_t next = (turn + 1) % turns_.size();
  const bool has_room = next % reads_.size() != turn % reads_.size();
  if (has_room && ReadsAhead()) BeginTurn(next);
  return read;
}

std::span<const SpillStage::Pass> SpillStage::PassesOf(int layer) const {
  static constexpr Pass kAll{};
  if (GroupOf(layer).passes.empty()) return {&kAll, 1};
  return GroupOf(layer).passes;
}

std::optional<StagedParts> SpillStage::Await(int layer, size_t pass, Worker worker) {
  if (GroupOf(layer).passes.empty()) return std::nullopt;
  num_workers_ = worker.count;
  const size_t turn = first_turn_[size_t(layer)] + pass;
  const auto start = std::chrono::steady_clock::now();
  const auto read = BeginThisAndNext(turn);
  read->Work();
  read->Wait();
  const std::chrono::nanoseconds waited = std::chrono::steady_clock::now() - start;
  if (worker.index == 0) core_->spill_wait_ns.fetch_add(uint64_t(waited.count()), std::memory_order_relaxed);
  const auto part_index = size_t(core_->places[size_t(layer)].layer_in_group);
  return StagedParts{.parts = PartsOf(turn),
                     .part_bytes = LayoutOf(layer).PartBytes(part_index),
                     .part_offset = LayoutOf(layer).PartOffset(part_index),
                     .first_slot = GroupOf(layer).passes[pass].first_slot,
                     .slot_of_ref = GroupOf(layer).slot_of_ref};
}

void SpillStage::Note(const std::optional<Unread>& unread, std::optional<Loss>& loss) const {
  if (!unread) return;
  const Group& group = (*groups_)[unread->group];
  const int64_t position = group.positions[unread->slot];
  if (!loss || position < loss->position) loss = Loss{unread->error, group.records[unread->slot]->key, position};
}

std::optional<SpillStage::Loss> SpillStage::loss() const {
  std::optional<Loss> first = loss_;
  for (const auto& read : reads_) {
    if (read) Note(read->unread(), first);
  }
  return first;
}

}  // namespace kvist
