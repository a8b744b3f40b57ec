// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "kvist/page_selection.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "cache/page_bounds.h"
#include "kvist/cache.h"
#include "policy/page_selection.h"
#include "storage/memory_budget.h"
#include "tests/property/naive_sealing.h"
#include "tier/tier_test_kit.h"

namespace kvist::page_selection_test {
namespace {

using testing::RandomStep;
using testing::RunRest;
using testing::RunStep;
using testing::RunStepOnThreads;
using testing::SealedTile;
using testing::StepData;
using testing::StepOutput;
using testing::Stored;
using testing::Turned;

constexpr Form kF16{Codec::kF16, Codec::kF16}, kF32{Codec::kF32, Codec::kF32}, kQ4{Codec::kQ4, Codec::kF16};
constexpr size_t kBudget = size_t{64} << 20;
constexpr int64_t kPrompt = 700;  // 44 blocks: three splits
constexpr PageSelection kSelection{.num_tokens = 250, .num_dense_layers = 1};

// A dense layer, one with groups of three, one with a window, and one of another shape.
CacheGeometry Geometry() {
  CacheGeometry geometry;
  geometry.block_tokens = 16;
  LayerGeometry layer{.num_query_heads = 6, .num_kv_heads = 2, .key_dim = 64, .value_dim = 72};
  layer.rope.dims = 64;
  geometry.layers.assign(4, layer);
  geometry.layers[2].window = 100;
  geometry.layers[3] = {.num_query_heads = 5, .num_kv_heads = 1, .key_dim = 40, .value_dim = 16};
  geometry.layers[3].rope = {.dims = 20, .pairing = RopePairing::kHalves};
  geometry.layers[3].attention_scale = 0.2f;
  return geometry;
}

std::unique_ptr<Cache> OpenCache(const CacheGeometry& geometry, Form form) {
  CacheOptions options{.form = form, .budget_bytes = kBudget};
  options.sealing.recent_tokens = 80;
  return Cache::Open(geometry, options).value();
}

// The nearest number of 8 bits that is not below.
double UpTo8Bits(double x) {
  if (x == 0) return 0;
  int exponent;
  std::frexp(x, &exponent);
  const double step = std::ldexp(1.0, exponent - 8);
  return std::ceil(x / step) * step;
}

// Quest's rule in double precision, over plain vectors of tokens: of a sequence in blocks, what the last token reads.
class NaivePages {
 public:
  NaivePages(const CacheGeometry& geometry, Form form, const PageSelection& selection)
      : geometry_(geometry), form_(form), selection_(selection), keys_(geometry.layers.size()), values_(keys_) {}

  void Add(const StepData& step) {
    for (size_t t = 0; t < step.tokens.size(); ++t) {
      const bool has_room = !runs_.empty() && !runs_.back().is_moved && runs_.back().first + runs_.back().count < 16;
      if (!has_room) runs_.push_back({});
      ++runs_.back().count;
      rotated_to_.push_back(int64_t(rotated_to_.size()));
    }
    const auto append = [](std::vector<float>& to, const std::vector<float>& from) {
      to.insert(to.end(), from.begin(), from.end());
    };
    for (size_t i = 0; i < keys_.size(); ++i) {
      append(keys_[i], Stored(OpenForm(form_).k, step.keys[i]));
      append(values_[i], Stored(form_.v, step.values[i]));
    }
  }
  void Remove(int64_t begin, int64_t end) {
    for (size_t i = 0; i < keys_.size(); ++i) {
      const LayerGeometry& layer = geometry_.layers[i];
      Cut(keys_[i], begin, end, layer.num_kv_heads * layer.key_dim);
      Cut(values_[i], begin, end, layer.num_kv_heads * layer.value_dim);
    }
    Cut(rotated_to_, begin, end, 1);
    std::vector<Run> kept;
    int64_t position = 0;
    for (const Run& run : runs_) {
      const int64_t before = std::clamp<int64_t>(begin - position, 0, run.count);
      const int64_t after = std::clamp<int64_t>(position + run.count - end, 0, run.count);
      if (before > 0) kept.push_back({run.first, before, run.is_moved});
      if (after > 0) kept.push_back({run.first + run.count - after, after, true});
      position += run.count;
    }
    runs_ = std::move(kept);
  }
  void Truncate(int64_t num_tokens) { Remove(num_tokens, std::ssize(rotated_to_)); }
  // Of the blocks of positions [begin, end) each lane has only what the sequence says.
  void Evict(int64_t begin, int64_t end, const Sequence& sequence) {
    evicted_begin_ = begin;
    evicted_end_ = end;
    for (size_t i = 0; i < keys_.size(); ++i) {
      held_.emplace_back();
      for (int head = 0; head < geometry_.layers[i].num_kv_heads; ++head)
        held_.back().push_back(sequence.HeldPositions(int(i), head));
    }
  }

