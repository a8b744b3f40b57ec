// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "base/digest.h"

#include <sodium/crypto_generichash_blake2b.h>

namespace kvist {

Digest DigestOf(std::initializer_list<std::span<const std::byte>> parts) {
  crypto_generichash_blake2b_state state;
  Digest digest;
  crypto_generichash_blake2b_init(&state, nullptr, 0, digest.bytes.size());
  for (const std::span<const std::byte> part : parts) {
    crypto_generichash_blake2b_update(&state, reinterpret_cast<const unsigned char*>(part.data()), part.size());
  }
  crypto_generichash_blake2b_final(&state, reinterpret_cast<unsigned char*>(digest.bytes.data()), digest.bytes.size());
  return digest;
}

}  // namespace kvist
