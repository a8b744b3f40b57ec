// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
//
// The part of attend_tile-inl.h that meets quantised tiles with whole numbers; included by it.

// What a call of AttendTile prepares once for all its rows. Only what the tile's codecs need is filled in.
struct Prepared {
  const std::byte* k_codes;  // in the order of a dot product: bytes of level + bias, or q8's codes
  const std::byte* v_codes;
  alignas(64) float means[kMaxHeadDim];
  alignas(64) uint8_t k_bytes[kMaxHeadDim * kMaxBlockTokens];
  alignas(64) uint8_t v_bytes[kMaxHeadDim * kMaxBlockTokens];
};

// Bits [kShift, kShift + kBits) of each byte, moved to kTo.
template <int kBits, int kShift, int kTo>
Codes Field(Codes plane) {
  constexpr int kRight = kShift > kTo ? kShift - kTo : 0, kLeft = kTo > kShift ? kTo - kShift : 0;
  return ShiftAnd<kRight, kLeft>(plane, uint8_t(((1 << kBits) - 1) << kTo));
}

// Calls visit<j>(j-th code of each byte) for a plane of kBits bits.
template <int kBits, int kPart, class Visit>
void ForEachPart(Visit visit) {
  visit.template operator()<kPart>();
  if constexpr ((kPart + 1) * kBits < 8) ForEachPart<kBits, kPart + 1>(visit);
}

// Bytes of level + bias from codes of one plane, through the table.
template <int kBits>
void ExpandOnePlane(const std::byte* plane, size_t num_codes, const uint8_t* table, uint8_t* out) {
  const Codes levels = Codes::BroadcastTable(table);
  for (size_t i = 0; i < num_codes; i += 256 / kBits, plane += 32) {
    const Codes packed = Codes::Load(plane);
    ForEachPart<kBits, 0>(
        [&]<int kPart>() { Store(out + i + 32 * kPart, LookUp(levels, Field<kBits, kPart * kBits, 0>(packed))); });
  }
}

// Of two planes, kLow and kHigh bits (kHigh <= kLow); `finish` makes a byte of level + bias of the code.
template <int kLow, int kHigh, class Finish>
void ExpandTwoPlanes(const std::byte* low, const std::byte* high, size_t num_codes, Finish finish, uint8_t* out) {
  for (size_t i = 0; i < num_codes; i += 256 / kHigh, high += 32) {
    const Codes high_packed = Codes::Load(high);
    ForEachPart<kHigh, 0>([&]<int kPart>() {
      constexpr int kLowParts = 8 / kLow;
      const Codes low_packed = Codes::Load(low + 32 * (kPart / kLowParts));
      const Codes code =
          Or(Field<kLow, kPart % kLowParts * kLow, 0>(low_packed), Field<kHigh, kPart * kHigh, kLow>(high_packed));
      Store(out + i + 32 * kPart, finish(code));
    });
    low += 32 * kLow / kHigh;
  }
}

// The tile's codes in the order of a dot product; `bytes` is room for them.
inline const std::byte* ExpandCodes(const QuantisedTile& tile, const std::byte* stored, uint8_t* bytes) {
  const std::byte *codes = stored + tile.codes_offset, *high_codes = stored + tile.high_codes_offset;
  const size_t num_codes = tile.num_codes();
  const auto even_levels = [&](int largest) {
    const Codes offset = Codes::Broadcast(uint8_t(tile.bias - largest));
    return [=](Codes code) { return Add(Add(code, code), offset); };
  };
  const auto look_up = [&](Codes code) { return LookUp(Codes::BroadcastTable(tile.level_bytes), code); };
  switch (tile.codec) {
    case Codec::kQ6:
      ExpandTwoPlanes<4, 2>(codes, high_codes, num_codes, even_levels(63), bytes);
      break;
    case Codec::kQ5:
      ExpandTwoPlanes<4, 1>(codes, high_codes, num_codes, even_levels(31), bytes);
      break;
    case Codec::kQ4:
      ExpandOnePlane<4>(codes, num_codes, tile.level_bytes, bytes);
      break;
    case Codec::kQ3:
      ExpandTwoPlanes<2, 1>(codes, high_codes, num_codes, look_up, bytes);
      break;
    case Codec::kQ2:
      ExpandOnePlane<2>(codes, num_codes, tile.level_bytes, bytes);
      break;
    default:
      return codes;  // q8 is met as it is
  }
  return reinterpret_cast<const std::byte*>(bytes);
}