  // How far an output of the last token is from what it must be.
  double WorstError(const StepData& step, const StepOutput& out) const {
    double worst = 0;
    for (size_t i = 0; i < keys_.size(); ++i) {
      const LayerGeometry& layer = geometry_.layers[i];
      const int group = layer.num_query_heads / layer.num_kv_heads;
      for (int head = 0; head < layer.num_kv_heads; ++head) {
        const float* queries = step.queries[i].data() + head * group * layer.key_dim;
        const std::vector<int64_t> tokens = TokensRead(i, head, queries);
        for (int row = 0; row < group; ++row) {
          const auto wanted = AttendTo(i, head, tokens, queries + row * layer.key_dim);
          for (size_t c = 0; c < wanted.size(); ++c) {
            const double got = out[i][size_t(head * group + row) * wanted.size() + c];
            worst = std::isnan(got) ? INFINITY : std::max(worst, std::fabs(wanted[c] - got));
          }
        }
      }
    }
    return worst;
  }

 private:
  // Consecutive tokens in consecutive slots of a block.
  struct Run {
    int64_t first = 0, count = 0;
    bool is_moved = false;
  };
  struct Page {
    int64_t begin, end;
    double bound;
  };

  template <class Numbers>
  static void Cut(Numbers& numbers, int64_t begin, int64_t end, int64_t per_token) {
    numbers.erase(numbers.begin() + begin * per_token, numbers.begin() + end * per_token);
  }
  int64_t num_tokens() const { return std::ssize(rotated_to_); }

  // Blocks of the q4 form are sealed when the last token no longer sees any of them in its 80 recent ones.
  bool IsSealed(int64_t begin, int64_t end) const {
    return IsQuantised(form_) && end - begin == 16 && begin >= 4 && end <= num_tokens() - 80;
  }

  // [token][key_dim] of a run, as they are stored in it.
  std::vector<float> Keys(size_t layer_index, int head, int64_t begin, int64_t end) const {
    const LayerGeometry& layer = geometry_.layers[layer_index];
    std::vector<float> rows;
    for (int64_t t = begin; t < end; ++t) {
      const auto key = keys_[layer_index].begin() + (t * layer.num_kv_heads + head) * layer.key_dim;
      rows.insert(rows.end(), key, key + layer.key_dim);
    }
    if (!IsSealed(begin, end)) return rows;
    return SealedTile(QuantisedTile::OfKeys(form_.k, layer.key_dim, 16), rows, 0, 16).rows;
  }

  double Scale(const LayerGeometry& layer) const {
    return layer.attention_scale != 0 ? double(layer.attention_scale) : 1 / std::sqrt(double(layer.key_dim));
  }

  double Bound(size_t layer_index, int head, const float* queries, int64_t begin, int64_t end) const {
    const LayerGeometry& layer = geometry_.layers[layer_index];
    const std::vector<float> keys = Keys(layer_index, head, begin, end);
    double largest = -INFINITY;
    for (int row = 0; row < layer.num_query_heads / layer.num_kv_heads; ++row) {
      const auto query =
          Turned(layer.rope, rotated_to_[size_t(begin)] - begin, queries + row * layer.key_dim, layer.key_dim);
      double bound = 0;
      for (int c = 0; c < layer.key_dim; ++c) {
        double most = -INFINITY, least = INFINITY;
        for (size_t at = size_t(c); at < keys.size(); at += size_t(layer.key_dim)) {
          most = std::max(most, double(keys[at]));
          least = std::min(least, double(keys[at]));
        }
        const double q = query[size_t(c)] * Scale(layer);
        bound += std::max(q * UpTo8Bits(most), q * -UpTo8Bits(-least));
      }
      largest = std::max(largest, bound);
    }
    return largest;
  }

