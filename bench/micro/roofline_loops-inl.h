// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
//
// The loops of one instruction set. roofline_loops.cc includes this once for each, inside its own namespace and after
// its `Floats` and `Ints` (vectors of one size), `MultiplyAdd` and `DotAdd`. No include guard and no includes, for the
// reason that kernels/attend_tile-inl.h gives.

inline constexpr int kVectorBytes = sizeof(Floats);
static_assert((kRooflineSums + 1) * kVectorBytes <= int(kOperandBytes));

template <class Vector>
Vector LoadVector(const std::byte* p) {
  return *reinterpret_cast<const Vector*>(p);
}

// Each turn reads a cache line of each stream. What is kept for each stream has a constant index, here and below, or
// the compiler would keep it in memory.
template <size_t... kStream>
uint32_t ReadStreams(const std::byte* data, size_t num_bytes, std::index_sequence<kStream...>) {
  constexpr int kLineBytes = 64;
  const size_t stream_bytes = num_bytes / sizeof...(kStream);
  Ints seen[sizeof...(kStream)] = {};
  for (size_t offset = 0; offset < stream_bytes; offset += kLineBytes) {
    for (int i = 0; i < kLineBytes; i += kVectorBytes) {
      ((seen[kStream] |= LoadVector<Ints>(data + kStream * stream_bytes + offset + i)), ...);
    }
  }
  const Ints all_lanes = (seen[kStream] | ...);
  uint32_t all = 0;
  for (int lane = 0; lane < kVectorBytes / 4; ++lane) all |= uint32_t(all_lanes[lane]);
  return all;
}

uint32_t Read(const std::byte* data, size_t num_bytes, int num_streams) {
  switch (num_streams) {
    case 1:
      return ReadStreams(data, num_bytes, std::make_index_sequence<1>());
    case 4:
      return ReadStreams(data, num_bytes, std::make_index_sequence<4>());
    default:
      return ReadStreams(data, num_bytes, std::make_index_sequence<8>());
  }
}

// One factor is in a register and the other in memory, as in a kernel that meets rows with a tile.
template <class Vector, Vector (*kMultiplyAdd)(Vector, Vector, Vector), size_t... kSum>
Vector MultiplyAll(const std::byte* operands, int num_turns, std::index_sequence<kSum...>) {
  Vector sums[kRooflineSums] = {};
  for (int turn = 0; turn < num_turns; ++turn) {
    asm volatile("" ::: "memory");  // the operands might have changed: nothing can be computed once for all turns
    const auto factor = LoadVector<Vector>(operands);
    ((sums[kSum] = kMultiplyAdd(LoadVector<Vector>(operands + (kSum + 1) * kVectorBytes), factor, sums[kSum])), ...);
  }
  return (sums[kSum] + ...);
}

float MultiplyFloats(const std::byte* operands, int num_turns) {
  const Floats sums = MultiplyAll<Floats, MultiplyAdd>(operands, num_turns, std::make_index_sequence<kRooflineSums>());
  float sum = 0;
  for (int lane = 0; lane < kVectorBytes / 4; ++lane) sum += sums[lane];
  return sum;
}

int32_t MultiplyInts(const std::byte* operands, int num_turns) {
  const Ints sums = MultiplyAll<Ints, DotAdd>(operands, num_turns, std::make_index_sequence<kRooflineSums>());
  int32_t sum = 0;
  for (int lane = 0; lane < kVectorBytes / 4; ++lane) sum += sums[lane];
  return sum;
}

constexpr RooflineLoops LoopsOf(const char* isa) {
  constexpr int kByteOps = 2 * kRooflineSums * kVectorBytes;
  return {isa, Read, MultiplyFloats, MultiplyInts, kByteOps / int(sizeof(float)), kByteOps};
}
