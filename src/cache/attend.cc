// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "cache/attend.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>

#include "cache/page_bounds.h"
#include "cache/rope.h"
#include "cache/splits.h"
#include "codec/rotation.h"
#include "codec/tile.h"
#include "policy/sealing.h"

namespace kvist {
namespace {

// Query rows that meet a tile together. More rows share the cost of reading and decoding it; fewer give finer work.
constexpr int kMaxRows = 64;
// From here on decoding a tile to f32 once pays for itself.
constexpr int kMinRowsToDecode = 8;

int RowsPerToken(const LayerGeometry& layer) {
  return layer.num_heads_per_kv_head();
}
int TokensPerTile(const LayerGeometry& layer) {
  return std::max(1, kMaxRows / RowsPerToken(layer));
}

// With a gap behind, so that two threads never write into one cache line, nor into two that are fetched together.
size_t SoftmaxFloats(int num_rows, int value_dim) {
  return size_t(num_rows) * size_t(value_dim + 2) + 128 / sizeof(float);
}

SoftmaxRows PlaceSoftmax(float* memory, int num_rows) {
  return {memory, memory + num_rows, memory + 2 * num_rows};
}

SoftmaxRows EmptySoftmax(float* memory, int num_rows, int value_dim) {
  const SoftmaxRows rows = PlaceSoftmax(memory, num_rows);
  std::fill_n(rows.largest, num_rows, -std::numeric_limits<float>::infinity());
  std::fill_n(rows.sum, num_rows, 0.0f);
  std::fill_n(rows.output, size_t(num_rows) * size_t(value_dim), 0.0f);
  return rows;
}

// What a thread needs while it works; kept from call to call, since allocating would cost more than a short step.
struct Workspace {
  std::vector<float> queries, moved, part, total, k_tile, v_tile, rows;
  std::vector<int32_t> first_slot, end_slot;
  std::vector<float> hadamard, query_scales;  // of queries that meet quantised keys
  std::vector<int8_t> query_bytes;
  std::vector<int16_t> query_words;
  std::vector<int32_t> query_sums;
  std::vector<std::byte> encoded;

  static Workspace& OfThisThread() {
    thread_local Workspace workspace;
    return workspace;
  }
};

// The query rows of some consecutive tokens for one KV head, token by token, ready to meet tiles.
class QueryRows {
 public:
  QueryRows(const LayerView& layer, Workspace& workspace, int kv_head, const float* queries, int64_t first_position,
            int num_tokens)
      : layer_(layer),
        workspace_(workspace),
        kv_head_(kv_head),
        first_position_(first_position),
        num_tokens_(num_tokens),
        rows_per_token_(RowsPerToken(layer.geometry)),
        num_rows_(num_tokens * rows_per_token_) {
    const LayerGeometry& geometry = layer.geometry;
    const float scale = geometry.score_scale();
    const size_t floats_per_token = size_t(rows_per_token_) * size_t(geometry.key_dim);
    workspace.queries.resize(size_t(num_tokens) * floats_per_token);
    workspace.first_slot.resize(size_t(num_rows_));
    workspace.end_slot.resize(size_t(num_rows_));
    for (int token = 0; token < num_tokens; ++token) {
      const float* from =
          queries + (size_t(token) * size_t(geometry.num_kv_heads) + size_t(kv_head)) * floats_per_token;
      float* to = workspace.queries.data() + size_t(token) * floats_per_token;
      for (size_t i = 0; i < floats_per_token; ++i) to[i] = from[i] * scale;
    }
  }

  int num_rows() const { return num_rows_; }

  // [ref] of the table: blocks with a 0 are left out. Empty: all are read.
  void ReadOnly(std::span<const uint8_t> chosen) { chosen_ = chosen; }

  // Adds what the rows see in these blocks: first what is sealed, then what is open, so that sums over rotated values
  // are turned back once.
  void Meet(std::span<const BlockRef> refs, const SoftmaxRows& softmax) {
    if (MeetTiles(refs, Stored::kSealed, softmax) && IsQuantised(layer_.sealed.form.v)) {
      RotateRows(softmax.output, num_rows_, layer_.geometry.value_dim);
    }
    MeetTiles(refs, Stored::kOpen, softmax);
  }

