// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors

#include "model/pretokenize.h"

#include <doctest/doctest.h>

#include <random>
#include <string>
#include <vector>

namespace kvist::pretokenize_test {
namespace {

using Words = std::vector<std::string_view>;

Words Split(std::string_view family, std::string_view text) {
  return Pretokenizer::Open(family).value().Split(text);
}

TEST_CASE("pretokenize: contractions, words, numbers and spaces as each family cuts them") {
  CHECK(Split("gpt-2", "I'm 12345  ok!\n\n x") == Words{"I", "'m", " 12345", " ", " ok", "!", "\n\n", " x"});
  CHECK(Split("smollm", "I'm 123  ok") == Words{"I", "'m", " ", "1", "2", "3", " ", " ok"});
  CHECK(Split("llama-bpe", "I'M 12345  ok!\n\n x") == Words{"I", "'M", " ", "123", "45", " ", " ok", "!\n\n", " x"});
  CHECK(Split("qwen2", "we'LL 123\n x") == Words{"we", "'LL", " ", "1", "2", "3", "\n", " x"});
  CHECK(Split("gpt-4o", "HelloWorld's 1234/\n") == Words{"Hello", "World's", " ", "123", "4", "/\n"});
  CHECK(Split("tekken", "HelloWORLDs 12") == Words{"Hello", "WORLDs", " ", "1", "2"});
  CHECK(Split("default", "a+b 12345") == Words{"a", "+", "b", " ", "123", "45"});
  CHECK(Split("dbrx", "x(1234)") == Words{"x", "(", "123", "4", ")"});
}

TEST_CASE("pretokenize: Unicode's own classes") {
  CHECK(Split("gpt-2", "né Ωδ的語") == Words{"né", " Ωδ的語"});
  CHECK(Split("llama-bpe", "a\u00a0\u3000b") == Words{"a", "\u00a0", "\u3000b"});
  CHECK(Split("gpt-2", "\u0661\u0662\u00bd\u2167") == Words{"\u0661\u0662\u00bd\u2167"});  // digits, fraction, numeral
  CHECK(Split("gpt-2", "a\u0085b") == Words{"a", "\u0085", "b"});                          // next line: white space
  CHECK(Split("gpt-2", "a\u180e!") == Words{"a", "\u180e!"});  // Mongolian vowel separator: not white space any more
}

TEST_CASE("pretokenize: the words are the text, whatever its bytes") {
  const uint32_t seed = std::random_device()();
  CAPTURE(seed);
  std::mt19937 random(seed);
  for (const char* family : {"default", "gpt-2", "smollm", "llama-bpe", "qwen2", "dbrx", "gpt-4o", "tekken"}) {
    const Pretokenizer pretokenizer = Pretokenizer::Open(family).value();
    for (int round = 0; round < 100; ++round) {
      std::string text(random() % 100, ' ');
      for (char& c : text) c = static_cast<char>(random() % 3 == 0 ? random() : " \n'stA1.\xE4\xB8\x80"[random() % 11]);
      std::string joined;
      for (const std::string_view word : pretokenizer.Split(text)) {
        CHECK_FALSE(word.empty());
        joined += word;
      }
      CHECK(joined == text);
    }
    CHECK(pretokenizer.Split("").empty());
    const std::string one_word(100000, 'x');
    std::string joined;
    for (const std::string_view word : pretokenizer.Split(one_word)) joined += word;
    CHECK(joined == one_word);
  }
}

TEST_CASE("pretokenize: an unknown family is named") {
  const auto result = Pretokenizer::Open("martian");
  REQUIRE_FALSE(result.has_value());
  CHECK(result.error().code == ErrorCode::kUnsupported);
  CHECK(result.error().message.contains("martian"));
  CHECK(result.error().message.contains("llama-bpe"));
}

}  // namespace
}  // namespace kvist::pretokenize_test