inline void ExpandMeans(const TileStep& step, float* means) {
  const auto* stored = reinterpret_cast<const int8_t*>(step.k + step.k_layout->mean_offset);
  float scale;
  __builtin_memcpy(&scale, step.k + step.k_layout->mean_scale_offset, sizeof(scale));
  int c = 0;
  for (; c + Vec::kLanes <= step.key_dim; c += Vec::kLanes)
    Store(means + c, Mul(Vec::LoadInt8(stored + c), Vec::Broadcast(scale)));
  for (; c < step.key_dim; ++c) means[c] = scale * float(stored[c]);
}

inline void PrepareQuantised(const TileStep& step, Prepared& prepared) {
  if (IsQuantised(step.k_codec)) {
    ExpandMeans(step, prepared.means);
    prepared.k_codes = ExpandCodes(*step.k_layout, step.k, prepared.k_bytes);
  }
  if (IsQuantised(step.v_codec)) prepared.v_codes = ExpandCodes(*step.v_layout, step.v, prepared.v_bytes);
}

// The next tile of a quantised form is short: it is asked for as early as can be, but not for more lines at once than
// can be under way together.
inline constexpr size_t kPrefetchAtOnceBytes = 40 * 64;
inline void PrefetchBytes(const TileStep& step, size_t begin, size_t end) {
  for (size_t line = begin; line < end; line += 64) PrefetchLine(step.prefetch + line);
}

// The numbers of a dot product: of 4 bytes (q6 and below) or of 2 words (q8).
struct ByteNumbers {
  static constexpr int kGroup = 4;
  using Query = int8_t;
  using Weight = uint8_t;
  static constexpr int kLargestWeight = 255;
  static constexpr bool kValueLevelsNeedSum = false;
  static Bytes Load(const std::byte* p) { return Bytes::Load(p); }
  static Bytes Broadcast(const void* p) { return Bytes::Broadcast4(p); }
  static const Query* Queries(const TileStep& step) { return step.rounded.bytes; }
  // The dot product with levels from that with stored numbers; `sum` is that of the other side.
  static Ints OfKeyLevels(Ints dot, int32_t sum) {
    return Add(dot, Ints::Broadcast(-int32_t(QuantisedTile::kKeyBias) * sum));
  }
  static Ints OfValueLevels(Ints dot, int32_t) { return dot; }
};
struct WordNumbers {
  static constexpr int kGroup = 2;
  using Query = int16_t;
  using Weight = int16_t;
  static constexpr int kLargestWeight = 32767;
  static constexpr bool kValueLevelsNeedSum = true;
  static Words Load(const std::byte* p) { return Words::LoadBytes(p); }
  static Words Broadcast(const void* p) { return Words::Broadcast2(p); }
  static const Query* Queries(const TileStep& step) { return step.rounded.words; }
  static Ints OfKeyLevels(Ints dot, int32_t sum) { return Add(Add(dot, dot), Ints::Broadcast(-255 * sum)); }
  static Ints OfValueLevels(Ints dot, int32_t sum) { return OfKeyLevels(dot, sum); }
};

