// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "cache/session_manifest.h"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <utility>

#include "tier/bytes.h"

namespace kvist {
namespace {

constexpr std::string_view kManifestMagic = "KVISTMAN";
constexpr uint32_t kManifestVersion = 1;

void WriteText(std::string_view text, ByteWriter& out) {
  out.Number(uint32_t(text.size()));
  out.Text(text);
}

std::string ReadText(ByteReader& in) {
  const auto bytes = in.Bytes(in.Number<uint32_t>());
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

std::vector<std::byte> EncodeManifest(const SessionManifest& manifest) {
  ByteWriter out;
  out.Text(kManifestMagic);
  out.Number(kManifestVersion);
  out.Bytes(manifest.root.bytes);
  for (const std::string* text : {&manifest.model, &manifest.form, &manifest.salt}) WriteText(*text, out);
  out.Number(uint64_t(manifest.tokens.size()));
  out.Bytes(std::as_bytes(std::span(manifest.tokens)));
  out.Number(uint64_t(manifest.keys.size()));
  for (const RecordKey& key : manifest.keys) out.Write(key);
  out.Number(uint64_t(manifest.notes.size()));
  out.Bytes(manifest.notes);
  return std::move(out).Seal();
}

Result<SessionManifest> DecodeManifest(std::span<const std::byte> bytes) {
  const auto corrupt = [] { return Fail(ErrorCode::kCorrupt, "the session's manifest is damaged"); };
  if (!BeginsWith(bytes, kManifestMagic)) return corrupt();
  ByteReader in(bytes.subspan(kManifestMagic.size()));
  const auto version = in.Number<uint32_t>();
  if (version > kManifestVersion) {
    return Fail(ErrorCode::kUnsupported, "the session was saved by a newer kvist (format version " +
                                             std::to_string(version) + ", this one reads up to " +
                                             std::to_string(kManifestVersion) + ")");
  }
  if (!IsSealed(bytes)) return corrupt();
  SessionManifest manifest;
  const auto root = in.Bytes(manifest.root.bytes.size());
  std::ranges::copy(root, manifest.root.bytes.begin());
  for (std::string* text : {&manifest.model, &manifest.form, &manifest.salt}) *text = ReadText(in);
  const auto num_tokens = in.Number<uint64_t>();
  if (num_tokens > bytes.size() / sizeof(Token)) return corrupt();
  const auto tokens = in.Bytes(num_tokens * sizeof(Token));
  manifest.tokens.resize(tokens.size() / sizeof(Token));
  if (!tokens.empty()) std::memcpy(manifest.tokens.data(), tokens.data(), tokens.size());
  const auto num_keys = in.Number<uint64_t>();
  if (num_keys > bytes.size() / sizeof(RecordKey)) return corrupt();
  for (uint64_t i = 0; i < num_keys; ++i) manifest.keys.push_back(in.ReadKey());
  const auto notes = in.Bytes(in.Number<uint64_t>());
  manifest.notes.assign(notes.begin(), notes.end());
  if (in.has_failed()) return corrupt();
  return manifest;
}

}  // namespace kvist
