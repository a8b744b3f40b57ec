// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "policy/chat_class.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "policy/chat_features.h"

namespace kvist {
namespace {

// Of each class: what a feature adds to its score, and what it has from the beginning.
struct ClassWeights {
  double bias;
  std::array<double, kNumChatFeatures> of_feature;
};

constexpr ClassWeights kWeights[kNumChatClasses] = {
#include "policy/chat_class_weights.inc"
};

constexpr double kSmoothing = 0.5;  // weight of the newest classification
constexpr double kMargin = 0.25;    // of smoothed probabilities
constexpr int kTurnsInARow = 2;
constexpr size_t kMostReasons = 3;
constexpr double kLeastReason = 0.1;

template <class Values>
ChatClass BestOf(const Values& values) {
  return ChatClass(std::ranges::max_element(values) - values.begin());
}

std::array<double, kNumChatClasses> Probabilities(const std::array<double, kNumChatFeatures>& features) {
  std::array<double, kNumChatClasses> p;
  for (size_t c = 0; c < kNumChatClasses; ++c) {
    p[c] = std::inner_product(features.begin(), features.end(), kWeights[c].of_feature.begin(), kWeights[c].bias);
  }
  const double most = std::ranges::max(p);
  for (double& value : p) value = std::exp(value - most);
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& value : p) value /= sum;
  return p;
}

ChatClass SecondOf(std::array<double, kNumChatClasses> probabilities) {
  probabilities[size_t(BestOf(probabilities))] = -1;
  return BestOf(probabilities);
}

std::string Reasons(const std::array<double, kNumChatFeatures>& features, ChatClass best, ChatClass second) {
  std::vector<std::pair<double, size_t>> reasons;
  for (size_t f = 0; f < kNumChatFeatures; ++f) {
    const double difference = kWeights[size_t(best)].of_feature[f] - kWeights[size_t(second)].of_feature[f];
    if (features[f] * difference > kLeastReason) reasons.emplace_back(features[f] * difference, f);
  }
  std::ranges::sort(reasons, std::greater());
  if (reasons.empty()) return "nothing that points elsewhere";
  std::string text;
  for (size_t i = 0; i < std::min(reasons.size(), kMostReasons); ++i) {
    text += std::string(i > 0 ? ", " : "") + ChatFeatureName(ChatFeature(reasons[i].second));
  }
  return text;
}

}  // namespace

const char* ChatClassName(ChatClass chat_class) {
  constexpr const char* kNames[] = {"short_chat", "long_document", "code", "creative"};
  return kNames[size_t(chat_class)];
}

Result<ChatClass> ParseChatClass(std::string_view name) {
  for (const ChatClass chat_class : kAllChatClasses) {
    if (name == ChatClassName(chat_class)) return chat_class;
  }
  return Fail(ErrorCode::kInvalidArgument,
              "'" + std::string(name) + "' is no class; there are short_chat, long_document, code, creative");
}

ChatClassification ClassifyChat(const ChatEvidence& evidence) {
  if (evidence.recent_turns.empty()) return {.why = "nothing said yet"};
  const auto features = ChatFeatures(evidence);
  const auto probabilities = Probabilities(features);
  const ChatClass best = BestOf(probabilities);
  return {best, probabilities, Reasons(features, best, SecondOf(probabilities))};
}

ChatClass ChatClassTracker::Update(const ChatClassification& classification) {
  if (!has_begun_) {
    has_begun_ = true;
    last_best_ = classification.best;
    num_in_a_row_ = 1;
    smoothed_ = classification.probabilities;
    return current_ = classification.best;
  }
  for (size_t c = 0; c < kNumChatClasses; ++c) {
    smoothed_[c] += kSmoothing * (classification.probabilities[c] - smoothed_[c]);
  }
  num_in_a_row_ = classification.best == last_best_ ? num_in_a_row_ + 1 : 1;
  last_best_ = classification.best;
  const double lead = smoothed_[size_t(last_best_)] - smoothed_[size_t(current_)];
  if (num_in_a_row_ >= kTurnsInARow && lead > kMargin) current_ = last_best_;
  return current_;
}

}  // namespace kvist
