// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "policy/chat_class.h"

// What the classifier sees of a conversation: numbers that are 0 where there is nothing and at most 4.
namespace kvist {

enum class ChatFeature : uint8_t {
  kFencedCode,
  kCodeLines,
  kIdentifiers,
  kEnglishInChinese,
  kErrorShapes,
  kCodeSymbols,
  kProgrammingTerms,
  kAmbiguousTerms,
  kCodeRequest,
  kCreativeRequest,
  kCreativeTerms,
  kStyleTerms,
  kWantedLength,
  kRolePlay,
  kRoleTerms,
  kDocumentTerms,
  kTextWork,
  kGivenText,
  kSectionNumbers,
  kProseTurn,
  kLongestTurn,
  kTotalLength,
  kLongestShare,
  kNumTurns,
  kUnseenTokens,
  kEverydayTerms,
  kSmallTalk,
  kQuestion,
  kShortLast,
  kCjkShare,
};
inline constexpr size_t kNumChatFeatures = size_t(ChatFeature::kCjkShare) + 1;

// A few words for people: "fenced code", "a wish for something made up".
const char* ChatFeatureName(ChatFeature feature);

// Features of the last ten turns, recent ones weighing more, the user's more than the model's. Words are looked for
// where people say what they want: in short turns, and at both ends of long ones. Pure; costs what ClassifyChat does.
std::array<double, kNumChatFeatures> ChatFeatures(const ChatEvidence& evidence);

// Tokens that a text comes to, roughly, without a tokenizer: four ASCII bytes each, or 0.7 for a Chinese character.
double RoughTokens(std::string_view text);

}  // namespace kvist
