// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "policy/chat_features.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <string>
#include <vector>

#include "policy/chat_terms.h"

namespace kvist {
namespace {

using enum ChatFeature;

constexpr size_t kNumTurnsSeen = 10;
constexpr double kFading = 0.75;         // weight of a turn by the user's next one
constexpr double kFadingOfLength = 0.9;  // a text that was pasted is talked of for longer
constexpr double kModelWeight = 0.4;     // of the model's turns: it follows the user
constexpr size_t kEndBytes = 350;        // at each end of a long turn, where wishes are looked for
constexpr double kShortTokens = 30;
constexpr double kLongTokens = 60;
constexpr double kSymbolsPerCount = 50;  // makes a line of code about 4 counts
constexpr double kMostCounted = 4;       // of any feature, so that none outweighs all others

bool IsLetter(char c) {
  return IsAscii(c) && std::isalpha(static_cast<unsigned char>(c));
}
bool IsUpper(char c) {
  return c >= 'A' && c <= 'Z';
}
bool IsLower(char c) {
  return c >= 'a' && c <= 'z';
}

// Bytes that begin a character of three or more bytes: Chinese, Japanese, Korean, and their punctuation.
bool BeginsWideCharacter(char c) {
  return static_cast<unsigned char>(c) >= 0xE3;
}

double Damped(double count) {
  return std::min(kMostCounted, std::log2(1 + count));
}

std::vector<std::string_view> Lines(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    lines.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

std::string_view Trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r") + 1 - begin);
}

int CountSubstrings(std::string_view text, std::string_view part) {
  int count = 0;
  for (size_t at = text.find(part); at != std::string_view::npos; at = text.find(part, at + part.size())) ++count;
  return count;
}

template <size_t kCount>
int CountAny(std::string_view text, const std::string_view (&parts)[kCount]) {
  int count = 0;
  for (const std::string_view part : parts) count += CountSubstrings(text, part);
  return count;
}

bool LooksLikeCode(std::string_view line) {
  constexpr std::string_view kBeginnings[] = {
      "def ",   "import ",  "#include", "#define", "return ", "if (",    "for (",   "while (", "} ",
      "else {", "public ",  "private ", "const ",  "let ",    "var ",    "fn ",     "func ",   "function ",
      "SELECT", "INSERT ",  "DELETE ",  "UPDATE ", "$ ",      "int ",    "void ",   "auto ",   "std::",
      "print(", "printf(",  "@",        "<div",    "</",      "\\begin", "\\end",   "- uses:", "- run:",
      "elif ",  "template", "package ", "using ",  "try:",    "try {",   "except ", "//",      "/*",
  };
  constexpr std::string_view kEndings[] = {";", "{", "}", "});", "})", "):", "->", "=>", "\\\\", "/>", "],"};
  constexpr std::string_view kInside[] = {
      " = ", " == ", " != ", " => ", "->", "::", " && ", " || ", "();", " := ", "++"};
  line = Trimmed(line);
  if (line.size() < 2) return line == "{" || line == "}";
  const auto begins = [&](std::string_view part) { return line.starts_with(part); };
  const auto ends = [&](std::string_view part) { return line.ends_with(part); };
  const auto holds = [&](std::string_view part) { return line.find(part) != std::string_view::npos; };
  const bool has_end = std::ranges::any_of(kEndings, ends);
  return has_end || std::ranges::any_of(kInside, holds) ||
         (std::ranges::any_of(kBeginnings, begins) && !line.ends_with('.') &&
          line.find_first_of("({=<\"[:") != line.npos);
}

// snake_case, camelCase, call(), a.b(), a::b, --flag, `quoted`.
bool IsIdentifier(std::string_view word) {
  if (word.size() < 3) return false;
  if (word.front() == '`' || word.starts_with("--") || word.find("::") != word.npos) return true;
  for (size_t i = 1; i + 1 < word.size(); ++i) {
    if (word[i] == '_' && IsLetter(word[i - 1]) && IsAscii(word[i + 1]) && word[i + 1] != ' ') return true;
    if (IsLower(word[i - 1]) && IsUpper(word[i]) && i + 2 < word.size()) return true;
    if (word[i] == '(' && (IsLetter(word[i - 1]) || word[i - 1] == '_') && word.find(')') == i + 1) return true;
    if (word[i] == '.' && IsLetter(word[i - 1]) && IsLower(word[i + 1]) && i > 1 && i + 3 < word.size()) return true;
  }
  return false;
}

// Words end where ASCII does: Chinese writes no spaces around them.
int CountIdentifiers(std::string_view text) {
  int count = 0;
  size_t begin = 0;
  for (size_t i = 0; i <= text.size(); ++i) {
    if (i < text.size() && IsAscii(text[i]) && !std::isspace(static_cast<unsigned char>(text[i]))) continue;
    count += IsIdentifier(text.substr(begin, i - begin));
    begin = i + 1;
  }
  return count;
}

double CjkShare(std::string_view text) {
  const auto wide = std::ranges::count_if(text, BeginsWideCharacter);
  return double(wide) / std::max(1.0, double(wide) + double(std::ranges::count_if(text, IsLetter)) / 4);
}

// "props" and "DELETE" in a Chinese sentence: the trade's words stay English.
int CountEnglishInChinese(std::string_view text) {
  constexpr double kMostlyChinese = 0.3;
  constexpr size_t kFewestLetters = 3;
  if (CjkShare(text) < kMostlyChinese) return 0;
  int count = 0;
  size_t num_letters = 0;
  for (size_t i = 0; i <= text.size(); ++i) {
    if (i < text.size() && IsLetter(text[i])) {
      ++num_letters;
      continue;
    }
    count += num_letters >= kFewestLetters;
    num_letters = 0;
  }
  return count;
}

int CountErrorShapes(std::string_view lower_text) {
  constexpr std::string_view kShapes[] = {
      "error:",
      "error[",
      "errors:",
      "exception",
      "traceback",
      "undefined reference",
      "\tat ",
      "errno",
      "fatal",
      "nullpointer",
      "warning:",
      "no such file or",
      "exit code",
      "out of memory",
      "segfault",
      "segmentation fault",
      "no matching",
      "failed to ",
      "not defined",
      "is not a function",
      "connection refused",
      "cannot find symbol",
      "err_",
      "core dumped",
      "报错",
      "错误信息",
      "编译错误",
      "抛异常",
      "闪退",
  };
  return CountAny(lower_text, kShapes);
}

double CodeSymbolDensity(std::string_view text) {
  constexpr std::string_view kSymbols = "{}[]<>=;|&_\\$#+`/";
  const auto count = std::ranges::count_if(text, [&](char c) { return kSymbols.find(c) != kSymbols.npos; });
  return double(count) / (double(text.size()) + 40);  // a lone sign in a few words is no density
}

// Stage directions and heads of scenes: "*sighs*", （放下酒杯）, "INT. KITCHEN".
int CountRolePlay(std::string_view text) {
  int count = CountSubstrings(text, "INT. ") + CountSubstrings(text, "EXT. ") + CountSubstrings(text, "【内景") +
              CountSubstrings(text, "场景：");
  for (std::string_view line : Lines(text)) {
    line = Trimmed(line);
    const bool has_stars = line.size() > 3 && line[0] == '*' && IsLetter(line[1]) && line.find('*', 2) != line.npos;
    count += has_stars || line.starts_with("（") || line.starts_with("(");
  }
  return count;
}

// Without what stands between ``` and ```.
std::string WithoutFences(std::string_view text) {
  constexpr std::string_view kFence = "```";
  std::string rest;
  while (true) {
    const size_t begin = text.find(kFence);
    rest += text.substr(0, begin);
    if (begin == text.npos) return rest;
    const size_t end = text.find(kFence, begin + kFence.size());
    if (end == text.npos) return rest;
    text.remove_prefix(end + kFence.size());
  }
}

// What is said of a turn's text rather than the text itself, in lower case.
std::string Wish(std::string_view text) {
  const std::string lower = LowerAscii(WithoutFences(text));
  if (lower.size() <= 2 * kEndBytes) return lower;
  return lower.substr(0, kEndBytes) + "\n" + lower.substr(lower.size() - kEndBytes);
}

bool IsQuestion(std::string_view text) {
  constexpr std::string_view kSigns[] = {"?", "？", "吗", "呢", "为什么", "怎么"};
  return CountAny(text, kSigns) > 0;
}

class FeatureSums {
 public:
  explicit FeatureSums(const ChatEvidence& evidence)
      : turns_(evidence.recent_turns.last(std::min(evidence.recent_turns.size(), kNumTurnsSeen))) {
    int later = 0;  // turns of the user
    for (size_t i = turns_.size(); i-- > 0;) {
      AddTurn(turns_[i], later);
      later += turns_[i].is_user;
    }
    AddLengths(evidence.num_tokens);
    if (const ChatTurn* const last = LastOfUser()) AddLast(last->text);
  }