// What a row's query makes of the means: the same for every slot.
inline float MeanScore(const TileStep& step, int row, const float* means) {
  const float* query = step.queries + size_t(row) * size_t(step.key_dim);
  Vec sums = Vec::Zero();
  int c = 0;
  for (; c + Vec::kLanes <= step.key_dim; c += Vec::kLanes)
    sums = Fma(Vec::Load(query + c), Vec::Load(means + c), sums);
  float sum = ReduceAdd(sums);
  for (; c < step.key_dim; ++c) sum += query[c] * means[c];
  return sum;
}

template <int kRows, int kVecs, class Numbers>
void ScoreWhole(const TileStep& step, int row, const Prepared& prepared, float (*scores)[kMaxBlockTokens]) {
  const auto* queries = Numbers::Queries(step) + size_t(row) * size_t(step.key_dim);
  const auto* key_scales = reinterpret_cast<const uint16_t*>(step.k + step.k_layout->scales_offset);
  float mean_scores[kRows];
  for (int r = 0; r < kRows; ++r) mean_scores[r] = MeanScore(step, row + r, prepared.means);
  for (int slot = 0; slot < step.block_tokens; slot += kVecs * Vec::kLanes) {
    Ints sums[kRows][kVecs];
    for (auto& of_row : sums)
      for (Ints& sum : of_row) sum = Ints::Zero();
    for (int c = 0; c < step.key_dim; c += Numbers::kGroup) {
      const std::byte* k = prepared.k_codes + size_t(c) * size_t(step.block_tokens) + size_t(slot) * Numbers::kGroup;
      decltype(Numbers::Load(k)) keys[kVecs];
      for (int j = 0; j < kVecs; ++j) keys[j] = Numbers::Load(k + j * Vec::kLanes * Numbers::kGroup);
      for (int r = 0; r < kRows; ++r) {
        const auto query = Numbers::Broadcast(queries + size_t(r) * size_t(step.key_dim) + size_t(c));
        for (int j = 0; j < kVecs; ++j) sums[r][j] = Dot(sums[r][j], keys[j], query);
      }
    }
    for (int j = 0; j < kVecs; ++j) {
      const int at = slot + j * Vec::kLanes;
      const Vec key_scale = Vec::LoadBf16(key_scales + at);
      for (int r = 0; r < kRows; ++r) {
        const Vec dot = ToFloat(Numbers::OfKeyLevels(sums[r][j], step.rounded.sums[row + r]));
        const Vec scale = Mul(key_scale, Vec::Broadcast(step.rounded.scales[row + r]));
        Store(scores[r] + at, Fma(dot, scale, Vec::Broadcast(mean_scores[r])));
      }
    }
  }
}

// A row's weights times the scales of the values, as whole numbers: weight * scale = number * unit.
template <class Numbers>
struct RoundedWeights {
  alignas(64) typename Numbers::Weight numbers[kMaxBlockTokens];
  float unit;
  int32_t sum;
};

template <class Numbers>
void RoundWeights(const TileStep& step, float* weights, RoundedWeights<Numbers>& rounded) {
  const auto* value_scales = reinterpret_cast<const uint16_t*>(step.v + step.v_layout->scales_offset);
  Vec largest = Vec::Zero();
  for (int slot = 0; slot < step.block_tokens; slot += Vec::kLanes) {
    const Vec scaled = Mul(Vec::Load(weights + slot), Vec::LoadBf16(value_scales + slot));
    Store(weights + slot, scaled);
    largest = Max(largest, scaled);  // in this order NaN stays
  }
  rounded.unit = ReduceMax(largest) * (1.0f / float(Numbers::kLargestWeight));
  if (rounded.unit < 0x1p-100f) rounded.unit = 0.0f;  // its inverse might be infinite; NaN stays
  const float inverse = rounded.unit != 0.0f ? 1.0f / rounded.unit : 0.0f;
  Ints sum = Ints::Zero();
  for (int slot = 0; slot < step.block_tokens; slot += Vec::kLanes) {
    // NaN becomes 0: the unit, or the row's sum, is NaN, too, and shows.
    const Ints numbers = ToNearest(Max(Mul(Vec::Load(weights + slot), Vec::Broadcast(inverse)), Vec::Zero()));
    StoreNumbers(rounded.numbers + slot, numbers);
    sum = Add(sum, numbers);
  }
  rounded.sum = Numbers::kValueLevelsNeedSum ? ReduceAdd(sum) : 0;
}

