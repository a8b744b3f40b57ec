// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
//
// What the AVX2 and the AVX-512 kernels have in common. To be included as attend_tile-inl.h is: inside an anonymous
// namespace, after the target pragma, without includes of its own.

inline int32_t LoadInt32(const void* p) {
  int32_t number;
  std::memcpy(&number, p, sizeof(number));
  return number;
}

// 32 bytes, to take codes apart.
struct Codes {
  __m256i r;
  static Codes Load(const std::byte* p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))}; }
  static Codes Broadcast(uint8_t x) { return {_mm256_set1_epi8(char(x))}; }
  static Codes BroadcastTable(const uint8_t* table) {  // [16]
    return {_mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)))};
  }
};
inline void Store(uint8_t* p, Codes a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.r);
}
// ((byte >> kRight) << kLeft) & mask, of which one shift is 0.
template <int kRight, int kLeft>
inline Codes ShiftAnd(Codes a, uint8_t mask) {
  const __m256i shifted = kLeft > 0 ? _mm256_slli_epi16(a.r, kLeft) : _mm256_srli_epi16(a.r, kRight);
  return {_mm256_and_si256(shifted, _mm256_set1_epi8(char(mask)))};
}
inline Codes Or(Codes a, Codes b) {
  return {_mm256_or_si256(a.r, b.r)};
}
inline Codes Add(Codes a, Codes b) {
  return {_mm256_add_epi8(a.r, b.r)};
}
inline Codes LookUp(Codes table, Codes index) {
  return {_mm256_shuffle_epi8(table.r, index.r)};
}