  std::vector<int64_t> TokensRead(size_t layer_index, int head, const float* queries) const {
    const LayerGeometry& layer = geometry_.layers[layer_index];
    const int64_t window = layer.window > 0 ? layer.window : num_tokens();
    std::vector<int64_t> tokens;
    const auto read = [&](int64_t begin, int64_t end) {
      for (int64_t t = std::max(begin, num_tokens() - window); t < end; ++t) tokens.push_back(t);
    };
    std::vector<Page> pages;
    int64_t begin = 0, num_all = 0, num_always = 0;
    for (const Run& run : runs_) {
      const int64_t end = begin + run.count;
      const bool is_evicted = !held_.empty() && layer.window == 0 && begin >= evicted_begin_ && end <= evicted_end_;
      // A block is open up to the end of the step that seals it.
      const bool is_final = !IsQuantised(form_) || (IsSealed(begin, end) && end < num_tokens() - 80);
      const bool may_be_left_out = begin >= 4 && end <= num_tokens() - 64 && is_final;
      if (is_evicted) {
        for (const int64_t t : held_[layer_index][size_t(head)])
          if (t >= begin && t < end) tokens.push_back(t);
      } else {
        num_all += run.count;
        if (may_be_left_out && layer.window == 0 && int(layer_index) >= selection_.num_dense_layers) {
          pages.push_back({begin, end, Bound(layer_index, head, queries, begin, end)});
        } else {
          num_always += run.count;
          read(begin, end);
        }
      }
      begin = end;
    }
    std::ranges::sort(pages, std::greater(), [](const Page& page) { return std::pair(page.bound, page.begin); });
    int64_t num_chosen = std::max<int64_t>(0, selection_.num_tokens - num_always) / 16;
    if (num_all <= selection_.num_tokens) num_chosen = std::ssize(pages);
    for (int64_t i = 0; i < std::min(num_chosen, std::ssize(pages)); ++i)
      read(pages[size_t(i)].begin, pages[size_t(i)].end);
    return tokens;
  }

  std::vector<double> AttendTo(size_t layer_index, int head, const std::vector<int64_t>& tokens,
                               const float* query) const {
    const LayerGeometry& layer = geometry_.layers[layer_index];
    std::vector<double> out(size_t(layer.value_dim), 0.0);
    std::vector<std::vector<float>> key_of_token(rotated_to_.size());
    int64_t begin = 0;
    for (const Run& run : runs_) {
      const auto keys = Keys(layer_index, head, begin, begin + run.count);
      for (int64_t i = 0; i < run.count; ++i)
        key_of_token[size_t(begin + i)].assign(keys.begin() + i * layer.key_dim,
                                               keys.begin() + (i + 1) * layer.key_dim);
      begin += run.count;
    }
    double sum = 0;
    for (const int64_t t : tokens) {
      const auto key = Turned(layer.rope, t - rotated_to_[size_t(t)], key_of_token[size_t(t)].data(), layer.key_dim);
      double score = 0;
      for (int c = 0; c < layer.key_dim; ++c) score += key[size_t(c)] * double(query[c]) * Scale(layer);
      const double weight = std::exp(score);
      sum += weight;
      const float* value = values_[layer_index].data() + (t * layer.num_kv_heads + head) * layer.value_dim;
      for (size_t c = 0; c < out.size(); ++c) out[c] += weight * double(value[c]);
    }
    for (double& x : out) x /= sum;
    return out;
  }

