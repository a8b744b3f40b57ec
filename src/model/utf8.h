// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstddef>
#include <string_view>

namespace kvist {

// The first character of some bytes: how many bytes it takes and whether they are one.
struct Utf8Step {
  enum class Kind { kCharacter, kInvalid, kIncomplete };
  Kind kind;
  size_t num_bytes;  // kInvalid: the longest part that could have begun a character; kIncomplete: all that is left
};

// REQUIRES: text is not empty. Overlong forms, surrogates and values past U+10FFFF are invalid (Unicode, table 3-7).
Utf8Step NextUtf8(std::string_view text);

// Bytes at the start of `text` that are whole characters.
size_t ValidUtf8Prefix(std::string_view text);

}  // namespace kvist
