// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
//
// The attention kernel's body. Each instruction set's file includes it once, inside its own anonymous namespace and
// after its `Vec` (kLanes floats) and `kRowsAtOnce`. No include guard and no includes: everything it needs must have
// been included before the target pragma, or the standard library's inline functions would be compiled for that set.

inline constexpr int kMaxBlockTokens = 128;
inline constexpr float kEmptySoftmax = -__builtin_inff();

struct NumbersF32 {
  using Number = float;
  static Vec Load(const float* p) { return Vec::Load(p); }
  static float LoadOne(const float* p) { return *p; }
};
struct NumbersF16 {
  using Number = uint16_t;
  static Vec Load(const uint16_t* p) { return Vec::LoadF16(p); }
  static float LoadOne(const uint16_t* p) { return F16ToF32(*p); }
};
struct NumbersBf16 {
  using Number = uint16_t;
  static Vec Load(const uint16_t* p) { return Vec::LoadBf16(p); }
  static float LoadOne(const uint16_t* p) { return Bf16ToF32(*p); }
};

// exp(x) for x <= 0, relative error below 2e-7; exactly 0 below -87.3, so that a masked score weighs nothing.
inline Vec ExpNonPositive(Vec x) {
  const Vec n = Round(Mul(x, Vec::Broadcast(1.44269504f)));  // x = n ln 2 + r, |r| <= ln 2 / 2
  Vec r = Fma(n, Vec::Broadcast(-0.693359375f), x);
  r = Fma(n, Vec::Broadcast(2.12194440e-4f), r);
  Vec p = Vec::Broadcast(1.9875691500e-4f);
  p = Fma(p, r, Vec::Broadcast(1.3981999507e-3f));
  p = Fma(p, r, Vec::Broadcast(8.3334519073e-3f));
  p = Fma(p, r, Vec::Broadcast(4.1665795894e-2f));
  p = Fma(p, r, Vec::Broadcast(1.6666665459e-1f));
  p = Fma(p, r, Vec::Broadcast(5.0000001201e-1f));
  p = Fma(p, Mul(r, r), Add(r, Vec::Broadcast(1.0f)));
  return ZeroWhereBelow(x, -87.3f, Mul(p, PowerOfTwo(n)));
}

// The next tile comes in while this one is computed: its first half while scores are, its second while values are
// added, a little at each of so many turns of the inner loop. Asking for all at once would wait for it. It comes into
// the second-level cache: the first has too few requests open at once to fetch at memory speed.
inline void PrefetchLine(const std::byte* line) {
  __builtin_prefetch(line, /*rw=*/0, /*locality=*/2);
}
inline size_t PrefetchStride(const TileStep& step, int num_turns) {
  return step.prefetch == nullptr ? 0 : step.prefetch_bytes / 2 / size_t(num_turns);
}

// scores[row][slot] = q . k, channel by channel in one accumulator a score.
template <int kRows, int kVecs, class Numbers>
void Score(const TileStep& step, int row, float (*scores)[kMaxBlockTokens]) {
  const auto* k = reinterpret_cast<const typename Numbers::Number*>(step.k);
  const float* q = step.queries + size_t(row) * size_t(step.key_dim);
  const std::byte* prefetch = step.prefetch;
  const size_t prefetch_stride = PrefetchStride(step, step.block_tokens / (kVecs * Vec::kLanes) * step.key_dim);
  for (int slot = 0; slot < step.block_tokens; slot += kVecs * Vec::kLanes) {
    Vec sums[kRows][kVecs];
    for (auto& of_row : sums)
      for (Vec& sum : of_row) sum = Vec::Zero();
    for (int c = 0; c < step.key_dim; ++c) {
      PrefetchLine(prefetch);
      prefetch += prefetch_stride;
      Vec keys[kVecs];
      for (int j = 0; j < kVecs; ++j)
        keys[j] = Numbers::Load(k + size_t(c) * size_t(step.block_tokens) + size_t(slot + j * Vec::kLanes));
      for (int r = 0; r < kRows; ++r) {
        const Vec query = Vec::Broadcast(q[size_t(r) * size_t(step.key_dim) + size_t(c)]);
        for (int j = 0; j < kVecs; ++j) sums[r][j] = Fma(query, keys[j], sums[r][j]);
      }
    }
    for (int r = 0; r < kRows; ++r)
      for (int j = 0; j < kVecs; ++j) Store(scores[r] + slot + j * Vec::kLanes, sums[r][j]);
  }
}

