// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <string>
#include <vector>

#include "base/digest.h"
#include "kvist/cache.h"
#include "kvist/error.h"
#include "tier/record.h"

namespace kvist {

// What is stored of a session beside its blocks (docs/formats.md).
struct SessionManifest {
  Digest root;        // of what computed it (RootDigest); another one can use the tokens, not the blocks
  std::string model;  // for people
  std::string form;
  std::string salt;
  std::vector<Token> tokens;
  std::vector<RecordKey> keys;  // of the blocks
  std::vector<std::byte> notes;
};

std::vector<std::byte> EncodeManifest(const SessionManifest& manifest);
// kCorrupt for bytes that are no manifest; kUnsupported for one of a newer format version.
Result<SessionManifest> DecodeManifest(std::span<const std::byte> bytes);

}  // namespace kvist