  std::array<double, kNumChatFeatures> values() const { return values_; }

 private:
  double& Of(ChatFeature feature) { return values_[size_t(feature)]; }

  void AddTurn(const ChatTurn& turn, int later) {
    const double weight = std::pow(kFading, later) * (turn.is_user ? 1 : kModelWeight);
    const int num_code_lines = int(std::ranges::count_if(Lines(turn.text), LooksLikeCode));
    Add(kFencedCode, weight, CountSubstrings(turn.text, "```"));
    Add(kCodeLines, weight, num_code_lines);
    Add(kIdentifiers, weight, CountIdentifiers(turn.text));
    Add(kEnglishInChinese, weight, CountEnglishInChinese(turn.text));
    Add(kErrorShapes, weight, CountErrorShapes(LowerAscii(turn.text)));
    Add(kCodeSymbols, weight, kSymbolsPerCount * CodeSymbolDensity(turn.text));
    Add(kRolePlay, weight, CountRolePlay(turn.text));
    AddWish(Wish(turn.text), weight);
    AddLength(turn, later, num_code_lines);
  }

  void AddWish(const std::string& wish, double weight) {
    const int code_requests =
        CountRequests(wish, kMakingVerbs, kCodeObjects) + CountRequests(wish, kFixingVerbs, kCodeObjects);
    Add(kCodeRequest, weight, code_requests);
    // "limerick about my cat" says "write me" as well.
    Add(kCreativeRequest, weight,
        CountRequests(wish, kMakingVerbs, kCreativeObjects) + BeginsWithTerm(wish, kCreativeObjects));
    Add(kWantedLength, weight, CountWantedLengths(wish));
    Add(kSectionNumbers, weight, CountSectionNumbers(wish));
    Add(kProgrammingTerms, weight, CountTerms(wish, kProgrammingWords));
    Add(kAmbiguousTerms, weight, CountTerms(wish, kAmbiguousWords));
    Add(kCreativeTerms, weight, CountTerms(wish, kCreativeWords));
    Add(kRoleTerms, weight, CountTerms(wish, kRoleWords));
    Add(kStyleTerms, weight, CountTerms(wish, kStyleWords));
    Add(kDocumentTerms, weight, CountTerms(wish, kDocumentWords));
    Add(kTextWork, weight, CountTerms(wish, kTextWorkWords));
    Add(kGivenText, weight, CountTerms(wish, kGivenTextWords));
    Add(kEverydayTerms, weight, CountTerms(wish, kEverydayWords));
    Add(kSmallTalk, weight, CountTerms(wish, kSmallTalkWords));
  }

