// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "cache/prefixes.h"

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>

#include "codec/tile.h"

namespace kvist {
namespace {

// Numbers as their bytes, one after another; each part has a length of its own, so that no two lists look alike.
class Bytes {
 public:
  template <class... Numbers>
  requires(std::is_arithmetic_v<Numbers>&&...) void Add(Numbers... numbers) {
    (AddBytes(std::as_bytes(std::span(&numbers, 1))), ...);
  }
  void AddBytes(std::span<const std::byte> bytes) { bytes_.insert(bytes_.end(), bytes.begin(), bytes.end()); }
  std::span<const std::byte> span() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

void AddLayer(const LayerGeometry& layer, Form form, Bytes& bytes) {
  bytes.Add(layer.num_query_heads, layer.num_kv_heads, layer.key_dim, layer.value_dim, layer.window,
            layer.attention_scale);
  bytes.Add(int(form.k), int(form.v));
  const RopeSpec& rope = layer.rope;
  bytes.Add(rope.dims, rope.base, rope.position_scale, int(rope.pairing), rope.frequency_factors.size());
  for (const float factor : rope.frequency_factors) bytes.Add(factor);
}

}  // namespace

Digest RootDigest(const CacheGeometry& geometry, const CacheOptions& options, std::string_view salt) {
  constexpr std::string_view kWhat = "kvist keys and values, version 1";
  Bytes bytes;
  bytes.Add(options.model.fingerprint[0], options.model.fingerprint[1], geometry.block_tokens, geometry.layers.size());
  for (size_t i = 0; i < geometry.layers.size(); ++i) {
    AddLayer(geometry.layers[i], options.layer_forms.empty() ? options.form : options.layer_forms[i], bytes);
  }
  // Sealing decides what later tokens were computed from, where anything is sealed.
  const bool is_quantised = options.layer_forms.empty()
                                ? IsQuantised(options.form)
                                : std::ranges::any_of(options.layer_forms, [](Form f) { return IsQuantised(f); });
  if (is_quantised) {
    bytes.Add(options.sealing.recent_tokens, options.sealing.sink_tokens, options.sealing.begin_position);
  }
  const uint64_t num_bytes = bytes.span().size();
  return DigestOf({std::as_bytes(std::span(kWhat)), std::as_bytes(std::span(&num_bytes, 1)), bytes.span(),
                   std::as_bytes(std::span(salt))});
}

std::vector<std::byte> ScrubbedBlock(const CacheGeometry& geometry, const BlockLayout& layout,
                                     std::span<const std::byte> block, int num_slots) {
  std::vector<std::byte> scrubbed(block.size());
  const auto block_tokens = size_t(geometry.block_tokens), used = size_t(num_slots);
  auto copy = [&](size_t offset, size_t bytes) { std::memcpy(scrubbed.data() + offset, block.data() + offset, bytes); };
  for (const BlockLayout::Layer& place : layout.layers) {
    const LayerGeometry& layer = geometry.layers[size_t(place.layer)];
    const size_t key_bytes = CodecBytes(place.form.k, 1), value_bytes = CodecBytes(place.form.v, 1);
    for (int head = 0; head < layer.num_kv_heads; ++head) {
      for (size_t channel = 0; channel < size_t(layer.key_dim); ++channel) {
        copy(place.k_offset_bytes(head) + channel * block_tokens * key_bytes, used * key_bytes);
      }
      copy(place.v_offset_bytes(head), used * size_t(layer.value_dim) * value_bytes);
    }
  }
  return scrubbed;
}

}  // namespace kvist
