// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
// A cache of one layer: three tokens go in, a query comes back with their values, a fork shares their block.
// Build it against an installed library:  cmake -S examples -B build/examples -DCMAKE_PREFIX_PATH=<prefix>
#include <cstdio>
#include <vector>

#include "kvist/cache.h"

static kvist::Status Run() {
  kvist::CacheGeometry geometry;
  geometry.layers = {{.num_query_heads = 2, .num_kv_heads = 1, .key_dim = 8, .value_dim = 8}};
  KVIST_TRY(auto cache, kvist::Cache::Open(geometry, {.form = {kvist::Codec::kF16, kvist::Codec::kF16}}));

  kvist::Sequence sequence = cache->Begin();
  const std::vector<kvist::Token> tokens = {10, 11, 12};
  const std::vector<float> keys(3 * 8, 0.0f);  // [token, kv_head, key_dim]: all alike, so all tokens weigh the same
  std::vector<float> values(3 * 8);            // [token, kv_head, value_dim]: 1, 2 and 3
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(1 + i / 8);

  KVIST_TRY_VOID(sequence.Prepare(tokens));  // makes room; may fail, then nothing has changed
  sequence.Append(0, keys.data(), values.data());
  const std::vector<float> queries(3 * 2 * 8, 1.0f);  // [token, query_head, key_dim]
  std::vector<float> out(3 * 2 * 8);                  // [token, query_head, value_dim]
  sequence.Attend(0, queries.data(), out.data());
  KVIST_TRY_VOID(sequence.Commit());  // fails where a layer was left out

  const kvist::Sequence fork = sequence.Fork();  // shares every block
  std::printf("token 0 sees %.1f, token 1 sees %.1f, token 2 sees %.1f\n", out[0], out[16], out[32]);
  std::printf("%zu sequences in %zu block\n", cache->stats().num_sequences, cache->stats().num_live_blocks);
  return {};
}

int main() {
  const kvist::Status status = Run();
  if (!status) std::fprintf(stderr, "error: %s\n", status.error().message.c_str());
  return status ? 0 : 1;
}
