// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "cache/tier_store.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "base/seconds_since.h"
#include "cache/prefixes.h"
#include "tier/open_tier.h"

namespace kvist {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kNumThreads = 2;
// More threads than that are no use for less.
constexpr size_t kLeastBytesAThread = size_t{1} << 20;
// Whoever needs the memory of what is being written waits no longer than this; then it is not written.
constexpr std::chrono::seconds kLongestWait{2};
constexpr std::chrono::milliseconds kBetweenLooks{5};
// A write is divided into transfers of about so many blocks: what is written makes room before the rest is.
constexpr size_t kBlocksAWrite = 64;
constexpr size_t kMostRecordsAWrite = 256;

// Entries with their references, until they are written or it is given up.
struct Held {
  Held(PrefixIndex& index_in, std::vector<PrefixIndex::Entry> entries_in)
      : index(index_in), entries(std::move(entries_in)) {}
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;
  ~Held() {
    for (const PrefixIndex::Entry& entry : entries) index.Release(entry);
  }
  PrefixIndex& index;
  const std::vector<PrefixIndex::Entry> entries;
};

// A record that a tier is to write. Its checksums are made when it does.
struct Unwritten {
  RecordHeader header;
  std::vector<std::byte> encoded;   // the header
  std::vector<std::byte> scrubbed;  // of a block that is not full, the payload
  std::span<const std::byte> payload;
  void CompleteHeader() {
    ChecksumParts(header, payload);
    std::ranges::copy(EncodeHeader(header), encoded.begin());
  }
};

}  // namespace

// A record of a wanted block and the block it is loaded into.
struct TierStore::Place {
  size_t wanted_index = 0;
  size_t group = 0;
  size_t tier_index = 0;
  StoredBlock block;
  BlockRun* run = nullptr;  // that the block is of: its memory is taken just before it is read
  bool has_memory = true;
  bool is_loaded = false;
  bool is_damaged = false;
};

Result<std::unique_ptr<TierStore>> TierStore::Open(Cache::Core* core) {
  std::unique_ptr<TierStore> store(new TierStore(core));
  for (const std::string& spec : core->options.tiers) {
    KVIST_TRY(auto tier, OpenTier(spec));
    if (store->disk_ == nullptr) store->disk_ = dynamic_cast<DiskTier*>(tier.get());
    store->tiers_.push_back(std::make_unique<OneTier>());
    store->tiers_.back()->tier = std::move(tier);
  }
  store->queue_.emplace(kNumThreads, core->budget.limit_bytes());
  return store;
}

TierStore::~TierStore() = default;

RecordKey TierStore::KeyOf(const Digest& digest, size_t group, bool is_sealed) {
  RecordKey key;
  std::memcpy(&key.low, digest.bytes.data(), sizeof(key.low));
  std::memcpy(&key.high, digest.bytes.data() + sizeof(key.low), sizeof(key.high));
  key.low += 2 * group + (is_sealed ? 1 : 0);
  return key;
}

const BlockLayout& TierStore::layout(size_t group, bool is_sealed) const {
  return core_->groups[group].LayoutOf(is_sealed);
}

BlockPool& TierStore::pool(size_t group, bool is_sealed) const {
  return is_sealed ? *core_->groups[group].sealed_pool : *core_->groups[group].pool;
}