  void Add(ChatFeature feature, double weight, double count) {
    Of(feature) = std::min(kMostCounted, Of(feature) + weight * Damped(count));
  }

  void AddLength(const ChatTurn& turn, int later, int num_code_lines) {
    const double tokens = RoughTokens(turn.text);
    total_tokens_ += tokens;
    if (!turn.is_user) return;
    ++num_user_turns_;
    user_tokens_ += tokens;
    longest_tokens_ = std::max(longest_tokens_, tokens);
    const double weight = std::pow(kFadingOfLength, later);
    const double code_share = std::min(1.0, 2.0 * num_code_lines / double(Lines(turn.text).size() + 1));
    Of(kLongestTurn) = std::max(Of(kLongestTurn), weight * Damped(tokens / kLongTokens));
    Of(kProseTurn) = std::max(Of(kProseTurn), weight * (1 - code_share) * Damped(tokens / kLongTokens));
  }

  void AddLengths(int64_t num_tokens) {
    Of(kTotalLength) = Damped(total_tokens_ / (3 * kLongTokens));
    Of(kLongestShare) = user_tokens_ > 0 ? longest_tokens_ / user_tokens_ - 1.0 / num_user_turns_ : 0;
    Of(kNumTurns) = Damped(double(turns_.size())) - 1;
    // A conversation is told to be longer than what is seen of it only when it is so whatever the tokenizer.
    Of(kUnseenTokens) = Damped(std::max(0.0, double(num_tokens) - 2 * total_tokens_ - 200) / 1000);
  }

  void AddLast(std::string_view text) {
    Of(kQuestion) = IsQuestion(text);
    Of(kShortLast) = std::max(0.0, 1 - RoughTokens(text) / kShortTokens);
    Of(kCjkShare) = CjkShare(text);
  }

  const ChatTurn* LastOfUser() const {
    for (size_t i = turns_.size(); i-- > 0;) {
      if (turns_[i].is_user) return &turns_[i];
    }
    return nullptr;
  }

  std::span<const ChatTurn> turns_;
  std::array<double, kNumChatFeatures> values_ = {};
  int num_user_turns_ = 0;
  double total_tokens_ = 0, user_tokens_ = 0, longest_tokens_ = 0;
};

}  // namespace

const char* ChatFeatureName(ChatFeature feature) {
  constexpr const char* kNames[] = {
      "fenced code",
      "lines of code",
      "identifiers",
      "English words in Chinese",
      "error messages",
      "code punctuation",
      "programming words",
      "words that programmers use too",
      "a wish for code",
      "a wish for something made up",
      "words of fiction and verse",
      "directions of style",
      "a wished length",
      "stage directions",
      "a part to play",
      "words of documents",
      "work on a text",
      "mention of a given text",
      "numbered sections",
      "a long turn of prose",
      "a long turn",
      "length",
      "one turn longer than the others",
      "number of turns",
      "much said before",
      "everyday words",
      "small talk",
      "a question",
      "a short message",
      "Chinese",
  };
  static_assert(std::size(kNames) == kNumChatFeatures);
  return kNames[size_t(feature)];
}

std::array<double, kNumChatFeatures> ChatFeatures(const ChatEvidence& evidence) {
  return FeatureSums(evidence).values();
}

double RoughTokens(std::string_view text) {
  double narrow = 0, wide = 0;
  for (const char c : text) {
    narrow += IsAscii(c);
    wide += BeginsWideCharacter(c);
  }
  return narrow / 4 + wide * 0.7;
}

}  // namespace kvist
