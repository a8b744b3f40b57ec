// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
// Eviction inside a sequence: which tokens each lane keeps, and the memory they are kept in.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/seconds_since.h"
#include "cache/lane_rows.h"
#include "cache/sequence_state.h"
#include "policy/retention.h"

namespace kvist {
namespace {

using Clock = std::chrono::steady_clock;

// Calls run(i) for i in [0, count), on as many threads as the machine runs at once.
template <class Run>
void ForEachInParallel(size_t count, Run run) {
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) run(i);
  };
  std::vector<std::jthread> others;
  const size_t num_others = std::min<size_t>(count, std::max(1u, std::thread::hardware_concurrency())) - 1;
  for (size_t i = 0; i < num_others; ++i) others.emplace_back(work);
  work();
}

}  // namespace

Status Sequence::State::Observe(RetentionPolicy policy) {
  if (!NeedsObserving(policy)) {
    return Fail(ErrorCode::kInvalidArgument,
                std::string("the retention policy ") + RetentionPolicyName(policy) +
                    (NeedsRepetition(policy) ? " looks at how the text is repeated; use ObserveRepeating"
                                             : " does not look at attention; it needs no observing"));
  }
  if (!observer) observer.emplace(&core->geometry);
  observer->Want(WantedOf(policy));
  return {};
}

Status Sequence::State::ObserveRepeating(int64_t begin, int64_t end) {
  if (begin < 0 || begin >= end || end > num_tokens) {
    return Fail(ErrorCode::kOutOfRange, "cannot repeat tokens " + std::to_string(begin) + " to " + std::to_string(end) +
                                            " of a sequence of " + std::to_string(num_tokens));
  }
  ForgetStep();
  if (!observer) observer.emplace(&core->geometry);
  observer->WantRepeating(begin, end, num_tokens);
  return {};
}

double Sequence::State::MeanHeldTokens() const {
  double num_tokens_held = 0, num_groups = 0;
  for (size_t group = 0; group < tables.size(); ++group) {
    if (core->groups[group].layout.window > 0) continue;
    double of_group = kept[group] ? kept[group]->mean_num_tokens() : 0;
    for (const BlockRef& ref : tables[group].refs()) {
      of_group += double(std::min(ref.end_position(), num_tokens) - std::min(ref.position, num_tokens));
    }
    num_tokens_held += of_group;
    ++num_groups;
  }
  return num_groups > 0 ? num_tokens_held / num_groups : double(num_tokens);
}

double Sequence::State::MeanReadTokens() const {
  const double num_held = MeanHeldTokens();
  if (!pages || !pages->is_selecting()) return num_held;
  double num_tokens_read = 0, num_lanes = 0;
  for (size_t layer = 0; layer < core->geometry.layers.size(); ++layer) {
    const LayerGeometry& geometry = core->geometry.layers[layer];
    if (geometry.window > 0) continue;
    const auto& kept_here = kept[size_t(core->places[layer].group)];
    const double num_read = pages->IsSelecting(int(layer)) ? double(pages->num_read_tokens(int(layer))) +
                                                                 (kept_here ? kept_here->mean_num_tokens() : 0)
                                                           : num_held;
    num_tokens_read += geometry.num_kv_heads * num_read;
    num_lanes += geometry.num_kv_heads;
  }
  return num_tokens_read / num_lanes;
}

size_t Sequence::State::HeldBytes() const {
  size_t bytes = 0;
  for (size_t group = 0; group < tables.size(); ++group) {
    if (kept[group]) bytes += kept[group]->num_bytes();
    for (const BlockRef& ref : tables[group].refs()) {
      if (!ref.spilled) bytes += core->groups[group].LayoutOf(ref.is_sealed).block_bytes;
    }
  }
  return bytes;
}

std::vector<int64_t> Sequence::State::HeldPositions(const LayerView& layer, int kv_head) const {
  std::vector<int64_t> positions;
  if (layer.kept != nullptr) {
    const auto in_lane = layer.kept->positions(layer.layer_in_group, kv_head);
    positions.assign(in_lane.begin(), in_lane.end());
  }
  for (const BlockRef& ref : layer.table.refs()) {
    for (int64_t p = ref.position; p < std::min(ref.end_position(), num_tokens); ++p) positions.push_back(p);
  }
  std::ranges::sort(positions);
  return positions;
}

Status Sequence::State::CheckRetain(const RetentionOptions& options, const TokenScorer& own,
                                    int64_t num_tokens_to_keep) const {
  KVIST_TRY_VOID(options.Validate());
  if (options.policy == RetentionPolicy::kOwn && !own) {
    return Fail(ErrorCode::kInvalidArgument, "a retention policy of one's own needs a function that scores tokens");
  }
  if (num_tokens_to_keep < 1) {
    return Fail(ErrorCode::kInvalidArgument,
                std::to_string(num_tokens_to_keep) + " tokens to keep; it must be 1 or more");
  }
  const WantedEvidence wanted = WantedOf(options.policy);
  if (wanted.any() && (!observer || !observer->Has(wanted, num_tokens))) {
    return Fail(ErrorCode::kFailedPrecondition,
                std::string("the retention policy ") + RetentionPolicyName(options.policy) +
                    (wanted.peak ? " has to see the text repeated; call ObserveRepeating and compute it once more"
                                 : " has to see the attention of the last tokens; call Observe before they are "
                                   "computed"));
  }
  if (std::ranges::any_of(tables, &BlockTable::HasSpilled)) {
    return Fail(ErrorCode::kFailedPrecondition,
                "some of the sequence's tokens are in the disk tier; evict before a sequence is spilled");
  }
  return {};
}