  // The same of tiles [first, end) of the lane's kept tokens, which every row sees.
  void MeetKept(int first, int end, const SoftmaxRows& softmax) {
    const KeptTokens& kept = *layer_.kept;
    const size_t layer = layer_.layer_in_group;
    end = std::min(end, kept.num_tiles(layer, kv_head_));
    for (int tile = first; tile < end; ++tile) {
      std::ranges::fill(workspace_.first_slot, 0);
      std::ranges::fill(workspace_.end_slot, kept.num_slots(layer, kv_head_, tile));
      MeetTile({kept.tile(layer, kv_head_, tile), tile + 1 < end ? kept.tile(layer, kv_head_, tile + 1) : nullptr,
                layer_.final_place(), 0},
               softmax);
    }
    if (first < end && IsQuantised(layer_.final_place().form.v)) {
      RotateRows(softmax.output, num_rows_, layer_.geometry.value_dim);
    }
  }

 private:
  // A block that the step seals is there in both forms.
  enum class Stored : uint8_t { kOpen, kSealed };
  bool IsThere(const BlockRef& ref, Stored stored) const {
    if (!chosen_.empty() && chosen_[size_t(&ref - layer_.table.refs().data())] == 0) return false;
    return stored == Stored::kSealed ? ref.is_sealed || ref.sealing : !ref.is_sealed;
  }

  // Whether there were any that a row sees.
  bool MeetTiles(std::span<const BlockRef> refs, Stored stored, const SoftmaxRows& softmax) {
    bool any = false;
    for (size_t i = 0; i < refs.size(); ++i) {
      if (!IsThere(refs[i], stored) || !FindVisibleSlots(refs[i], stored)) continue;
      size_t next = i + 1;
      while (next < refs.size() && !IsThere(refs[next], stored)) ++next;
      const bool is_sealed = stored == Stored::kSealed;
      const auto lane = [&](const BlockRef& of) {
        return is_sealed ? layer_.SealedLane(of, kv_head_) : layer_.OpenLane(of, kv_head_);
      };
      MeetTile({lane(refs[i]), next < refs.size() ? lane(refs[next]) : nullptr, is_sealed ? layer_.sealed : layer_.open,
                refs[i].delta},
               softmax);
      any = true;
    }
    return any;
  }

  // False when no row sees any of it in this form.
  bool FindVisibleSlots(const BlockRef& ref, Stored stored) {
    const int64_t sealed_from =
        ref.sealing ? SealedFrom(layer_.table.sealing(), ref.position, ref.end_position()) : INT64_MIN;
    bool any = false;
    for (int token = 0; token < num_tokens_; ++token) {
      const int64_t position = first_position_ + token, window = layer_.geometry.window;
      const int64_t from = window > 0 ? std::max(ref.position, position - window + 1) : ref.position;
      const int64_t to = std::min(ref.end_position(), position + 1);
      auto first = int32_t(std::min<int64_t>(from - ref.position, ref.num_slots)) + ref.first_slot;
      const auto end = int32_t(std::max<int64_t>(to - ref.position, 0)) + ref.first_slot;
      if (ref.sealing && (position >= sealed_from) != (stored == Stored::kSealed)) first = end;
      any |= first < end;
      std::fill_n(workspace_.first_slot.data() + token * rows_per_token_, rows_per_token_, first);
      std::fill_n(workspace_.end_slot.data() + token * rows_per_token_, rows_per_token_, end);
    }
    return any;
  }

  // One tile of the lane, of which the workspace says what each row sees.
  struct Tile {
    const std::byte* k;     // V follows
    const std::byte* next;  // the tile that is met after it; may be null
    const BlockLayout::Layer& place;
    int64_t delta;
  };

  void MeetTile(const Tile& tile, const SoftmaxRows& softmax) {
    const BlockLayout::Layer& place = tile.place;
    TileStep step{};
    step.k = tile.k;
    step.v = step.k + place.k_tile_bytes;
    step.k_codec = place.form.k;
    step.v_codec = place.form.v;
    step.k_layout = &place.k_quantised;
    step.v_layout = &place.v_quantised;
    step.block_tokens = layer_.block_tokens;
    step.key_dim = layer_.geometry.key_dim;
    step.value_dim = layer_.geometry.value_dim;
    if (tile.next != nullptr) {
      step.prefetch = tile.next;
      step.prefetch_bytes = place.lane_bytes();
    }
    if (num_rows_ >= kMinRowsToDecode) DecodeToF32(step);
    step.num_rows = num_rows_;
    step.queries = QueriesAt(tile.delta);
    if (IsQuantised(step.k_codec)) step.rounded = RoundedQueriesAt(tile.delta);
    step.first_slot = workspace_.first_slot.data();
    step.end_slot = workspace_.end_slot.data();
    step.rows = softmax;
    layer_.kernels.attend_tile(step);
  }