// One record for each group of each block, in the form that is wanted if there is one, of the first tier that has it.
std::vector<TierStore::Place> TierStore::FindPlaces(std::span<const Wanted> wanted) {
  std::vector<Place> open;
  for (size_t i = 0; i < wanted.size(); ++i) {
    for (size_t group = 0; group < core_->groups.size(); ++group) {
      if (wanted[i].sealed[group])
        open.push_back({.wanted_index = i, .group = group, .block = {{}, *wanted[i].sealed[group]}});
    }
  }
  std::vector<Place> found;
  for (size_t tier = 0; tier < tiers_.size(); ++tier) {
    for (const bool other_form : {false, true}) {
      std::vector<RecordKey> keys;
      for (const Place& place : open) {
        keys.push_back(KeyOf(wanted[place.wanted_index].digest, place.group, place.block.is_sealed != other_form));
      }
      const std::vector<bool> is_there = tiers_[tier]->tier->Contains(keys);
      std::vector<Place> left;
      for (size_t i = 0; i < open.size(); ++i) {
        Place place = open[i];
        place.tier_index = tier;
        place.block.is_sealed = place.block.is_sealed != other_form;
        const bool has_pool = !place.block.is_sealed || core_->groups[place.group].sealed_pool != nullptr;
        (is_there[i] && has_pool ? found : left).push_back(is_there[i] && has_pool ? place : open[i]);
      }
      open = std::move(left);
    }
  }
  std::ranges::sort(found, {}, [](const Place& place) { return std::pair(place.wanted_index, place.group); });
  return found;
}

bool TierStore::IsSeen(const Wanted& wanted, size_t group, int64_t end_position) const {
  const int64_t window = core_->groups[group].layout.window;
  return window == 0 || wanted.end_position() > end_position - window + 1;
}

size_t TierStore::BytesOf(std::span<const Wanted> wanted) const {
  size_t bytes = 0;
  for (const Wanted& one : wanted) {
    for (size_t group = 0; group < one.sealed.size(); ++group) {
      if (!one.sealed[group] || !IsSeen(one, group, wanted.back().end_position())) continue;
      bytes += layout(group, *one.sealed[group]).block_bytes;
    }
  }
  return bytes;
}

// How many of the blocks can be used, given these records: of groups with a sliding window, only the last blocks are
// needed.
size_t TierStore::NumLeading(std::span<const Wanted> wanted, std::span<const Place> places) const {
  std::vector<std::vector<bool>> has(wanted.size());  // [wanted][group]
  for (size_t i = 0; i < wanted.size(); ++i) {
    for (const auto& sealed : wanted[i].sealed) has[i].push_back(!sealed);
  }
  for (const Place& place : places) has[place.wanted_index][place.group] = true;
  auto group_has = [&](size_t group, size_t num_blocks) {
    const int64_t end = wanted[num_blocks - 1].end_position();
    for (size_t i = num_blocks; i-- > 0 && IsSeen(wanted[i], group, end);) {
      if (!has[i][group]) return false;
    }
    return true;
  };
  size_t num_blocks = wanted.size();
  for (size_t group = 0; group < core_->groups.size(); ++group) {
    if (core_->groups[group].layout.window > 0) continue;
    size_t leading = 0;
    while (leading < num_blocks && has[leading][group]) ++leading;
    num_blocks = leading;
  }
  auto all_have = [&] {
    for (size_t group = 0; group < core_->groups.size(); ++group) {
      if (core_->groups[group].layout.window > 0 && !group_has(group, num_blocks)) return false;
    }
    return true;
  };
  while (num_blocks > 0 && !all_have()) --num_blocks;
  return num_blocks;
}

// Blocks for the places, from the first on; those after one that there is no room for are taken off. Runs have to live
// until their blocks are read.
bool TierStore::AllocateBlocks(std::vector<Place>& places, Runs& runs, bool may_evict) {
  std::map<BlockPool*, size_t> num_wanted, num_taken;
  size_t bytes = 0;
  for (const Place& place : places) {
    ++num_wanted[&pool(place.group, place.block.is_sealed)];
    bytes += BlockBytes(place);
  }
  for (const auto& [of_run, num_blocks] : num_wanted) runs[of_run] = of_run->AllocateRun(num_blocks);
  for (size_t i = 0; i < places.size(); ++i) {
    Place& place = places[i];
    BlockPool& of_block = pool(place.group, place.block.is_sealed);
    BlockRun& run = runs[&of_block];
    size_t& next = num_taken[&of_block];
    if (next < run.size()) {
      place.run = &run;
      place.block.block = run[next++];
    } else if (const auto block = AllocateBlock(of_block, may_evict ? bytes : 0)) {
      place.block.block = *block;
    } else {
      places.resize(i);
      return false;
    }
    bytes -= of_block.block_bytes();
  }
  return true;
}