// Turns a row's scores into weights and rescales what it has summed so far when a larger score has come.
inline void Weigh(const TileStep& step, int row, float* scores) {
  const int first = step.first_slot[row], end = step.end_slot[row];
  for (int slot = 0; slot < first; ++slot) scores[slot] = kEmptySoftmax;
  for (int slot = end; slot < step.block_tokens; ++slot) scores[slot] = kEmptySoftmax;

  Vec largest_lanes = Vec::Load(scores);
  for (int slot = Vec::kLanes; slot < step.block_tokens; slot += Vec::kLanes)
    largest_lanes = Max(largest_lanes, Vec::Load(scores + slot));
  const float so_far = step.rows.largest[row];
  if (AnyAbove(largest_lanes, so_far)) {
    const float tile_largest = ReduceMax(largest_lanes);
    const float scale =
        so_far == kEmptySoftmax ? 0.0f : ReduceMax(ExpNonPositive(Vec::Broadcast(so_far - tile_largest)));
    float* output = step.rows.output + size_t(row) * size_t(step.value_dim);
    for (int i = 0; i < step.value_dim; ++i) output[i] *= scale;
    step.rows.sum[row] *= scale;
    step.rows.largest[row] = tile_largest;
  }

  const Vec largest = Vec::Broadcast(step.rows.largest[row]);
  Vec sum = Vec::Zero();
  for (int slot = 0; slot < step.block_tokens; slot += Vec::kLanes) {
    const Vec weights = ExpNonPositive(Sub(Vec::Load(scores + slot), largest));
    Store(scores + slot, weights);
    sum = Add(sum, weights);
  }
  step.rows.sum[row] += ReduceAdd(sum);
}