template <int kRows, int kVecs, class Numbers>
void AddWholeValues(const TileStep& step, int row, int channel, const std::byte* v,
                    const RoundedWeights<Numbers>* weights) {
  Ints sums[kRows][kVecs];
  for (auto& of_row : sums)
    for (Ints& sum : of_row) sum = Ints::Zero();
  v += size_t(channel) * Numbers::kGroup;
  for (int slot = 0; slot < step.block_tokens; slot += Numbers::kGroup) {
    decltype(Numbers::Load(v)) values[kVecs];
    for (int j = 0; j < kVecs; ++j)
      values[j] = Numbers::Load(v + size_t(slot) * size_t(step.value_dim) + size_t(j * Vec::kLanes * Numbers::kGroup));
    for (int r = 0; r < kRows; ++r) {
      const auto weight = Numbers::Broadcast(weights[r].numbers + slot);
      for (int j = 0; j < kVecs; ++j) sums[r][j] = Dot(sums[r][j], weight, values[j]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    if (weights[r].unit == 0.0f) continue;
    float* output = step.rows.output + size_t(row + r) * size_t(step.value_dim) + channel;
    const Vec unit = Vec::Broadcast(weights[r].unit);
    for (int j = 0; j < kVecs; ++j) {
      const Vec dot = ToFloat(Numbers::OfValueLevels(sums[r][j], weights[r].sum));
      Store(output + j * Vec::kLanes, Fma(dot, unit, Vec::Load(output + j * Vec::kLanes)));
    }
  }
}

// The channels that fill no vector.
template <class Numbers>
void AddLastWholeValues(const TileStep& step, int row, int channel, const std::byte* v,
                        const RoundedWeights<Numbers>& weights) {
  if (weights.unit == 0.0f) return;
  float* output = step.rows.output + size_t(row) * size_t(step.value_dim);
  for (int c = channel; c < step.value_dim; ++c) {
    int32_t dot = 0;
    for (int slot = 0; slot < step.block_tokens; ++slot) {
      const std::byte code = v[step.v_layout->CodeIndex(slot, c)];
      dot += int32_t(weights.numbers[slot]) * (Numbers::kGroup == 2 ? int32_t(code) : int32_t(int8_t(code)));
    }
    if (Numbers::kGroup == 2) dot = 2 * dot - 255 * weights.sum;
    output[c] = float(dot) * weights.unit + output[c];
  }
}

template <int kRows, class Numbers>
void AddAllWholeValues(const TileStep& step, int row, const Prepared& prepared, float (*weights)[kMaxBlockTokens]) {
  RoundedWeights<Numbers> rounded[kRows];
  for (int r = 0; r < kRows; ++r) {
    if (step.first_slot[row + r] < step.end_slot[row + r]) {
      RoundWeights(step, weights[r], rounded[r]);
    } else {
      rounded[r] = {};
    }
  }
  int channel = 0;
  for (; channel + 2 * Vec::kLanes <= step.value_dim; channel += 2 * Vec::kLanes)
    AddWholeValues<kRows, 2>(step, row, channel, prepared.v_codes, rounded);
  for (; channel + Vec::kLanes <= step.value_dim; channel += Vec::kLanes)
    AddWholeValues<kRows, 1>(step, row, channel, prepared.v_codes, rounded);
  if (channel < step.value_dim) {
    for (int r = 0; r < kRows; ++r) AddLastWholeValues(step, row + r, channel, prepared.v_codes, rounded[r]);
  }
}