// One, for which so many bytes of idle prefixes may go.
std::optional<BlockId> TierStore::AllocateBlock(BlockPool& of_block, size_t evictable_bytes) {
  Result<BlockId> allocated = of_block.Allocate();
  if (!allocated) {
    core_->RetryWithRoom(evictable_bytes, [&] { return (allocated = of_block.Allocate()).has_value(); });
  }
  return allocated ? std::optional(*allocated) : std::nullopt;
}

bool TierStore::IsOf(const RecordHeader& header, const Digest& digest, std::span<const Token> tokens, size_t group,
                     bool is_sealed) const {
  return header.digest == digest && std::ranges::equal(header.tokens, tokens) && header.group == group &&
         header.is_sealed == is_sealed && header.part_bytes == layout(group, is_sealed).AllPartBytes();
}

void TierStore::Verify(const Wanted& wanted, Place& place, const std::vector<std::byte>& header) {
  const Result<RecordHeader> decoded = DecodeHeader(header);
  // A newer version's record is good for somebody else.
  place.is_damaged = decoded || decoded.error().code != ErrorCode::kUnsupported;
  if (!decoded || !IsOf(*decoded, wanted.digest, wanted.tokens, place.group, place.block.is_sealed)) return;
  const std::byte* payload = pool(place.group, place.block.is_sealed).data(place.block.block);
  if (!VerifyParts(*decoded, {payload, BlockBytes(place)})) return;
  place.is_damaged = false;
  place.is_loaded = true;
}

size_t TierStore::BlockBytes(const Place& place) const {
  return layout(place.group, place.block.is_sealed).block_bytes;
}

// Of all places, as far as it is known.
std::optional<double> TierStore::LoadSeconds(std::span<const Place> places) const {
  std::vector<uint64_t> tier_bytes(tiers_.size());
  for (const Place& place : places) tier_bytes[place.tier_index] += BlockBytes(place);
  double sum = 0;
  for (size_t tier = 0; tier < tiers_.size(); ++tier) {
    if (tier_bytes[tier] == 0) continue;
    const auto seconds = tiers_[tier]->load_cost.SecondsFor(double(tier_bytes[tier]));
    if (!seconds) return std::nullopt;
    sum += *seconds;
  }
  return sum;
}

TierStore::Fetched TierStore::Fetch(std::span<const Wanted> wanted, bool may_evict) {
  Fetched fetched;
  std::vector<Place> places = FindPlaces(wanted);
  fetched.num_blocks = NumLeading(wanted, places);
  if (fetched.num_blocks == 0) return fetched;
  std::erase_if(places, [&](const Place& place) { return place.wanted_index >= fetched.num_blocks; });
  const int64_t end = wanted[fetched.num_blocks - 1].end_position();
  std::erase_if(places, [&](const Place& place) { return !IsSeen(wanted[place.wanted_index], place.group, end); });
  if (places.empty()) return fetched;  // all of it is in memory
  const int64_t begin = wanted[std::ranges::min(places, {}, &Place::wanted_index).wanted_index].position;
  if (!IsWorthLoading(LoadSeconds(places), compute_cost, begin, end)) {
    return {.num_blocks = 0, .tiers = {}, .reason = MissReason::kSlower};
  }
  {
    Runs runs;  // end before others see the blocks
    if (!AllocateBlocks(places, runs, may_evict)) {
      // The block whose records were not all given room, and those after it.
      fetched.num_blocks = places.empty() ? 0 : places.back().wanted_index;
      fetched.reason = MissReason::kNoRoom;
    }
    ReadFromAllTiers(wanted, places, fetched);
  }
  OfferLoaded(wanted, places, fetched);
  core_->housekeeper->Wake();
  return fetched;
}