Sequence::State::RetainPlan Sequence::State::PlanRetain(const BlockTable& table, const RetentionOptions& options,
                                                        int64_t num_tokens_to_keep) const {
  int64_t recent = options.recent_tokens;
  RetainPlan plan;
  for (const BlockRef& ref : table.refs()) {
    if (ref.position != plan.begin || ref.position >= options.sink_tokens) break;
    plan.begin = ref.end_position();
  }
  if (options.policy == RetentionPolicy::kWindow) recent = std::max(recent, num_tokens_to_keep - plan.begin);
  if (options.policy == RetentionPolicy::kH2o) recent = std::max(recent, num_tokens_to_keep / 2);
  plan.end = std::max(plan.begin, end_of_kept);
  for (const BlockRef& ref : table.refs()) {
    if (ref.end_position() <= num_tokens - recent) plan.end = std::max(plan.end, ref.end_position());
  }
  int64_t num_in_blocks = 0;
  for (const BlockRef& ref : table.refs()) {
    if (ref.position < plan.begin || ref.position >= plan.end) {
      num_in_blocks += std::min(ref.end_position(), num_tokens) - ref.position;
    }
  }
  plan.num_kept = std::max<int64_t>(0, num_tokens_to_keep - num_in_blocks);
  return plan;
}

std::vector<LaneEvidence> Sequence::State::GatherEvidence(const LayerView& layer, const RetentionOptions& options) {
  std::vector<LaneEvidence> lanes;
  WantedEvidence wanted = WantedOf(options.policy);
  if (options.policy == RetentionPolicy::kOwn && observer) wanted = observer->Known(num_tokens);
  for (int kv_head = 0; kv_head < layer.geometry.num_kv_heads; ++kv_head) {
    LaneParts parts = PartsOf(options.policy);
    const bool is_waiting = observer && observer->IsWaiting(layer, kv_head);
    parts.keys |= is_waiting;
    LaneRows rows = ReadLane(layer, kv_head, num_tokens, parts);
    if (is_waiting) observer->SumWaiting(layer, kv_head, rows);
    LaneEvidence& lane = lanes.emplace_back();
    lane.key_dim = layer.geometry.key_dim;
    lane.value_dim = layer.geometry.value_dim;
    lane.num_query_heads = layer.geometry.num_heads_per_kv_head();
    lane.attention_scale = layer.geometry.score_scale();
    if (wanted.any()) {
      observer->Collect(layer, kv_head, rows, num_tokens, NumObservedQueries(options.policy), wanted, lane);
    }
    lane.positions = std::move(rows.positions);
    lane.keys = std::move(rows.keys);
    lane.values = std::move(rows.values);
  }
  return lanes;
}

Sequence::State::ScoredLanes Sequence::State::ScoreLayer(const LayerView& layer, const RetentionOptions& options,
                                                         const TokenScorer& own, const RetainPlan& plan) {
  auto lanes = GatherEvidence(layer, options);
  ScoredLanes scored{.scores = ScoreTokens(options, layer.index, lanes, own), .positions = {}, .candidates = {}};
  for (LaneEvidence& lane : lanes) {
    const auto index_of = [&](int64_t position) {
      return std::ranges::lower_bound(lane.positions, position) - lane.positions.begin();
    };
    scored.candidates.push_back({index_of(plan.begin), index_of(plan.end)});
    scored.positions.push_back(std::move(lane.positions));
  }
  return scored;
}

Status Sequence::State::CheckScores(std::span<const ScoredLanes> layers) {
  for (const ScoredLanes& layer : layers) {
    for (size_t lane = 0; lane < layer.scores.size(); ++lane) {
      const size_t num_scores = layer.scores[lane].size(), num_tokens = layer.positions[lane].size();
      if (num_scores == num_tokens) continue;
      return Fail(ErrorCode::kInvalidArgument, "a retention policy gave " + std::to_string(num_scores) +
                                                   " scores for a lane of " + std::to_string(num_tokens) +
                                                   " tokens; it has to give one for each");
    }
  }
  return {};
}

