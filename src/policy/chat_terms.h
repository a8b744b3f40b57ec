// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <span>
#include <string>
#include <string_view>

// Whole words and phrases in English, and Chinese ones, that say what a message is about. Pure functions and constant
// tables; safe from any thread.
namespace kvist {

// English terms are whole words in lower case, or beginnings of words where they end in '*'; Chinese ones (whatever
// doesn't begin with an ASCII character) are found anywhere, as Chinese writes no spaces.
using TermGroup = std::span<const std::string_view>;

extern const TermGroup kProgrammingWords;  // "python", "compiler", 函数
extern const TermGroup kAmbiguousWords;    // of programs and of other things: "class", "table", 循环
extern const TermGroup kCodeObjects;       // what one asks to be written as code: "function", 脚本
extern const TermGroup kCreativeObjects;   // what one asks to be made up: "poem", 故事
extern const TermGroup kCreativeWords;     // words of those who write: "villain", 主角
extern const TermGroup kRoleWords;         // gives the model a part to play: "pretend", 如果你是
extern const TermGroup kStyleWords;        // directions for a text in the making: "rhyme", 续写
extern const TermGroup kMakingVerbs;       // "write", 编
extern const TermGroup kFixingVerbs;       // "debug", 优化
extern const TermGroup kDocumentWords;     // "contract", 论文
extern const TermGroup kTextWorkWords;     // what one does with a long text: "summarise", 概括
extern const TermGroup kGivenTextWords;    // points at a text that was given: "attached", 原文
extern const TermGroup kEverydayWords;     // family, food, travel, health, work: "dinner", 感冒
extern const TermGroup kSmallTalkWords;    // "thanks", 在吗

inline bool IsAscii(char c) {
  return static_cast<unsigned char>(c) < 0x80;
}

// The text with its ASCII letters in lower case, as the functions below want it.
std::string LowerAscii(std::string_view text);

// How often terms of the group occur; occurrences of one term don't overlap. Costs text.size() * group.size().
int CountTerms(std::string_view lower_text, TermGroup group);

// How many of the objects have a verb before them in the same sentence, no more than a few words away: "write me a
// short poem", 写一首关于春天的诗.
int CountRequests(std::string_view lower_text, TermGroup verbs, TermGroup objects);

// How often a part of a text is named by its number: "chapter 3", "clause 14.2", 第三章.
int CountSectionNumbers(std::string_view lower_text);

// How often a length is wished for: "200 words", "4 panel comic", 八百字.
int CountWantedLengths(std::string_view lower_text);

// Whether one of the terms is among the first few words.
bool BeginsWithTerm(std::string_view lower_text, TermGroup group);

}  // namespace kvist
