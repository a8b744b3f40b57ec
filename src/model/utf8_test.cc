// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors

#include "model/utf8.h"

#include <doctest/doctest.h>

#include <string>

namespace kvist::utf8_test {
namespace {

std::string Encoded(uint32_t value) {
  if (value < 0x80) return {static_cast<char>(value)};
  if (value < 0x800) return {static_cast<char>(0xC0 | value >> 6), static_cast<char>(0x80 | (value & 63))};
  if (value < 0x10000) {
    return {static_cast<char>(0xE0 | value >> 12), static_cast<char>(0x80 | (value >> 6 & 63)),
            static_cast<char>(0x80 | (value & 63))};
  }
  return {static_cast<char>(0xF0 | value >> 18), static_cast<char>(0x80 | (value >> 12 & 63)),
          static_cast<char>(0x80 | (value >> 6 & 63)), static_cast<char>(0x80 | (value & 63))};
}

TEST_CASE("utf8: every character is one, and each of its beginnings is incomplete") {
  for (uint32_t value = 0; value <= 0x10FFFF; value += value < 0x3000 ? 1 : 37) {
    const std::string bytes = Encoded(value);
    const bool surrogate = value >= 0xD800 && value <= 0xDFFF;
    const Utf8Step step = NextUtf8(bytes);
    if (surrogate) {
      REQUIRE(step.kind == Utf8Step::Kind::kInvalid);
      continue;
    }
    REQUIRE(step.kind == Utf8Step::Kind::kCharacter);
    REQUIRE(step.num_bytes == bytes.size());
    for (size_t part = 1; part < bytes.size(); ++part) {
      REQUIRE(NextUtf8(bytes.substr(0, part)).kind == Utf8Step::Kind::kIncomplete);
    }
  }
}

TEST_CASE("utf8: what can't be a character is invalid") {
  for (const char* bytes : {"\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF",
                            "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "\xE4\x41", "\xE4\xB8\x41"}) {
    CAPTURE(bytes);
    CHECK(NextUtf8(bytes).kind == Utf8Step::Kind::kInvalid);
  }
  CHECK(NextUtf8("\xE4\xB8\x41").num_bytes == 2);
  CHECK(ValidUtf8Prefix("ab\xE4\xB8\x80\xE4\xB8") == 5);
}

}  // namespace
}  // namespace kvist::utf8_test