  void DecodeToF32(TileStep& step) {
    auto decode = [&](Codec& codec, const std::byte*& tile, int dim, std::vector<float>& decoded) {
      if (codec == Codec::kF32 || IsQuantised(codec)) return;
      decoded.resize(size_t(dim) * size_t(step.block_tokens));
      layer_.kernels.decode(codec, tile, decoded.size(), decoded.data());
      codec = Codec::kF32;
      tile = reinterpret_cast<const std::byte*>(decoded.data());
    };
    decode(step.k_codec, step.k, step.key_dim, workspace_.k_tile);
    decode(step.v_codec, step.v, step.value_dim, workspace_.v_tile);
  }

  // Keys that have moved by a delta meet queries turned back by it: rotary angles are linear in the position.
  const float* QueriesAt(int64_t delta) {
    if (delta == 0) return workspace_.queries.data();
    if (delta != moved_delta_) {
      workspace_.moved = workspace_.queries;
      Rotate(layer_.geometry.rope, -delta, workspace_.moved.data(), num_rows_, layer_.geometry.key_dim);
      moved_delta_ = delta;
    }
    return workspace_.moved.data();
  }

  RoundedQueries RoundedQueriesAt(int64_t delta) {
    const bool as_words = layer_.sealed.form.k == Codec::kQ8;
    if (delta != rounded_delta_) {
      Workspace& w = workspace_;
      const int key_dim = layer_.geometry.key_dim;
      const float* queries = QueriesAt(delta);
      w.hadamard.assign(queries, queries + size_t(num_rows_) * size_t(key_dim));
      RotateRows(w.hadamard.data(), num_rows_, key_dim);
      w.query_scales.resize(size_t(num_rows_));
      w.query_sums.resize(size_t(num_rows_));
      auto round = [&](auto& numbers) {
        numbers.resize(w.hadamard.size());
        RoundQueries(w.hadamard.data(), num_rows_, key_dim, numbers.data(), w.query_scales.data(), w.query_sums.data());
      };
      as_words ? round(w.query_words) : round(w.query_bytes);
      rounded_delta_ = delta;
    }
    return {.bytes = as_words ? nullptr : workspace_.query_bytes.data(),
            .words = as_words ? workspace_.query_words.data() : nullptr,
            .scales = workspace_.query_scales.data(),
            .sums = workspace_.query_sums.data()};
  }