// Lanes compete with one another within their layer, or all of them when the shape is global.
KeptTokens::Lanes Sequence::State::ChooseTokens(BudgetShape shape, std::span<const ScoredLanes> layers,
                                                std::span<const int64_t> budgets) {
  KeptTokens::Lanes chosen(layers.size());
  const size_t layers_at_once = shape == BudgetShape::kGlobal ? layers.size() : 1;
  for (size_t first = 0; first < layers.size(); first += layers_at_once) {
    const auto here = layers.subspan(first, layers_at_once);
    std::vector<std::vector<float>> scores;
    std::vector<CandidateRange> candidates;
    for (const ScoredLanes& layer : here) {
      scores.insert(scores.end(), layer.scores.begin(), layer.scores.end());
      candidates.insert(candidates.end(), layer.candidates.begin(), layer.candidates.end());
    }
    const auto selected = SelectTokens(shape, scores, candidates, budgets[first]);
    size_t lane = 0;
    for (size_t i = 0; i < here.size(); ++i) {
      for (const auto& positions : here[i].positions) {
        KeptTokens::Positions& kept_here = chosen[first + i].emplace_back();
        for (const int32_t index : selected[lane]) kept_here.push_back(positions[size_t(index)]);
        ++lane;
      }
    }
  }
  return chosen;
}

void Sequence::State::Compact(const LayerView& layer, const KeptTokens& into) const {
  for (int kv_head = 0; kv_head < layer.geometry.num_kv_heads; ++kv_head) {
    const LaneRows rows = ReadLane(layer, kv_head, num_tokens, {.keys = true, .values = true});
    std::vector<int32_t> chosen;
    for (const int32_t position : into.positions(layer.layer_in_group, kv_head)) {
      chosen.push_back(int32_t(std::ranges::lower_bound(rows.positions, position) - rows.positions.begin()));
    }
    std::vector<std::byte*> tiles;
    for (int i = 0; i < into.num_tiles(layer.layer_in_group, kv_head); ++i) {
      tiles.push_back(into.tile(layer.layer_in_group, kv_head, i));
    }
    WriteTiles(layer, rows, chosen, tiles);
  }
}

Result<std::shared_ptr<KeptTokens>> Sequence::State::RetainGroup(size_t group, const RetentionOptions& options,
                                                                 const TokenScorer& own, const RetainPlan& plan,
                                                                 RetentionReport& report) {
  const BlockLayout& layout = core->groups[group].final_layout();
  const auto began = Clock::now();
  const int64_t num_candidates = kept[group] ? INT64_MAX : plan.end - plan.begin;
  const auto budgets = LayerBudgets(options.shape, int(layout.layers.size()), plan.num_kept, num_candidates);
  std::vector<ScoredLanes> scored(layout.layers.size());
  ForEachInParallel(scored.size(),
                    [&](size_t i) { scored[i] = ScoreLayer(ViewLayer(layout.layers[i].layer), options, own, plan); });
  KVIST_TRY_VOID(CheckScores(scored));
  const KeptTokens::Lanes lanes = ChooseTokens(options.shape, scored, budgets);
  report.scoring_s += SecondsSince(began);
  const auto chosen = Clock::now();
  Result<std::shared_ptr<KeptTokens>> fresh;
  const auto make = [&] {
    fresh = KeptTokens::Make({&core->budget, &core->kept_bytes}, layout, core->geometry.block_tokens, lanes);
    return fresh.has_value();
  };
  if (!make()) core->RetryWithRoom(layout.block_bytes, make);
  if (!fresh) return fresh;
  ForEachInParallel(lanes.size(), [&](size_t i) { Compact(ViewLayer(layout.layers[i].layer), **fresh); });
  report.compacting_s += SecondsSince(chosen);
  return fresh;
}

Result<RetentionReport> Sequence::State::Retain(const RetentionOptions& options, const TokenScorer& own,
                                                int64_t num_tokens_to_keep) {
  ForgetStep();
  KVIST_TRY_VOID(CheckRetain(options, own, num_tokens_to_keep));
  RetentionReport report{.num_tokens = num_tokens};
  const size_t bytes_before = HeldBytes();
  std::vector<std::shared_ptr<KeptTokens>> fresh(tables.size());
  std::vector<RetainPlan> plans(tables.size());
  for (size_t group = 0; group < tables.size(); ++group) {
    if (core->groups[group].layout.window > 0 || options.policy == RetentionPolicy::kFull) continue;
    if (MeanHeldTokens() <= double(num_tokens_to_keep)) continue;
    plans[group] = PlanRetain(tables[group], options, num_tokens_to_keep);
    if (plans[group].begin == plans[group].end && !kept[group]) continue;
    KVIST_TRY(fresh[group], RetainGroup(group, options, own, plans[group], report));
  }
  for (size_t group = 0; group < tables.size(); ++group) {
    if (!fresh[group]) continue;
    tables[group].CutOut(plans[group].begin, plans[group].end);
    kept[group] = std::move(fresh[group]);
    end_of_kept = std::max(end_of_kept, plans[group].end);
    const int64_t end_of_prefix_before = end_of_prefix;
    TruncatePrefix(plans[group].begin);
    end_of_prefix = std::min(end_of_prefix_before, plans[group].begin);
  }
  FollowShrinking();
  report.num_kept_tokens = MeanHeldTokens();
  const size_t bytes_after = HeldBytes();
  report.freed_bytes = bytes_before > bytes_after ? bytes_before - bytes_after : 0;
  return report;
}

}  // namespace kvist