  const CacheGeometry& geometry_;
  const Form form_;
  const PageSelection selection_;
  std::vector<std::vector<float>> keys_, values_;  // [layer][token, kv_head, dim] as stored while open
  std::vector<int64_t> rotated_to_;                // [token]
  std::vector<Run> runs_;
  int64_t evicted_begin_ = 0, evicted_end_ = 0;
  std::vector<std::vector<std::vector<int64_t>>> held_;  // [layer][kv head]
};

// A sequence, and what it is measured against.
struct Pair {
  const CacheGeometry& geometry;
  Sequence sequence;
  NaivePages naive;
  std::mt19937& random;

  StepData Prompt(int64_t num_tokens) {
    const StepData step = RandomStep(random, geometry, num_tokens);
    REQUIRE(RunStep(geometry, step, sequence));
    naive.Add(step);
    return step;
  }
  // The worst error of some tokens, one at a time.
  double Decode(int num_tokens) {
    double worst = 0;
    for (int i = 0; i < num_tokens; ++i) {
      const StepData step = RandomStep(random, geometry, 1);
      const auto out = RunStep(geometry, step, sequence);
      REQUIRE(out);
      naive.Add(step);
      worst = std::max(worst, naive.WorstError(step, *out));
    }
    return worst;
  }
};

constexpr double kTolerance = 2e-5;

Pair BeginPair(Cache& cache, const CacheGeometry& geometry, std::mt19937& random, Form form,
               const PageSelection& selection = kSelection) {
  Pair pair{geometry, cache.Begin(), NaivePages(geometry, form, selection), random};
  REQUIRE(pair.sequence.SelectPages(selection));
  return pair;
}

TEST_CASE("page selection: a decode step reads the blocks that Quest's rule names, and no others") {
  const CacheGeometry geometry = Geometry();
  std::mt19937 random(21);
  for (const Form form : {kF32, kF16, Form{Codec::kBf16, Codec::kF32}}) {
    for (const int64_t num_tokens : {1, 100, 250, 600}) {
      CAPTURE(FormName(form));
      CAPTURE(num_tokens);
      const auto cache = OpenCache(geometry, form);
      Pair pair = BeginPair(*cache, geometry, random, form, {.num_tokens = num_tokens, .num_dense_layers = 1});
      pair.Prompt(kPrompt);
      CHECK(pair.Decode(8) < kTolerance);
      const StepData step = RandomStep(random, geometry, 1);
      Sequence dense = pair.sequence.Fork();
      REQUIRE(dense.SelectPages({}));
      CHECK(RunStep(geometry, step, dense).value()[1] != RunStep(geometry, step, pair.sequence).value()[1]);
      // Of 709 tokens: the first block, the five that hold one of the last 64, and what there is room for; in three of
      // the five lanes without a window.
      const int64_t num_read = 16 + 69 + std::max<int64_t>(0, num_tokens - 85) / 16 * 16;
      CHECK(pair.sequence.num_read_tokens() == doctest::Approx((2 * 709 + 3 * num_read) / 5.0));
      CHECK(dense.num_read_tokens() == 709);
    }
  }
}

// Queries are rounded to 8 bits to meet quantised keys, so outputs are only near; a wrong block leads further away.
TEST_CASE("page selection: quantised blocks are chosen by what is stored in them") {
  const CacheGeometry geometry = Geometry();
  std::mt19937 random(22);
  const auto cache = OpenCache(geometry, kQ4);
  Pair pair = BeginPair(*cache, geometry, random, kQ4);
  pair.Prompt(kPrompt);
  CHECK(pair.Decode(40) < 0.06);
}

TEST_CASE("page selection: a sequence that is no longer than what may be read is attended to as without it") {
  const CacheGeometry geometry = Geometry();
  std::mt19937 random(23);
  const StepData text = RandomStep(random, geometry, kPrompt + 10);
  for (const Form form : {kF16, kQ4}) {
    const auto cache = OpenCache(geometry, form);
    Sequence whole = cache->Begin();
    RunRest(geometry, text.Part(geometry, 0, kPrompt), whole);
    const auto decode = [&](const PageSelection& selection, int64_t step_tokens) {
      Sequence sequence = whole.Fork();
      REQUIRE(sequence.SelectPages(selection));
      StepOutput out = RunRest(geometry, text, sequence, step_tokens);
      return std::pair(std::move(out), sequence.is_approximate());
    };
    const auto dense = decode({}, 1);
    CHECK_FALSE(dense.second);
    CHECK(decode({.num_tokens = kPrompt + 10}, 1) == dense);
    CHECK(decode({.num_tokens = 100, .num_dense_layers = 4}, 1) == dense);
    CHECK(decode({.num_tokens = 100}, 5) == decode({}, 5));  // steps of several tokens read everything
    const auto sparse = decode({.num_tokens = kPrompt + 9, .num_dense_layers = 0}, 1);
    CHECK(sparse.second);
    CHECK(sparse.first != dense.first);
    CHECK(cache->stats().page_bounds_bytes == 0);
  }
}

TEST_CASE("page selection: the bits don't depend on the number of threads") {
  const CacheGeometry geometry = Geometry();
  std::mt19937 random(24);
  const StepData text = RandomStep(random, geometry, kPrompt + 30);
  for (const Form form : {kF16, kQ4}) {
    const auto cache = OpenCache(geometry, form);
    Sequence whole = cache->Begin();
    REQUIRE(whole.SelectPages(kSelection));
    RunRest(geometry, text.Part(geometry, 0, kPrompt), whole);
    std::vector<StepOutput> outs;
    for (const int num_threads : {1, 2, 3, 5}) {
      Sequence sequence = whole.Fork();
      outs.push_back(RunRest(geometry, text, sequence, 1, [&](const StepData& part) {
        return RunStepOnThreads(geometry, part, sequence, num_threads).value();
      }));
    }
    for (const StepOutput& out : outs) CHECK(out == outs.front());
  }
}

TEST_CASE("page selection: after truncating, removing and steps that were forgotten, no bound is of other contents") {
  const CacheGeometry geometry = Geometry();
  std::mt19937 random(25);
  for (int round = 0; round < 5; ++round) {
    CAPTURE(round);
    CacheGeometry without_window = geometry;
    without_window.layers[2].window = 0;
    const auto cache = OpenCache(without_window, kF16);
    Pair pair = BeginPair(*cache, without_window, random, kF16);
    pair.Prompt(500);
    for (int i = 0; i < 6; ++i) {
      CHECK(pair.Decode(2) < kTolerance);
      const int64_t n = pair.sequence.num_tokens(), at = int64_t(random() % uint64_t(n - 150)) + 100;
      switch (random() % 4) {
        case 0:
          REQUIRE(pair.sequence.Truncate(at));
          pair.naive.Truncate(at);
          break;
        case 1: {
          const int64_t end = at + std::vector<int64_t>{1, 16, 40}[random() % 3];
          REQUIRE(pair.sequence.Remove(at, end));
          pair.naive.Remove(at, end);
          break;
        }
        case 2: {  // the forgotten step's block is one that comes to lie before others
          const StepData forgotten = RandomStep(random, without_window, 1);
          REQUIRE(pair.sequence.Prepare(forgotten.tokens));
          testing::AppendAll(forgotten, pair.sequence);
          testing::AttendAll(without_window, forgotten, pair.sequence);
          break;
        }
        default:
          REQUIRE(pair.sequence.Remove(at, at + 1));
          pair.naive.Remove(at, at + 1);
          REQUIRE(pair.sequence.Truncate(at));
          pair.naive.Truncate(at);
      }
      pair.Prompt(150 + int64_t(random() % 30));
      CHECK(pair.Decode(2) < kTolerance);
    }
  }
}

TEST_CASE("page selection: forks choose for themselves, with bounds of their own") {
  const CacheGeometry geometry = Geometry();
  std::mt19937 random(26);
  const auto cache = OpenCache(geometry, kF16);
  {
    Pair pair = BeginPair(*cache, geometry, random, kF16);
    pair.Prompt(kPrompt);
    CHECK(pair.Decode(3) < kTolerance);
    const size_t num_bytes = cache->stats().page_bounds_bytes;
    // 44 refs in two tiles; layers 1 and 3, of which the first has two lanes.
    CHECK(num_bytes == 2 * (2 * 2 * 64 * 32 * 2 + 44 * 8) + (2 * 2 * 40 * 32 * 2 + 44 * 8));
    {
      Pair fork{geometry, pair.sequence.Fork(), pair.naive, random};
      CHECK(cache->stats().page_bounds_bytes == 2 * num_bytes);
      CHECK(fork.Decode(40) < kTolerance);
      CHECK(pair.Decode(40) < kTolerance);
    }
    Pair other{geometry, pair.sequence.Fork(), pair.naive, random};
    REQUIRE(other.sequence.Truncate(0));
    other.naive.Truncate(0);
    other.Prompt(400);
    CHECK(other.Decode(2) < kTolerance);
    REQUIRE(other.sequence.SelectPages({}));
    CHECK(cache->stats().page_bounds_bytes == num_bytes + 3 * 8 * 3);  // three blocks more
    REQUIRE(pair.sequence.SelectPages({}));
    CHECK(cache->stats().page_bounds_bytes == 0);
  }
}

TEST_CASE("page selection: what eviction has kept is always read") {
  CacheGeometry geometry = Geometry();
  std::mt19937 random(27);
  const auto cache = OpenCache(geometry, kF32);
  Pair pair = BeginPair(*cache, geometry, random, kF32);
  pair.Prompt(640);
  CHECK(pair.Decode(1) < kTolerance);
  REQUIRE(pair.sequence.Retain({.policy = RetentionPolicy::kKnorm, .recent_tokens = 400}, 450));
  // Of 641 tokens the last 400 stay, in whole blocks, and the first block.
  pair.naive.Evict(16, 240, pair.sequence);
  CHECK(pair.sequence.HeldPositions(1, 0).size() < 460);
  CHECK(pair.Decode(20) < kTolerance);
}

TEST_CASE("page selection: with blocks in the disk tier every step reads everything") {
  const CacheGeometry geometry = testing::SmallGeometry(0);
  std::mt19937 random(28);
  const StepData text = RandomStep(random, geometry, 1000);
  const TestFolder folder;
  CacheOptions options{.form = kF32, .budget_bytes = kBudget};
  options.shares_prefixes = true;
  options.model = {"test", {1, 2}};
  options.tiers = {"disk:" + folder.path() + ",size=64M"};
  const auto large = Cache::Open(geometry, options).value();
  Sequence dense = large->Begin();
  const StepOutput wanted = RunRest(geometry, text, dense, 1);
  options.budget_bytes = size_t{320} << 10;
  const auto small = Cache::Open(geometry, options).value();
  Sequence sequence = small->Begin();
  REQUIRE(sequence.SelectPages({.num_tokens = 1000, .num_dense_layers = 0}));
  int64_t first_sparse = -1;
  const StepOutput got = RunRest(geometry, text, sequence, 1, [&](const StepData& part) {
    if (auto out = RunStep(geometry, part, sequence)) return *std::move(out);
    REQUIRE(sequence.Spill(1));
    if (first_sparse < 0) REQUIRE(sequence.SelectPages({.num_tokens = 100, .num_dense_layers = 0}));
    first_sparse = sequence.num_tokens();
    return RunStep(geometry, part, sequence).value();
  });
  CHECK(sequence.num_spilled_tokens() > 0);
  CHECK(first_sparse > 0);
  CHECK(got == wanted);
}

TEST_CASE("page selection: what was computed by leaving out blocks is no prefix for others") {
  CacheGeometry geometry = Geometry();
  geometry.layers[2].window = 0;
  std::mt19937 random(29);
  const StepData text = RandomStep(random, geometry, kPrompt + 100);
  CacheOptions options{.form = kF16, .budget_bytes = kBudget};
  options.shares_prefixes = true;
  const auto cache = Cache::Open(geometry, options).value();
  Sequence sequence = cache->Begin();
  REQUIRE(sequence.SelectPages(kSelection));
  RunRest(geometry, text.Part(geometry, 0, kPrompt), sequence, kPrompt);
  CHECK_FALSE(sequence.is_approximate());
  RunRest(geometry, text, sequence, 1);
  CHECK(sequence.is_approximate());
  Sequence other = cache->Begin();
  CHECK(other.Reuse(text.tokens).shared_tokens == kPrompt / 16 * 16);
  REQUIRE(sequence.Truncate(kPrompt));
  CHECK_FALSE(sequence.is_approximate());
}

// A lane of one layer outside a sequence, so that its bounds can be looked at.
struct Store {
  Store(const CacheGeometry& geometry_in, Form form)
      : geometry(geometry_in),
        open_layout(LayOutOpenGroups(geometry, std::vector<Form>{form}).front()),
        sealed_layout(LayOutGroups(geometry, form).front()),
        open_pool(BlockPool::Open(open_layout.block_bytes, 64, &budget).value()),
        sealed_pool(BlockPool::Open(sealed_layout.block_bytes, 64, &budget).value()),
        tables{BlockTable(open_pool.get(), IsQuantised(form) ? sealed_pool.get() : nullptr,
                          {.recent_tokens = 64, .sink_tokens = 4}, geometry.block_tokens)} {}