void TierStore::ReadFromAllTiers(std::span<const Wanted> wanted, std::vector<Place>& places, Fetched& fetched) {
  std::ranges::stable_sort(places, {}, &Place::tier_index);
  for (auto first = places.begin(); first != places.end();) {
    const auto next = std::ranges::find_if(first, places.end(),
                                           [&](const Place& place) { return place.tier_index != first->tier_index; });
    const std::span<Place> of_tier(first, next);
    OneTier& tier = *tiers_[first->tier_index];
    const auto start = Clock::now();
    ReadPlaces(wanted, of_tier);
    ReuseReport::FromTier from{.tier = tier.tier->name(), .tokens = 0, .bytes = 0, .seconds = SecondsSince(start)};
    const Place* before = nullptr;
    for (const Place& place : of_tier) {
      if (!place.is_loaded) continue;
      from.bytes += BlockBytes(place);
      const bool is_of_same_block = before != nullptr && before->wanted_index == place.wanted_index;
      if (!is_of_same_block) from.tokens += std::ssize(wanted[place.wanted_index].tokens);
      before = &place;
    }
    if (from.bytes > 0) {
      tier.load_cost.Add(double(from.bytes), from.seconds);
      fetched.tiers.push_back(std::move(from));
    }
    first = next;
  }
}

void TierStore::OfferLoaded(std::span<const Wanted> wanted, std::span<const Place> places, Fetched& fetched) {
  for (const Place& place : places) {
    if (place.is_loaded) {
      const Wanted& of = wanted[place.wanted_index];
      const PrefixIndex::Entry entry{of.digest, of.parent, of.position, {of.tokens.begin(), of.tokens.end()},
                                     {},        of.root};
      core_->prefixes->Offer(entry, place.group, place.block);
      continue;
    }
    if (place.has_memory) core_->prefixes->ReleaseBlock(place.group, place.block);  // else it went with its run
    if (place.wanted_index >= fetched.num_blocks) continue;
    fetched.num_blocks = place.wanted_index;
    fetched.reason = !place.has_memory  ? MissReason::kNoRoom
                     : place.is_damaged ? MissReason::kDamaged
                                        : MissReason::kNothingStored;
  }
}

// Several threads, each a piece at a time: whoever is done takes the next.
void TierStore::ReadPlaces(std::span<const Wanted> wanted, std::span<Place> places) {
  Tier& tier = *tiers_[places.front().tier_index]->tier;
  size_t bytes = 0;
  for (const Place& place : places) bytes += BlockBytes(place);
  const size_t num_threads =
      std::clamp<size_t>(bytes / kLeastBytesAThread, 1, std::min<size_t>(kNumThreads, places.size()));
  const auto pieces = PiecesOf(places, std::min(tier.best_read_bytes(), (bytes + num_threads - 1) / num_threads));
  std::atomic<size_t> next_piece{0};
  auto read = [&, this] {
    for (size_t i = next_piece++; i < pieces.size(); i = next_piece++) ReadPiece(tier, wanted, pieces[i]);
  };
  std::vector<std::shared_ptr<Transfer>> others;
  for (size_t i = 1; i < num_threads; ++i) others.push_back(queue_->Submit(TransferPriority::kFetch, 0, read));
  read();
  for (const auto& other : others) {
    if (!other->Cancel()) other->Wait();  // one that has not begun has nothing left to do
  }
}

// Neighbours that have at least so many bytes together, but for the last ones.
std::vector<std::span<TierStore::Place>> TierStore::PiecesOf(std::span<Place> places, size_t piece_bytes) const {
  std::vector<std::span<Place>> pieces;
  while (!places.empty()) {
    size_t length = 0;
    for (size_t bytes = 0; bytes < piece_bytes && length < places.size(); ++length) bytes += BlockBytes(places[length]);
    pieces.push_back(places.first(length));
    places = places.subspan(length);
  }
  return pieces;
}