// output[row] += weights[row][slot] * v[slot] for channels [channel, channel + kVecs * kLanes).
template <int kRows, int kVecs, class Numbers>
void AddValues(const TileStep& step, int row, int channel, int first, int end,
               const float (*weights)[kMaxBlockTokens]) {
  const auto* v = reinterpret_cast<const typename Numbers::Number*>(step.v) + channel;
  float* output = step.rows.output + size_t(row) * size_t(step.value_dim) + channel;
  Vec sums[kRows][kVecs];
  for (int r = 0; r < kRows; ++r)
    for (int j = 0; j < kVecs; ++j)
      sums[r][j] = Vec::Load(output + size_t(r) * size_t(step.value_dim) + size_t(j * Vec::kLanes));
  const size_t prefetch_stride = PrefetchStride(step, step.value_dim / (kVecs * Vec::kLanes) * step.block_tokens);
  const std::byte* prefetch = step.prefetch == nullptr
                                  ? nullptr
                                  : step.prefetch + step.prefetch_bytes / 2 +
                                        size_t(channel / (kVecs * Vec::kLanes) * step.block_tokens) * prefetch_stride;
  for (int slot = first; slot < end; ++slot) {
    PrefetchLine(prefetch);
    prefetch += prefetch_stride;
    Vec values[kVecs];
    for (int j = 0; j < kVecs; ++j)
      values[j] = Numbers::Load(v + size_t(slot) * size_t(step.value_dim) + size_t(j * Vec::kLanes));
    for (int r = 0; r < kRows; ++r) {
      const Vec weight = Vec::Broadcast(weights[r][slot]);
      for (int j = 0; j < kVecs; ++j) sums[r][j] = Fma(weight, values[j], sums[r][j]);
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int j = 0; j < kVecs; ++j)
      Store(output + size_t(r) * size_t(step.value_dim) + size_t(j * Vec::kLanes), sums[r][j]);
}

// The channels that fill no vector.
template <int kRows, class Numbers>
void AddLastValues(const TileStep& step, int row, int channel, int first, int end,
                   const float (*weights)[kMaxBlockTokens]) {
  const auto* v = reinterpret_cast<const typename Numbers::Number*>(step.v);
  for (int r = 0; r < kRows; ++r) {
    float* output = step.rows.output + size_t(row + r) * size_t(step.value_dim);
    for (int c = channel; c < step.value_dim; ++c) {
      float sum = output[c];
      for (int slot = first; slot < end; ++slot)
        sum += weights[r][slot] * Numbers::LoadOne(v + size_t(slot) * size_t(step.value_dim) + size_t(c));
      output[c] = sum;
    }
  }
}

template <int kRows, class Numbers>
void AddAllValues(const TileStep& step, int row, const float (*weights)[kMaxBlockTokens]) {
  const int first = step.first_slot[row], end = step.end_slot[row];
  int channel = 0;
  for (; channel + 2 * Vec::kLanes <= step.value_dim; channel += 2 * Vec::kLanes)
    AddValues<kRows, 2, Numbers>(step, row, channel, first, end, weights);
  for (; channel + Vec::kLanes <= step.value_dim; channel += Vec::kLanes)
    AddValues<kRows, 1, Numbers>(step, row, channel, first, end, weights);
  if (channel < step.value_dim) AddLastValues<kRows, Numbers>(step, row, channel, first, end, weights);
}

#include "kernels/attend_quantised-inl.h"

template <int kRows, int kVecs>
void ScoreTile(const TileStep& step, int row, const Prepared& prepared, float (*scores)[kMaxBlockTokens]) {
  switch (step.k_codec) {
    case Codec::kF32:
      return Score<kRows, kVecs, NumbersF32>(step, row, scores);
    case Codec::kF16:
      return Score<kRows, kVecs, NumbersF16>(step, row, scores);
    case Codec::kBf16:
      return Score<kRows, kVecs, NumbersBf16>(step, row, scores);
    case Codec::kQ8:
      return ScoreWhole<kRows, kVecs, WordNumbers>(step, row, prepared, scores);
    default:
      return ScoreWhole<kRows, kVecs, ByteNumbers>(step, row, prepared, scores);
  }
}

template <int kRows, class Numbers>
void AddFloatValues(const TileStep& step, int row, const float (*weights)[kMaxBlockTokens]) {
  bool all_alike = true;
  for (int r = row; r < row + kRows; ++r)
    all_alike &= step.first_slot[r] == step.first_slot[row] && step.end_slot[r] == step.end_slot[row];
  if (all_alike) return AddAllValues<kRows, Numbers>(step, row, weights);
  // At the edge of a mask each row takes only what it sees: a weight of 0 would not keep out an infinity.
  for (int r = 0; r < kRows; ++r)
    if (step.first_slot[row + r] < step.end_slot[row + r]) AddAllValues<1, Numbers>(step, row + r, weights + r);
}

template <int kRows>
void AddTileValues(const TileStep& step, int row, const Prepared& prepared, float (*weights)[kMaxBlockTokens]) {
  switch (step.v_codec) {
    case Codec::kF32:
      return AddFloatValues<kRows, NumbersF32>(step, row, weights);
    case Codec::kF16:
      return AddFloatValues<kRows, NumbersF16>(step, row, weights);
    case Codec::kBf16:
      return AddFloatValues<kRows, NumbersBf16>(step, row, weights);
    case Codec::kQ8:
      return AddAllWholeValues<kRows, WordNumbers>(step, row, prepared, weights);
    default:
      return AddAllWholeValues<kRows, ByteNumbers>(step, row, prepared, weights);
  }
}

template <int kRows>
void AttendRows(const TileStep& step, int row, const Prepared& prepared) {
  bool any = false;
  for (int r = row; r < row + kRows; ++r) any |= step.first_slot[r] < step.end_slot[r];
  if (!any) return;

  if (step.block_tokens <= 0) __builtin_unreachable();  // else the compiler fears that scores stay empty
  alignas(64) float scores[kRows][kMaxBlockTokens];
  if (step.block_tokens % (2 * Vec::kLanes) == 0) {
    ScoreTile<kRows, 2>(step, row, prepared, scores);
  } else {
    ScoreTile<kRows, 1>(step, row, prepared, scores);
  }
  if (row == 0 && IsQuantised(step.v_codec)) PrefetchBytes(step, kPrefetchAtOnceBytes, step.prefetch_bytes);
  for (int r = 0; r < kRows; ++r)
    if (step.first_slot[row + r] < step.end_slot[row + r]) Weigh(step, row + r, scores[r]);
  AddTileValues<kRows>(step, row, prepared, scores);
}

template <int kRows>
void AttendAllRows(const TileStep& step, int row, const Prepared& prepared) {
  for (; row + kRows <= step.num_rows; row += kRows) AttendRows<kRows>(step, row, prepared);
  if constexpr (kRows > 1) {
    if (row < step.num_rows) AttendAllRows<kRows - 1>(step, row, prepared);
  }
}

void AttendTile(const TileStep& step) {
  Prepared prepared;  // its room is touched only where it is used
  if (IsQuantised(step.k_codec) || IsQuantised(step.v_codec)) {
    PrefetchBytes(step, 0, step.prefetch_bytes < kPrefetchAtOnceBytes ? step.prefetch_bytes : kPrefetchAtOnceBytes);
    PrepareQuantised(step, prepared);
  }
  AttendAllRows<kRowsAtOnce>(step, 0, prepared);
}

#include "kernels/probabilities-inl.h"

template <int kRows>
void ScoreAllRows(const TileStep& step, int row, float* out) {
  alignas(64) float scores[kRows][kMaxBlockTokens];
  for (; row + kRows <= step.num_rows; row += kRows) {
    Score<kRows, 2, NumbersBf16>(step, row, scores);
    for (int r = 0; r < kRows; ++r)
      for (int slot = 0; slot < step.block_tokens; ++slot) out[(row + r) * step.block_tokens + slot] = scores[r][slot];
  }
  if constexpr (kRows > 1) {
    if (row < step.num_rows) ScoreAllRows<kRows - 1>(step, row, out);
  }
}

void ScoreBf16(const TileStep& step, float* scores) {
  ScoreAllRows<kRowsAtOnce>(step, 0, scores);
}

template <class Numbers>
void DecodeNumbers(const std::byte* stored, size_t n, float* out) {
  const auto* numbers = reinterpret_cast<const typename Numbers::Number*>(stored);
  size_t i = 0;
  for (; i + Vec::kLanes <= n; i += Vec::kLanes) Store(out + i, Numbers::Load(numbers + i));
  for (; i < n; ++i) out[i] = Numbers::LoadOne(numbers + i);
}

void DecodeVectors(Codec codec, const std::byte* stored, size_t n, float* out) {
  switch (codec) {
    case Codec::kF32:
      return DecodeNumbers<NumbersF32>(stored, n, out);
    case Codec::kF16:
      return DecodeNumbers<NumbersF16>(stored, n, out);
    case Codec::kBf16:
      return DecodeNumbers<NumbersBf16>(stored, n, out);
    default:
      return Decode(codec, stored, n, out);
  }
}

void EncodeVectors(Codec codec, const float* values, size_t n, std::byte* out) {
  if (codec != Codec::kF16) return Encode(codec, values, n, out);
  auto* numbers = reinterpret_cast<uint16_t*>(out);
  size_t i = 0;
  for (; i + Vec::kLanes <= n; i += Vec::kLanes) StoreF16(numbers + i, Vec::Load(values + i));
  for (; i < n; ++i) numbers[i] = F32ToF16(values[i]);
}
