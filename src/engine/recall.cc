// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "engine/recall.h"

#include <algorithm>
#include <random>
#include <string>
#include <utility>

namespace kvist {
namespace {

constexpr char kIntroduction[] =
    "A pass key is hidden somewhere in the text that follows. Find it and remember it.\n\n";
constexpr char kQuestion[] = "\n\nWhat is the pass key that was hidden in the text? The pass key is";

std::vector<Token> EncodePlainly(const Tokenizer& tokenizer, const std::string& text) {
  return tokenizer.Encode(text, {.add_special = false, .parse_special = false});
}

void Append(std::span<const Token> from, std::vector<Token>& to) {
  to.insert(to.end(), from.begin(), from.end());
}

// The digits' tokens as they come after the question.
Result<std::vector<Token>> DigitsAfter(const Tokenizer& tokenizer, const std::string& text,
                                       std::span<const Token> question, const std::string& number) {
  const auto all = EncodePlainly(tokenizer, text + " " + number);
  const bool continues =
      all.size() > question.size() && std::ranges::equal(std::span(all).first(question.size()), question);
  if (!continues)
    return Fail(ErrorCode::kUnsupported, "the tokenizer joins a pass key's digits to what is before them");
  return std::vector<Token>(all.begin() + std::ssize(question), all.end());
}

class Hiding {
 public:
  Hiding(std::span<const Token> filler, const RecallSizes& sizes, std::optional<Token> bos)
      : filler_(filler), sizes_(sizes), bos_(bos), random_(static_cast<unsigned>(sizes.context_tokens)) {}

  uint64_t RandomBelow(uint64_t end) { return random_() % end; }

  // The i-th of them, without cue and answer.
  Result<Recall> Hide(int i, std::span<const Token> before, std::span<const Token> hidden) {
    const int64_t num_filler = sizes_.context_tokens - std::ssize(before) - std::ssize(hidden) - 1;
    const std::string context = "a context of " + std::to_string(sizes_.context_tokens) + " tokens";
    if (num_filler < 1) {
      return Fail(ErrorCode::kInvalidArgument, context + " has no room for what is to be hidden in it; it needs " +
                                                   std::to_string(sizes_.context_tokens - num_filler + 1) + " or more");
    }
    if (std::ssize(filler_) < num_filler * 2) {
      return Fail(ErrorCode::kInvalidArgument, context + " is filled from a text of at least " +
                                                   std::to_string(num_filler * 2) + " tokens, and this one has " +
                                                   std::to_string(filler_.size()) +
                                                   "; give a longer text or a shorter context");
    }
    const uint64_t begin = RandomBelow(static_cast<uint64_t>(std::ssize(filler_) - num_filler));
    const auto here = filler_.subspan(begin, static_cast<size_t>(num_filler));
    Recall recall{.context = {}, .cue = {}, .answer = {}, .depth = (i + 0.5) / sizes_.count};
    const auto split = static_cast<size_t>(recall.depth * static_cast<double>(num_filler));
    if (bos_) recall.context.push_back(*bos_);
    Append(before, recall.context);
    Append(here.first(split), recall.context);
    Append(hidden, recall.context);
    Append(here.subspan(split), recall.context);
    return recall;
  }

 private:
  const std::span<const Token> filler_;
  const RecallSizes sizes_;
  const std::optional<Token> bos_;
  std::mt19937 random_;
};

}  // namespace

Result<std::vector<Recall>> MakePasskeys(const Tokenizer& tokenizer, std::span<const Token> filler,
                                         const RecallSizes& sizes, std::optional<Token> bos) {
  const auto introduction = EncodePlainly(tokenizer, kIntroduction), question = EncodePlainly(tokenizer, kQuestion);
  Hiding hiding(filler, sizes, bos);
  std::vector<Recall> recalls;
  for (int i = 0; i < sizes.count; ++i) {
    const std::string number = std::to_string(10000 + hiding.RandomBelow(90000));
    const auto needle = EncodePlainly(
        tokenizer, "\n\nThe pass key is " + number + ". Keep it in mind: " + number + " is the pass key.\n\n");
    KVIST_TRY(Recall recall, hiding.Hide(i, introduction, needle));
    recall.cue = question;
    KVIST_TRY(recall.answer, DigitsAfter(tokenizer, kQuestion, question, number));
    recalls.push_back(std::move(recall));
  }
  return recalls;
}

Result<std::vector<Recall>> MakePassages(std::span<const Token> filler, const RecallSizes& sizes,
                                         std::optional<Token> bos) {
  constexpr size_t kShredTokens = 8;
  if (filler.size() <= kShredTokens) {
    return Fail(ErrorCode::kInvalidArgument, "a text of " + std::to_string(filler.size()) +
                                                 " tokens is too short to make passages of; give a longer one");
  }
  Hiding hiding(filler, sizes, bos);
  std::vector<Recall> recalls;
  for (int i = 0; i < sizes.count; ++i) {
    std::vector<Token> passage;
    while (passage.size() < kPassageTokens) {
      Append(filler.subspan(hiding.RandomBelow(filler.size() - kShredTokens), kShredTokens), passage);
    }
    KVIST_TRY(Recall recall, hiding.Hide(i, {}, passage));
    recall.cue.assign(passage.begin(), passage.begin() + kPassageCueTokens);
    recall.answer.assign(passage.begin() + kPassageCueTokens, passage.end());
    recalls.push_back(std::move(recall));
  }
  return recalls;
}

}  // namespace kvist