void TierStore::ReadPiece(Tier& tier, std::span<const Wanted> wanted, std::span<Place> piece) {
  std::vector<TierRead> reads;
  std::vector<Place*> of_reads;
  for (Place& place : piece) {
    const BlockPool& pool = this->pool(place.group, place.block.is_sealed);
    place.has_memory = place.run == nullptr || place.run->TakeMemory(place.block.block).has_value();
    if (!place.has_memory) continue;
    TierRead one;
    one.key = KeyOf(wanted[place.wanted_index].digest, place.group, place.block.is_sealed);
    one.payload = {pool.data(place.block.block), pool.block_bytes()};
    reads.push_back(std::move(one));
    of_reads.push_back(&place);
  }
  if (reads.empty()) return;
  tier.Read(reads);
  std::vector<RecordKey> damaged;
  for (size_t i = 0; i < reads.size(); ++i) {
    Place& place = *of_reads[i];
    if (reads[i].is_hit) Verify(wanted[place.wanted_index], place, reads[i].header);
    if (place.is_damaged) damaged.push_back(reads[i].key);
  }
  if (!damaged.empty()) ForgetDamaged(tier, damaged);
}

void TierStore::WriteBehind(std::vector<PrefixIndex::Entry> entries) {
  for (size_t begin = 0; begin < entries.size(); begin += kBlocksAWrite) {
    const auto end = entries.begin() + std::ptrdiff_t(std::min(begin + kBlocksAWrite, entries.size()));
    WritePart({entries.begin() + std::ptrdiff_t(begin), end});
  }
}

void TierStore::WritePart(std::vector<PrefixIndex::Entry> entries) {
  size_t bytes = 0;
  for (const PrefixIndex::Entry& entry : entries) {
    for (size_t group = 0; group < entry.blocks.size(); ++group) {
      if (entry.blocks[group]) bytes += layout(group, entry.blocks[group]->is_sealed).block_bytes;
    }
  }
  auto held = std::make_shared<Held>(*core_->prefixes, std::move(entries));
  queue_->Submit(TransferPriority::kWriteBehind, bytes, [this, held] {
    for (const auto& one : tiers_) WriteTo(*one->tier, held->entries, nullptr);
  });
}

void TierStore::WaitForWrites(const std::function<bool()>& is_enough) {
  const auto end = Clock::now() + kLongestWait;
  while (!is_enough()) {
    if (queue_->WaitUntilIdleFor(kBetweenLooks)) {
      is_enough();
      return;
    }
    if (Clock::now() < end) continue;
    queue_->CancelWriteBehind();
    is_enough();
    return;
  }
}

void TierStore::WaitUntilWritten() {
  queue_->WaitUntilIdle();
}

size_t TierStore::WriteTo(Tier& tier, const std::vector<PrefixIndex::Entry>& entries, DiskTier::Keeper* keeper) {
  struct Record {
    const PrefixIndex::Entry* entry;
    size_t group;
    StoredBlock block;
  };
  std::vector<Record> records;
  std::vector<RecordKey> keys;
  for (const PrefixIndex::Entry& entry : entries) {
    for (size_t group = 0; group < entry.blocks.size(); ++group) {
      if (!entry.blocks[group]) continue;
      records.push_back({&entry, group, *entry.blocks[group]});
      keys.push_back(KeyOf(entry.digest, group, entry.blocks[group]->is_sealed));
    }
  }
  const std::vector<bool> is_there = keeper != nullptr ? keeper->Contains(keys) : tier.Contains(keys);
  size_t num_there = size_t(std::ranges::count(is_there, true));
  std::vector<Unwritten> unwritten;
  std::vector<TierWrite> writes;
  auto write = [&] {
    num_there += keeper != nullptr ? keeper->Write(writes) : tier.Write(writes);
    writes.clear();
    unwritten.clear();
  };
  unwritten.reserve(kMostRecordsAWrite);  // what writes point to stays where it is
  for (size_t i = 0; i < records.size(); ++i) {
    if (is_there[i]) continue;
    const auto& [entry, group, block] = records[i];
    const BlockLayout& of_block = layout(group, block.is_sealed);
    Unwritten& one = unwritten.emplace_back();
    one.payload = {pool(group, block.is_sealed).data(block.block), of_block.block_bytes};
    if (std::cmp_less(entry->tokens.size(), core_->geometry.block_tokens)) {
      one.scrubbed = ScrubbedBlock(core_->geometry, of_block, one.payload, int(entry->tokens.size()));
      one.payload = one.scrubbed;
    }
    one.header = {.digest = entry->digest,
                  .model = core_->options.model.name,
                  .form = FormName(core_->options.form),
                  .group = uint32_t(group),
                  .is_sealed = block.is_sealed,
                  .position = uint64_t(entry->position),
                  .tokens = entry->tokens,
                  .part_bytes = of_block.AllPartBytes(),
                  .part_checksums = {}};
    one.encoded.resize(EncodedHeaderBytes(one.header));
    writes.push_back({keys[i], one.encoded, one.payload, [&one] { one.CompleteHeader(); }});
    if (writes.size() == kMostRecordsAWrite) write();
  }
  if (!writes.empty()) write();
  return num_there;
}

