// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "policy/growth.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

namespace kvist {
namespace {

constexpr int64_t kMaxTokens = int64_t{1} << 30;

struct KindName {
  GrowthKind kind;
  const char* name;
  const char* keys;  // the options it has
};
constexpr KindName kKinds[] = {
    {GrowthKind::kExact, "exact", ""},
    {GrowthKind::kStatic, "static", "max"},
    {GrowthKind::kDynamic, "dynamic", "initial, factor, max"},
    {GrowthKind::kPredictive, "predictive", "initial, window, margin, max"},
    {GrowthKind::kLearned, "learned", "confidence, max"},
};

bool HasKey(const KindName& kind, std::string_view key) {
  if (key.empty()) return false;
  const std::string keys = ", " + std::string(kind.keys) + ",";
  return keys.find(", " + std::string(key) + ",") != std::string::npos;
}

std::optional<double> ParseNumber(std::string_view text) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(number)) return std::nullopt;
  return number;
}

std::string Number(double value) {
  char text[32];
  const bool is_whole = value == std::floor(value) && std::abs(value) < 1e15;
  const auto end = is_whole ? std::to_chars(text, std::end(text), int64_t(value)).ptr
                            : std::to_chars(text, std::end(text), value).ptr;
  return std::string(text, end);
}

Status CheckRange(const char* name, double value, double low, double high) {
  if (value >= low && value <= high) return {};
  return Fail(ErrorCode::kInvalidArgument, std::string("growth option ") + name + " must be between " + Number(low) +
                                               " and " + Number(high) + ", is " + Number(value));
}

Status SetOption(GrowthOptions& options, const KindName& kind, std::string_view assignment) {
  const size_t equals = assignment.find('=');
  const std::string_view key = assignment.substr(0, equals);
  if (equals == std::string_view::npos || !HasKey(kind, key)) {
    return Fail(ErrorCode::kInvalidArgument, "growth '" + std::string(kind.name) + "' has no option '" +
                                                 std::string(assignment) + "'; it takes " +
                                                 (*kind.keys ? std::string("key=value with: ") + kind.keys : "none"));
  }
  const auto number = ParseNumber(assignment.substr(equals + 1));
  if (!number) {
    return Fail(ErrorCode::kInvalidArgument, "growth option '" + std::string(assignment) + "' needs a number");
  }
  auto whole = [&]() -> Result<int64_t> {
    if (*number == std::floor(*number) && std::abs(*number) <= double(kMaxTokens)) return int64_t(*number);
    return Fail(ErrorCode::kInvalidArgument, "growth option '" + std::string(assignment) +
                                                 "' needs a whole number between 0 and " + std::to_string(kMaxTokens));
  };
  if (key == "factor") {
    options.factor = *number;
  } else if (key == "margin") {
    options.margin = *number;
  } else if (key == "confidence") {
    options.confidence = *number;
  } else {
    KVIST_TRY(const int64_t count, whole());
    if (key == "initial") options.initial_tokens = count;
    if (key == "max") options.max_tokens = count;
    if (key == "window") options.window = int(count);
  }
  return {};
}

const KindName& NameOf(GrowthKind kind) {
  return *std::ranges::find(kKinds, kind, &KindName::kind);
}

}  // namespace

Status GrowthOptions::Validate() const {
  KVIST_TRY_VOID(CheckRange("initial", double(initial_tokens), 0, double(kMaxTokens)));
  KVIST_TRY_VOID(CheckRange("factor", factor, 1.2, 2.0));
  KVIST_TRY_VOID(CheckRange("max", double(max_tokens), kind == GrowthKind::kStatic ? 1 : 0, double(kMaxTokens)));
  KVIST_TRY_VOID(CheckRange("window", window, 2, 1000));
  KVIST_TRY_VOID(CheckRange("margin", margin, 0, 1));
  return CheckRange("confidence", confidence, 0.5, 1);
}

Result<GrowthOptions> ParseGrowth(std::string_view spec) {
  const size_t colon = spec.find(':');
  const std::string_view name = spec.substr(0, colon);
  const auto* kind = std::ranges::find(kKinds, name, &KindName::name);
  if (kind == std::end(kKinds)) {
    return Fail(ErrorCode::kInvalidArgument,
                "unknown growth '" + std::string(name) + "'; known: exact, static, dynamic, predictive, learned");
  }
  GrowthOptions options;
  options.kind = kind->kind;
  std::string_view rest = colon == std::string_view::npos ? std::string_view() : spec.substr(colon + 1);
  while (!rest.empty()) {
    const size_t comma = rest.find(',');
    KVIST_TRY_VOID(SetOption(options, *kind, rest.substr(0, comma)));
    rest = comma == std::string_view::npos ? std::string_view() : rest.substr(comma + 1);
  }
  KVIST_TRY_VOID(options.Validate());
  return options;
}

std::string GrowthSpec(const GrowthOptions& options) {
  const KindName& kind = NameOf(options.kind);
  std::string spec;
  auto add = [&](const char* key, double value) {
    if (HasKey(kind, key)) spec += (spec.empty() ? ":" : ",") + std::string(key) + "=" + Number(value);
  };
  add("initial", double(options.initial_tokens));
  add("factor", options.factor);
  add("window", options.window);
  add("margin", options.margin);
  add("confidence", options.confidence);
  if (options.max_tokens > 0) add("max", double(options.max_tokens));
  return kind.name + spec;
}

