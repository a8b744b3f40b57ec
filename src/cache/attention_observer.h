// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <bit>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "cache/attend.h"
#include "cache/lane_rows.h"
#include "cache/rope.h"
#include "policy/retention.h"

namespace kvist {

// What a sequence's queries show of attention, noted step by step for the policies that ask. Layers with a window are
// left out. Copied with the sequence.
class AttentionObserver {
 public:
  static constexpr int kNumRecent = 64;  // last queries that are remembered
  // Of every so many positions one query's probabilities are summed: the sums' order is what counts, and reading all
  // keys again for every query would cost as much as attention does. Where a lane holds many tokens it is one of more
  // positions, counted as often, so that it does not cost more the longer the text is.
  static constexpr int64_t kMassStride = 8;
  static constexpr int64_t kMostTokensOfStride = 2048;
  static constexpr int64_t MassStride(int64_t num_held) {
    const auto times = uint64_t(num_held / kMostTokensOfStride);
    return kMassStride * int64_t(2 * std::bit_floor(times) + (times == 0 ? 1 : 0));
  }
  // They wait until so many have come together, or the lane is to lose tokens: keys are read once for all of them.
  static constexpr size_t kMostWaiting = 16;
  // Likewise for queries' moments, which are means: every fourth position's.
  static constexpr int64_t kMomentStride = 4;
  static constexpr int64_t kNumSkippedMoments = 4;  // the first tokens' queries are unlike all others
  static constexpr int64_t kNumRepeatSinks = 4;     // that queries of a repetition see beside what they repeat

  explicit AttentionObserver(const CacheGeometry* geometry);  // which must outlive it

  void Want(const WantedEvidence& wanted);
  // Whether it has noted what a policy wants to know, and last queries of so many tokens.
  bool Has(const WantedEvidence& wanted, int64_t num_tokens) const;
  WantedEvidence Known(int64_t num_tokens) const;  // all that it has
  // From the next step on, at first_position, tokens repeat those of positions [begin, end): notes the largest
  // probability that any of them gives each of those, among the repeated ones, the first ones and the repetition.
  void WantRepeating(int64_t begin, int64_t end, int64_t first_position);
  // Takes over what `other` has noted of repetitions.
  void TakePeaks(const AttentionObserver& other);
  // What is noted refers to positions, and they have changed.
  void Clear();
  // Tokens from there on are gone. What was summed of their queries already stays.
  void Truncate(int64_t num_tokens);

  // Makes room for what a step's tokens will show. A step that is forgotten after its queries were noted has had a part
  // in moments and peaks, in nothing else.
  void Prepare(int64_t first_position, int64_t num_tokens);
  // A step's queries [token, query head, key_dim] of a layer, after their keys were appended. Called by every worker.
  void Note(const LayerView& layer, int64_t first_position, int64_t num_tokens, const float* queries, Worker worker);

  // Whether queries of a lane wait to be summed, which has to be done before it loses tokens: SumWaiting, with its
  // rows.
  bool IsWaiting(const LayerView& layer, int kv_head) const;
  void SumWaiting(const LayerView& layer, int kv_head, const LaneRows& rows);
  // What was noted of a lane, for its tokens in `rows`; of the last num_queries queries before num_tokens. Those of the
  // evidence's members that the policy wants. Different lanes at a time by different threads, if they like.
  void Collect(const LayerView& layer, int kv_head, const LaneRows& rows, int64_t num_tokens, int num_queries,
               const WantedEvidence& wanted, LaneEvidence& evidence) const;

 private:
  struct Repeating {
    int64_t begin, end;      // what is repeated
    int64_t first_position;  // of the repetition
  };
  struct Moments {
    int64_t count = 0;
    std::vector<float> sum;           // [key_dim]
    std::vector<float> products_sum;  // [key_dim][key_dim]
    void Add(std::span<const float> query);
  };
  // Queries of a lane whose probabilities have not been summed yet.
  struct Waiting {
    std::vector<float> queries;      // [query][query head of the lane][key_dim]
    std::vector<int32_t> positions;  // ascending
    std::vector<float> weights;      // [query]
    void Truncate(int64_t end_position, size_t floats_per_query);
  };
  struct Layer {
    std::vector<float> recent_queries;     // [position % kNumRecent][query head][key_dim]
    std::vector<std::vector<float>> mass;  // [kv head][position]
    std::vector<Waiting> waiting;          // [kv head]
    std::vector<std::vector<float>> peak;  // [kv head][position]
    std::vector<Moments> moments;          // [query head]
    size_t first_with_same_rope = 0;       // layer
  };
  void PrepareTurns(int64_t first_position, int64_t end_position);
  static int64_t FirstMoment(int64_t first_position);  // the first position from there on that moments are taken of
  static QueryMoments FutureMoments(const LayerGeometry& geometry, const Turn& turn, const Moments& moments);
  void NoteRecent(const LayerView& layer, int kv_head, int64_t first_position, int64_t num_tokens,
                  const float* queries);
  void NoteMass(const LayerView& layer, int kv_head, int64_t first_position, int64_t num_tokens, const float* queries);
  void NotePeak(const LayerView& layer, int kv_head, int64_t first_position, int64_t num_tokens, const float* queries);
  void NoteMoments(const LayerView& layer, int kv_head, int64_t first_position, int64_t num_tokens,
                   const float* queries);
  // each: also every query's by itself.
  void CollectRecent(const LayerView& layer, int kv_head, const LaneRows& rows, std::span<const int64_t> positions,
                     bool each, LaneEvidence& evidence) const;
  std::vector<int64_t> RecentPositions(int64_t num_tokens, int num_queries) const;  // that were noted, ascending

  const CacheGeometry* geometry_;
  WantedEvidence wanted_;  // from the next step on
  WantedEvidence seen_;    // by the step that was prepared last
  std::vector<Layer> layers_;
  std::optional<Repeating> repeating_;
  std::vector<int64_t> recent_positions_;  // [position % kNumRecent]; -1: none
  // Of the step's positions that moments are taken of, the turns back to position 0: [layer][position], of each layer
  // that is the first with its rope.
  std::vector<std::vector<Turn>> turns_back_;
};

}  // namespace kvist