Status TierStore::WriteNow(const std::vector<PrefixIndex::Entry>& entries, DiskTier::Keeper& keeper) {
  size_t num_blocks = 0;
  for (const PrefixIndex::Entry& entry : entries) {
    num_blocks += size_t(std::ranges::count_if(entry.blocks, [](const auto& block) { return block.has_value(); }));
  }
  const uint64_t num_failures = disk_->stats().num_failures;
  if (WriteTo(*disk_, entries, &keeper) == num_blocks) return {};
  const TierStats stats = disk_->stats();
  if (stats.num_failures > num_failures) {
    return Fail(ErrorCode::kIo, "the disk tier could not store all blocks: " + stats.last_failure);
  }
  return Fail(ErrorCode::kOutOfMemory, "what has to stay in the disk tier does not fit into its " +
                                           std::to_string(stats.limit_bytes) +
                                           " bytes; give it a larger size, or remove a session");
}

Status TierStore::WriteAgain(const HeldRecord& record, DiskTier::Keeper& keeper) {
  if (keeper.Contains({&record.key, 1})[0]) return {};
  std::vector<std::byte> payload(record.header.payload_bytes());
  KVIST_TRY_VOID(record.ReadPayload(payload));
  const std::vector<std::byte> header = EncodeHeader(record.header);
  const TierWrite write{record.key, header, payload};
  if (keeper.Write({&write, 1}) == 1) return {};
  return Fail(ErrorCode::kIo, "the disk tier could not store a block again that it had evicted");
}

std::vector<std::pair<std::string, TierStats>> TierStore::stats() const {
  std::vector<std::pair<std::string, TierStats>> stats;
  for (const auto& one : tiers_) stats.emplace_back(one->tier->name(), one->tier->stats());
  return stats;
}

Result<std::shared_ptr<const HeldRecord>> TierStore::Hold(const Digest& digest, std::span<const Token> tokens,
                                                          size_t group, bool is_sealed) {
  KVIST_TRY(auto record, disk_->Hold(KeyOf(digest, group, is_sealed)));
  if (IsOf(record->header, digest, tokens, group, is_sealed)) return record;
  ForgetDamaged(record->key);
  return Fail(ErrorCode::kCorrupt, "the disk tier has another record in the place of a block; it is not used again");
}

void TierStore::ForgetDamaged(const RecordKey& key) {
  ForgetDamaged(*disk_, {&key, 1});
}

void TierStore::ForgetDamaged(Tier& tier, std::span<const RecordKey> keys) {
  num_damaged_.fetch_add(keys.size(), std::memory_order_relaxed);
  tier.Erase(keys);
}

uint64_t TierStore::num_damaged() const {
  return num_damaged_.load(std::memory_order_relaxed);
}

}  // namespace kvist