  LayerView View() {
    return {.index = 0,
            .geometry = geometry.layers[0],
            .open = open_layout.layers[0],
            .sealed = sealed_layout.layers[0],
            .table = tables[0],
            .block_tokens = geometry.block_tokens,
            .kernels = *ChooseKernels().value()};
  }
  void Append(const StepData& step) {
    const int64_t position = tables[0].end_position();
    REQUIRE(tables[0].Grow(std::ssize(step.tokens)));
    AppendRows(View(), position, step.keys[0].data(), step.values[0].data(), {});
    tables[0].FinishSealing();
  }
  // [slot][key_dim] of a ref.
  std::vector<float> Keys(const BlockRef& ref, int kv_head) {
    const LayerView view = View();
    const int dim = view.geometry.key_dim;
    std::vector<float> numbers(size_t(view.block_tokens * dim)), rows(numbers);
    if (ref.is_sealed && IsQuantised(view.sealed.form.k)) {
      DecodeTile(view.sealed.k_quantised, view.SealedLane(ref, kv_head), rows.data());
      return rows;
    }
    const BlockLayout::Layer& place = ref.is_sealed ? view.sealed : view.open;
    Decode(place.form.k, ref.is_sealed ? view.SealedLane(ref, kv_head) : view.OpenLane(ref, kv_head), numbers.size(),
           numbers.data());
    for (int slot = 0; slot < view.block_tokens; ++slot)
      for (int c = 0; c < dim; ++c) rows[size_t(slot * dim + c)] = numbers[size_t(c * view.block_tokens + slot)];
    return rows;
  }

