// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors

#include "model/pretokenize.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <initializer_list>
#include <iterator>
#include <string>

#include "model/utf8.h"

namespace kvist {
namespace {

// Unicode's White_Space, to stand inside a class. PCRE2's own \s counts U+180E too, which isn't any more.
#define SPACE R"(\x09-\x0d\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})"
#define UPPER R"([\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])"
#define LOWER R"([\p{Ll}\p{Lm}\p{Lo}\p{M}])"
#define CONTRACTION R"((?i:'s|'t|'re|'ve|'m|'ll|'d))"
#define SPACES "[" SPACE "]+(?![^" SPACE "])|[" SPACE "]+"

constexpr const char* kGpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^)" SPACE R"(\p{L}\p{N}]+|)" SPACES;
constexpr const char* kOneDigit = R"(\p{N})";
constexpr const char* kLlama3 = CONTRACTION R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^)" SPACE
                                            R"(\p{L}\p{N}]+[\r\n]*|[)" SPACE R"(]*[\r\n]+|)" SPACES;
constexpr const char* kQwen2 =
    CONTRACTION R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^)" SPACE R"(\p{L}\p{N}]+[\r\n]*|[)" SPACE R"(]*[\r\n]+|)" SPACES;
constexpr const char* kGpt4o =
    R"([^\r\n\p{L}\p{N}]?)" UPPER "*" LOWER "+" CONTRACTION R"(?|[^\r\n\p{L}\p{N}]?)" UPPER "+" LOWER "*" CONTRACTION
    R"(?|\p{N}{1,3}| ?[^)" SPACE R"(\p{L}\p{N}]+[\r\n/]*|[)" SPACE R"(]*[\r\n]+|)" SPACES;
constexpr const char* kTekken = R"([^\r\n\p{L}\p{N}]?)" UPPER "*" LOWER R"(+|[^\r\n\p{L}\p{N}]?)" UPPER "+" LOWER
                                R"(*|\p{N}| ?[^)" SPACE R"(\p{L}\p{N}]+[\r\n/]*|[)" SPACE R"(]*[\r\n]+|)" SPACES;
// What files written before the key existed were read with: punctuation apart, then words, then digits in threes.
constexpr const char* kPunctuation = R"([\p{P}$+<=>^~|]+)";
constexpr const char* kDigits = R"(\p{N}+)";
constexpr const char* kThreeDigits = R"([0-9][0-9][0-9])";

#undef SPACE
#undef UPPER
#undef LOWER
#undef CONTRACTION
#undef SPACES

struct PretokenizerFamily {
  std::initializer_list<std::string_view> names;
  std::initializer_list<const char*> patterns;
  bool whole_words_first = false;
  bool adds_bos = false;
};

const PretokenizerFamily kPretokenizers[] = {
    {{"default"}, {kPunctuation, kGpt2, kDigits, kThreeDigits}},
    {{"gpt-2", "gpt2"}, {kGpt2}},
    {{"smollm"}, {kOneDigit, kGpt2}},
    {{"llama-bpe", "llama3", "llama-v3"}, {kLlama3}, /*whole_words_first=*/true, /*adds_bos=*/true},
    {{"qwen2", "deepseek-r1-qwen"}, {kQwen2}},
    {{"dbrx"}, {kLlama3}},
    {{"gpt-4o"}, {kGpt4o}},
    {{"tekken"}, {kTekken}, /*whole_words_first=*/true, /*adds_bos=*/true},
};

const PretokenizerFamily* FindPretokenizer(std::string_view name) {
  const auto family =
      std::find_if(std::begin(kPretokenizers), std::end(kPretokenizers), [&](const PretokenizerFamily& candidate) {
        return std::find(candidate.names.begin(), candidate.names.end(), name) != candidate.names.end();
      });
  return family == std::end(kPretokenizers) ? nullptr : &*family;
}

std::string KnownNames() {
  std::string names;
  for (const PretokenizerFamily& family : kPretokenizers) {
    for (const std::string_view name : family.names) names.append(names.empty() ? "" : ", ").append(name);
  }
  return names;
}

}  // namespace

struct Pretokenizer::Regex {
  explicit Regex(const char* pattern) {
    int error = 0;
    PCRE2_SIZE at = 0;
    code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern), PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &error,
                         &at, nullptr);
    KVIST_CHECK(code != nullptr);                 // the patterns are our own
    pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // where it is refused, matching is slower and right
  }
  ~Regex() { pcre2_code_free(code); }
  Regex(const Regex&) = delete;
  Regex& operator=(const Regex&) = delete;

  // REQUIRES: text is valid UTF-8. False too when the library gave up: the rest is then one word, and nothing is lost.
  bool Match(std::string_view text, size_t from, pcre2_match_data* match) const {
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    int found = pcre2_match(code, subject, text.size(), from, PCRE2_NO_UTF_CHECK, match, nullptr);
    if (found < PCRE2_ERROR_NOMATCH) {  // the compiled code's small stack was full: the interpreter uses the heap
      found = pcre2_match(code, subject, text.size(), from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, match, nullptr);
    }
    return found > 0;
  }

  void Split(std::string_view text, pcre2_match_data* match, std::vector<std::string_view>& words) const {
    size_t done = 0;
    while (done < text.size() && Match(text, done, match)) {
      const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(match);
      if (bounds[0] > done) words.push_back(text.substr(done, bounds[0] - done));
      words.push_back(text.substr(bounds[0], bounds[1] - bounds[0]));
      done = bounds[1];
    }
    if (done < text.size()) words.push_back(text.substr(done));
  }

  pcre2_code* code;
};

Result<Pretokenizer> Pretokenizer::Open(std::string_view name) {
  const PretokenizerFamily* family = FindPretokenizer(name);
  if (family == nullptr) {
    return Fail(ErrorCode::kUnsupported, "the model's pre-tokenizer '" + std::string(name.substr(0, 60)) +
                                             "' (tokenizer.ggml.pre) is not known; known are " + KnownNames() + ".");
  }
  Pretokenizer result;
  for (const char* pattern : family->patterns) result.regexes_.push_back(std::make_shared<const Regex>(pattern));
  result.whole_words_first_ = family->whole_words_first;
  return result;
}

bool Pretokenizer::AddsBos(std::string_view name) {
  const PretokenizerFamily* family = FindPretokenizer(name);
  return family != nullptr && family->adds_bos;
}

std::vector<std::string_view> Pretokenizer::Split(std::string_view text) const {
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> match(pcre2_match_data_create(1, nullptr),
                                                                                  &pcre2_match_data_free);
  KVIST_CHECK(match != nullptr);
  std::vector<std::string_view> words, parts, all;
  while (!text.empty()) {
    const size_t valid = ValidUtf8Prefix(text);
    if (valid == 0) {
      all.push_back(text.substr(0, 1));
      text.remove_prefix(1);
      continue;
    }
    words.assign(1, text.substr(0, valid));
    for (const auto& regex : regexes_) {
      parts.clear();
      for (const std::string_view word : words) regex->Split(word, match.get(), parts);
      words.swap(parts);
    }
    all.insert(all.end(), words.begin(), words.end());
    text.remove_prefix(valid);
  }
  return all;
}

}  // namespace kvist