namespace {

// Buckets of lengths: 16 a doubling, so a length is known to within 4 %.
constexpr double kBucketsPerDoubling = 16;
constexpr double kFadePerLength = 0.999;  // the last thousand sequences count
constexpr double kMinLengths = 8;         // that reached this far, before a guess is made

size_t BucketOf(int64_t num_tokens) {
  return size_t(std::log2(double(std::max<int64_t>(num_tokens, 1))) * kBucketsPerDoubling);
}
int64_t FirstLengthOf(size_t bucket) {
  return int64_t(std::ceil(std::exp2(double(bucket) / kBucketsPerDoubling)));
}

}  // namespace

void SurvivalCurve::AddLength(int64_t num_tokens) {
  if (num_tokens <= 0) return;
  const std::lock_guard lock(mutex_);
  const size_t bucket = BucketOf(num_tokens);
  if (bucket >= weights_.size()) weights_.resize(bucket + 1);
  for (double& weight : weights_) weight *= kFadePerLength;
  weights_[bucket] += 1;
}

int64_t SurvivalCurve::LikelyLength(int64_t num_tokens, double confidence) const {
  const std::lock_guard lock(mutex_);
  const size_t here = BucketOf(num_tokens);
  double reached = 0;
  for (size_t i = here; i < weights_.size(); ++i) reached += weights_[i];
  if (reached < kMinLengths) return num_tokens;
  double still = reached;
  size_t bucket = here;
  while (bucket < weights_.size() && still - weights_[bucket] >= confidence * reached) still -= weights_[bucket++];
  return std::max(num_tokens, FirstLengthOf(bucket));
}

int64_t GrowthPredictor::InitialCapacity(const GrowthOptions& options) {
  return options.kind == GrowthKind::kStatic ? options.max_tokens : options.initial_tokens;
}

int64_t GrowthPredictor::Grow(int64_t num_tokens, int64_t num_step_tokens, const SurvivalCurve& curve) {
  Remember(num_step_tokens);
  int64_t wanted = Predict(num_tokens, curve);
  if (options_.max_tokens > 0) wanted = std::min(wanted, options_.max_tokens);
  const int64_t kept = options_.kind == GrowthKind::kExact ? 0 : capacity_;
  capacity_ = std::max({kept, wanted, num_tokens});
  return capacity_;
}

int64_t GrowthPredictor::Shrink(int64_t num_tokens) {
  const int64_t keep = std::max(num_tokens * 2, InitialCapacity(options_));
  if (capacity_ > keep || options_.kind == GrowthKind::kExact)
    capacity_ = std::max(num_tokens, InitialCapacity(options_));
  return capacity_;
}

int64_t GrowthPredictor::Predict(int64_t num_tokens, const SurvivalCurve& curve) const {
  switch (options_.kind) {
    case GrowthKind::kExact:
      return num_tokens;
    case GrowthKind::kStatic:
      return options_.max_tokens;
    case GrowthKind::kDynamic: {
      // Grows when half of the last increment is used, not all of it: what is taken ahead has to be there in time.
      const auto half_increment = int64_t(double(capacity_) * (1.0 - 1.0 / options_.factor) / 2);
      if (num_tokens <= capacity_ - half_increment) return capacity_;
      return std::max(num_tokens, int64_t(double(capacity_) * options_.factor));
    }
    case GrowthKind::kPredictive: {
      // The article predicts the next step's tokens and compares them with the total capacity, which never triggers;
      // what has to fit is the total after that step. Unsteady growth is trusted up to 1.2, as there.
      if (steps_.size() < 2) return num_tokens;
      const bool is_steady = steps_.size() >= 3 && growth_variance_ < 0.1;  // one ratio has no variance
      const double growth = is_steady ? mean_growth_ : std::min(mean_growth_, 1.2);
      const double next_step = double(steps_.back()) * growth;
      return num_tokens + int64_t(std::ceil(next_step * (1.0 + options_.margin)));
    }
    case GrowthKind::kLearned:
      return curve.LikelyLength(num_tokens, options_.confidence);
  }
  return num_tokens;
}

void GrowthPredictor::Remember(int64_t num_step_tokens) {
  if (options_.kind != GrowthKind::kPredictive) return;
  steps_.push_back(num_step_tokens);
  if (steps_.size() > size_t(options_.window)) steps_.pop_front();
  if (steps_.size() < 2) return;
  double sum = 0, sum_of_squares = 0;
  for (size_t i = 1; i < steps_.size(); ++i) {
    const double growth = double(steps_[i]) / double(steps_[i - 1]);
    sum += growth;
    sum_of_squares += growth * growth;
  }
  const auto count = double(steps_.size() - 1);
  mean_growth_ = sum / count;
  growth_variance_ = std::max(0.0, sum_of_squares / count - mean_growth_ * mean_growth_);
}

}  // namespace kvist