  const CacheGeometry& geometry;
  BlockLayout open_layout, sealed_layout;
  MemoryBudget budget{kBudget};
  std::unique_ptr<BlockPool> open_pool, sealed_pool;
  std::vector<BlockTable> tables;
};

TEST_CASE("page bounds: no score of a block is above its bound, and no bound is far above what the channels allow") {
  CacheGeometry geometry = Geometry();
  geometry.layers = {geometry.layers[1]};
  const LayerGeometry& layer = geometry.layers[0];
  const int dim = layer.key_dim;
  std::mt19937 random(30);
  std::atomic<size_t> num_bytes = 0;
  for (const char* name : {"f32", "f16", "bf16", "q8", "q4", "q2", "f16/q4"}) {
    CAPTURE(name);
    Store store(geometry, ParseForm(name).value());
    store.Append(RandomStep(random, geometry, kPrompt));
    store.tables[0].Remove(100, 107);
    store.tables[0].Remove(300, 341);
    PageBounds pages({.num_tokens = 150, .num_dense_layers = 0}, &geometry, {0}, &num_bytes);
    pages.Prepare(store.tables, 1);
    REQUIRE(pages.IsSelecting(0));
    CHECK(pages.candidates(0).size() > 30);
    const StepData step = RandomStep(random, geometry, 1);
    for (int head = 0; head < 2; ++head) {
      const float* queries = step.queries[0].data() + head * 3 * dim;
      pages.Choose(store.View(), head, queries);
      CHECK(std::ranges::count(pages.chosen(0, head), 1) <= 150 / 16);
      for (size_t i = 0; i < pages.candidates(0).size(); ++i) {
        const BlockRef& ref = store.tables[0].refs()[size_t(pages.candidates(0)[i])];
        const std::vector<float> keys = store.Keys(ref, head);
        double largest_score = -INFINITY, largest_possible = -INFINITY, slack = 0;
        for (int row = 0; row < 3; ++row) {
          const auto query = Turned(layer.rope, -ref.delta, queries + row * dim, dim);
          std::vector<double> of_channel(size_t(dim), -INFINITY);
          double magnitude = 0;
          for (int slot = ref.first_slot; slot < ref.first_slot + ref.num_slots; ++slot) {
            double score = 0;
            for (int c = 0; c < dim; ++c) {
              const double product = query[size_t(c)] * keys[size_t(slot * dim + c)] / 8;
              of_channel[size_t(c)] = std::max(of_channel[size_t(c)], product);
              score += product;
            }
            largest_score = std::max(largest_score, score);
          }
          double possible = 0;
          for (const double most : of_channel) {
            possible += most;
            magnitude += std::fabs(most);
          }
          largest_possible = std::max(largest_possible, possible);
          slack = std::max(slack, magnitude);
        }
        const double bound = pages.upper_bounds(0, head)[i];
        CHECK(bound >= largest_score);
        CHECK(bound >= largest_possible - 1e-6 * slack);
        CHECK(bound <= largest_possible + slack / 128);
      }
    }
  }
  CHECK(num_bytes == 0);
}

TEST_CASE("page bounds: a block with a key that is no number is read") {
  CacheGeometry geometry = Geometry();
  geometry.layers = {geometry.layers[1]};
  std::mt19937 random(31);
  std::atomic<size_t> num_bytes = 0;
  for (const float odd : {std::numeric_limits<float>::quiet_NaN(), INFINITY, -INFINITY}) {
    Store store(geometry, kF16);
    StepData text = RandomStep(random, geometry, kPrompt);
    text.keys[0][size_t(300 * 2 * 64 + 5)] = odd;  // head 0
    store.Append(text);
    PageBounds pages({.num_tokens = 120, .num_dense_layers = 0}, &geometry, {0}, &num_bytes);
    pages.Prepare(store.tables, 1);
    const std::vector<float> queries(3 * 64, 0.0f);
    pages.Choose(store.View(), 0, queries.data());
    CHECK(pages.chosen(0, 0)[300 / 16] == 1);
    pages.Choose(store.View(), 1, queries.data());
    CHECK(pages.chosen(0, 1)[300 / 16] == 0);
  }
}

TEST_CASE("page selection: the largest, and of equal ones the later") {
  const std::vector<float> bounds = {3, INFINITY, -2, 3, 3, 0};
  std::vector<uint8_t> chosen(bounds.size(), 7);
  const auto choose = [&](size_t count) {
    ChooseLargest(bounds, count, chosen);
    return std::vector<int>(chosen.begin(), chosen.end());
  };
  CHECK(choose(0) == std::vector{0, 0, 0, 0, 0, 0});
  CHECK(choose(3) == std::vector{0, 1, 0, 1, 1, 0});
  CHECK(choose(5) == std::vector{1, 1, 0, 1, 1, 1});
  CHECK(choose(9) == std::vector{1, 1, 1, 1, 1, 1});
}

TEST_CASE("page selection: numbers that can't be are refused, and change nothing") {
  const CacheGeometry geometry = Geometry();
  const auto cache = OpenCache(geometry, kF16);
  Sequence sequence = cache->Begin();
  CHECK(sequence.SelectPages({.num_tokens = -1}).error().code == ErrorCode::kInvalidArgument);
  CHECK(sequence.SelectPages({.num_tokens = 5, .num_dense_layers = -1}).error().code == ErrorCode::kInvalidArgument);
  CHECK(sequence.SelectPages({.num_tokens = 5}));
}

}  // namespace
}  // namespace kvist::page_selection_test