  const LayerView& layer_;
  Workspace& workspace_;
  const int kv_head_;
  const int64_t first_position_;
  const int num_tokens_, rows_per_token_, num_rows_;
  std::span<const uint8_t> chosen_;
  int64_t moved_delta_ = 0;               // what workspace_.moved holds; 0: nothing
  std::optional<int64_t> rounded_delta_;  // of the rounded queries in the workspace
};

void WriteOut(const LayerGeometry& geometry, int kv_head, int num_rows, const SoftmaxRows& softmax, float* out) {
  const int rows_per_token = RowsPerToken(geometry);
  for (int row = 0; row < num_rows; ++row) {
    const int head = kv_head * rows_per_token + row % rows_per_token;
    const float* from = softmax.output + size_t(row) * size_t(geometry.value_dim);
    float* to = out + (size_t(row / rows_per_token) * size_t(geometry.num_query_heads) + size_t(head)) *
                          size_t(geometry.value_dim);
    const float scale = softmax.sum[row] != 0.0f ? 1.0f / softmax.sum[row] : 0.0f;  // NaN has to show
    for (int i = 0; i < geometry.value_dim; ++i) to[i] = from[i] * scale;
  }
}

// Of all splits of a layer, those that a call is about: first those of kept tokens, then those of its table.
struct SplitRange {
  int64_t first, end, num_all;
};

void MeetSplit(const LayerView& layer, int64_t split, QueryRows& rows, const SoftmaxRows& softmax) {
  const int64_t num_kept = NumKeptSplits(layer.kept);
  if (split >= num_kept) return rows.Meet(RefsOfSplit(layer.table, split - num_kept), softmax);
  rows.MeetKept(int(split * kSplitBlocks), int((split + 1) * kSplitBlocks), softmax);
}

// Whether no row before the position sees any of the split.
bool IsAhead(const LayerView& layer, int64_t split, int64_t end_position) {
  const int64_t num_kept = NumKeptSplits(layer.kept);
  return split >= num_kept && RefsOfSplit(layer.table, split - num_kept).front().position >= end_position;
}

// A lane's blocks are chosen by whoever comes first; those who are to attend to it wait for that.
void ChoosePages(const LayerView& layer, int kv_head, const float* queries, AttendSpace& space) {
  const int floats_per_lane = RowsPerToken(layer.geometry) * layer.geometry.key_dim;
  layer.pages->Choose(layer, kv_head, queries + size_t(kv_head * floats_per_lane));
  space.are_pages_chosen[size_t(kv_head)].store(1, std::memory_order_release);
  space.are_pages_chosen[size_t(kv_head)].notify_all();
}

std::span<const uint8_t> AwaitChosenPages(const LayerView& layer, int kv_head, AttendSpace& space) {
  if (layer.pages == nullptr) return {};
  space.are_pages_chosen[size_t(kv_head)].wait(0, std::memory_order_acquire);
  return layer.pages->chosen(layer.index, kv_head);
}

// Few tokens: the work is divided by KV head and split, and whoever finishes a head's last split merges them all.
void AttendBySplits(const LayerView& layer, SplitRange range, int64_t first_position, int num_tokens,
                    const float* queries, float* out, Worker worker, AttendSpace& space) {
  const LayerGeometry& geometry = layer.geometry;
  const auto num_splits = int(range.num_all), num_here = int(range.end - range.first);
  const int num_rows = num_tokens * RowsPerToken(geometry);
  const size_t floats_per_unit = SoftmaxFloats(num_rows, geometry.value_dim);
  Workspace& workspace = Workspace::OfThisThread();

  const int num_choosing = layer.pages == nullptr ? 0 : geometry.num_kv_heads;
  space.queue.Work(num_choosing + geometry.num_kv_heads * num_here, worker.count, [&](int unit) {
    if (unit < num_choosing) return ChoosePages(layer, unit, queries, space);
    unit -= num_choosing;
    const int kv_head = unit / num_here, split = int(range.first) + unit % num_here;
    QueryRows rows(layer, workspace, kv_head, queries, first_position, num_tokens);
    rows.ReadOnly(AwaitChosenPages(layer, kv_head, space));
    float* memory = space.partial_results.data() + size_t(kv_head * num_splits + split) * floats_per_unit;
    MeetSplit(layer, split, rows, EmptySoftmax(memory, num_rows, geometry.value_dim));

    std::atomic<int>& num_finished = space.num_finished_splits[size_t(kv_head)];
    if (num_finished.fetch_add(1, std::memory_order_acq_rel) + 1 < num_splits) return;
    num_finished.store(0, std::memory_order_relaxed);
    space.are_pages_chosen[size_t(kv_head)].store(0, std::memory_order_relaxed);
    workspace.total.resize(floats_per_unit);
    const SoftmaxRows total = EmptySoftmax(workspace.total.data(), num_rows, geometry.value_dim);
    for (int i = 0; i < num_splits; ++i) {
      float* part = space.partial_results.data() + size_t(kv_head * num_splits + i) * floats_per_unit;
      MergeSoftmax(num_rows, geometry.value_dim, PlaceSoftmax(part, num_rows), total);
    }
    WriteOut(geometry, kv_head, num_rows, total, out);
  });
}

int NumTiles(const LayerGeometry& geometry, int64_t num_tokens) {
  const int64_t tokens_per_tile = TokensPerTile(geometry);
  return int((num_tokens + tokens_per_tile - 1) / tokens_per_tile);
}
size_t FloatsPerTile(const LayerGeometry& geometry) {
  return SoftmaxFloats(TokensPerTile(geometry) * RowsPerToken(geometry), geometry.value_dim);
}

// Many tokens: the work is divided by KV head and query tile, each going through all splits itself. When the call is
// about some of them only, what a tile has so far stays in the space's partial results.
void AttendByQueryTiles(const LayerView& layer, SplitRange range, int64_t first_position, int64_t num_tokens,
                        const float* queries, float* out, Worker worker, AttendSpace& space) {
  const LayerGeometry& geometry = layer.geometry;
  const int tokens_per_tile = TokensPerTile(geometry), num_tiles = NumTiles(geometry, num_tokens);
  const bool is_first = range.first == 0, is_last = range.end == range.num_all;
  Workspace& workspace = Workspace::OfThisThread();

  space.queue.Work(geometry.num_kv_heads * num_tiles, worker.count, [&](int unit) {
    // The last tiles see the most and take the longest: they go first.
    const int kv_head = unit % geometry.num_kv_heads, tile = num_tiles - 1 - unit / geometry.num_kv_heads;
    const int64_t first_token = int64_t(tile) * tokens_per_tile;
    const auto tokens_here = int(std::min<int64_t>(tokens_per_tile, num_tokens - first_token));
    const size_t heads_before = size_t(first_token) * size_t(geometry.num_query_heads);
    QueryRows rows(layer, workspace, kv_head, queries + heads_before * size_t(geometry.key_dim),
                   first_position + first_token, tokens_here);

    const size_t floats = SoftmaxFloats(rows.num_rows(), geometry.value_dim);
    workspace.part.resize(floats);
    workspace.total.resize(floats);
    float* const memory = is_first && is_last ? workspace.total.data()
                                              : space.partial_results.data() + size_t(unit) * FloatsPerTile(geometry);
    const SoftmaxRows total =
        is_first ? EmptySoftmax(memory, rows.num_rows(), geometry.value_dim) : PlaceSoftmax(memory, rows.num_rows());
    for (int64_t split = range.first; split < range.end; ++split) {
      if (IsAhead(layer, split, first_position + first_token + tokens_here)) break;
      const SoftmaxRows part = EmptySoftmax(workspace.part.data(), rows.num_rows(), geometry.value_dim);
      MeetSplit(layer, split, rows, part);
      MergeSoftmax(rows.num_rows(), geometry.value_dim, part, total);
    }
    if (is_last) WriteOut(geometry, kv_head, rows.num_rows(), total, out + heads_before * size_t(geometry.value_dim));
  });
}

// A part of Append's work: the tokens of one block for one KV head.
void AppendToBlock(const LayerView& layer, const BlockRef& ref, int kv_head, int64_t first_position, const float* keys,
                   const float* values, Workspace& workspace) {
  const LayerGeometry& geometry = layer.geometry;
  const Form form = layer.open.form;
  const size_t num_heads = size_t(geometry.num_kv_heads);
  std::byte* const k_tile = layer.OpenLane(ref, kv_head);
  std::byte* const v_tile = k_tile + layer.open.k_tile_bytes;
  workspace.encoded.resize(CodecBytes(form.k, size_t(geometry.key_dim)));
  for (int64_t position = std::max(ref.position, first_position); position < ref.end_position(); ++position) {
    const size_t row = size_t(position - first_position) * num_heads + size_t(kv_head);
    const int slot = ref.first_slot + int(position - ref.position);
    layer.kernels.encode(form.k, keys + row * size_t(geometry.key_dim), size_t(geometry.key_dim),
                         workspace.encoded.data());
    ScatterKeyRow(form.k, workspace.encoded.data(), geometry.key_dim, layer.block_tokens, slot, k_tile);
    layer.kernels.encode(form.v, values + row * size_t(geometry.value_dim), size_t(geometry.value_dim),
                         v_tile + CodecBytes(form.v, size_t(slot) * size_t(geometry.value_dim)));
  }
}

// Encodes a lane's tiles of a block that the step seals from its open ones.
void SealTiles(const LayerView& layer, const BlockRef& ref, int kv_head, Workspace& workspace) {
  const int block_tokens = layer.block_tokens, key_dim = layer.geometry.key_dim, value_dim = layer.geometry.value_dim;
  const int end_slot = ref.first_slot + ref.num_slots;
  const std::byte* k = layer.OpenLane(ref, kv_head);
  const std::byte* v = k + layer.open.k_tile_bytes;
  std::byte* sealed_k = layer.SealedLane(ref, kv_head);
  std::byte* sealed_v = sealed_k + layer.sealed.k_tile_bytes;
  if (IsQuantised(layer.sealed.form.k)) {
    workspace.k_tile.resize(size_t(key_dim) * size_t(block_tokens));
    workspace.rows.resize(workspace.k_tile.size());
    layer.kernels.decode(layer.open.form.k, k, workspace.k_tile.size(), workspace.k_tile.data());
    for (int slot = 0; slot < block_tokens; ++slot)
      for (int c = 0; c < key_dim; ++c)
        workspace.rows[size_t(slot * key_dim + c)] = workspace.k_tile[size_t(c * block_tokens + slot)];
    EncodeTile(layer.sealed.k_quantised, workspace.rows.data(), ref.first_slot, end_slot, sealed_k);
  } else {
    std::memcpy(sealed_k, k, KTileBytes(layer.open.form.k, key_dim, block_tokens));
  }
  if (IsQuantised(layer.sealed.form.v)) {
    workspace.rows.resize(size_t(value_dim) * size_t(block_tokens));
    layer.kernels.decode(layer.open.form.v, v, workspace.rows.size(), workspace.rows.data());
    EncodeTile(layer.sealed.v_quantised, workspace.rows.data(), ref.first_slot, end_slot, sealed_v);
  } else {
    std::memcpy(sealed_v, v, VTileBytes(layer.open.form.v, value_dim, block_tokens));
  }
}

}  // namespace

void AttendSpace::Resize(const CacheGeometry& geometry, int64_t num_tokens, std::span<const BlockTable> tables,
                         int64_t max_kept_splits, bool has_passes) {
  int64_t num_splits = 1;
  for (const BlockTable& table : tables) num_splits = std::max(num_splits, NumSplits(table) + max_kept_splits);
  size_t num_floats = 0;
  int num_kv_heads = 0;
  for (const LayerGeometry& layer : geometry.layers) {
    num_kv_heads = std::max(num_kv_heads, layer.num_kv_heads);
    if (num_tokens > TokensPerTile(layer)) {
      if (!has_passes) continue;  // its query tiles need no room for parts
      const auto num_units = size_t(layer.num_kv_heads) * size_t(NumTiles(layer, num_tokens));
      num_floats = std::max(num_floats, num_units * FloatsPerTile(layer));
      continue;
    }
    const auto tokens = int(num_tokens);
    num_floats = std::max(num_floats, size_t(layer.num_kv_heads) * size_t(num_splits) *
                                          SoftmaxFloats(tokens * RowsPerToken(layer), layer.value_dim));
  }
  if (partial_results.size() < num_floats) partial_results.resize(num_floats);
  if (num_finished_splits.size() < size_t(num_kv_heads)) {
    num_finished_splits = std::vector<std::atomic<int>>(size_t(num_kv_heads));
    are_pages_chosen = std::vector<std::atomic<int>>(size_t(num_kv_heads));
  }
}

void AppendRows(const LayerView& layer, int64_t first_position, const float* keys, const float* values, Worker worker) {
  const auto refs = layer.table.refs();
  auto first = std::ranges::upper_bound(refs, first_position, {}, &BlockRef::end_position);
  if (layer.table.sealed_pool() != nullptr) {
    const auto unsettled = refs.subspan(layer.table.first_unsettled_ref());
    const auto sealing = std::ranges::find_if(unsettled, [](const BlockRef& ref) { return ref.sealing.has_value(); });
    first = std::min(first, refs.begin() + (refs.size() - unsettled.size()) + (sealing - unsettled.begin()));
  }
  const int num_kv_heads = layer.geometry.num_kv_heads;
  const auto num_units = int(refs.end() - first) * num_kv_heads;
  Workspace& workspace = Workspace::OfThisThread();
  for (int unit = worker.index; unit < num_units; unit += worker.count) {
    const BlockRef& ref = first[unit / num_kv_heads];
    const int kv_head = unit % num_kv_heads;
    if (ref.end_position() > first_position) {
      AppendToBlock(layer, ref, kv_head, first_position, keys, values, workspace);
    }
    if (ref.sealing) SealTiles(layer, ref, kv_head, workspace);
  }
}

void AttendRows(const LayerView& layer, int64_t first_position, int64_t num_tokens, const float* queries, float* out,
                Worker worker, AttendSpace& space, SpillStage* stage) {
  KVIST_CHECK(num_tokens > 0 && worker.count > 0);
  const int64_t num_kept = NumKeptSplits(layer.kept), num_splits = num_kept + NumSplits(layer.table);
  const auto attend = [&](const LayerView& view, SplitRange range) {
    if (num_tokens <= TokensPerTile(layer.geometry)) {
      AttendBySplits(view, range, first_position, int(num_tokens), queries, out, worker, space);
    } else {
      AttendByQueryTiles(view, range, first_position, num_tokens, queries, out, worker, space);
    }
  };
  if (stage == nullptr) return attend(layer, {0, num_splits, num_splits});
  const auto passes = stage->PassesOf(layer.index);
  for (size_t i = 0; i < passes.size(); ++i) {
    LayerView view = layer;
    view.staged = stage->Await(layer.index, i, worker);
    attend(view, {passes[i].first_split + (i > 0 ? num_kept : 0),
                  num_kept + std::min(passes[i].end_split, num_splits - num_kept), num_splits});
    if (i + 1 < passes.size()) space.barrier.Arrive(worker.count);
  }
}

}  // namespace kvist
