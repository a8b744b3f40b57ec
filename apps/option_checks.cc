// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "option_checks.h"

#include <cmath>
#include <cstdlib>
#include <string_view>

#include "engine/retaining.h"
#include "engine/stream.h"
#include "kvist/geometry.h"
#include "kvist/growth.h"
#include "model/model.h"
#include "threads.h"
#include "tier/open_tier.h"

namespace kvist {
namespace {

constexpr int kMaxThreads = 512;

bool IsBetween(const std::string& text, long least, long most) {
  char* end = nullptr;
  const long number = std::strtol(text.c_str(), &end, 10);
  return end != text.c_str() && *end == '\0' && number >= least && number <= most;
}

}  // namespace

size_t ParseBytes(const std::string& text) {
  char* end = nullptr;
  double bytes = std::strtod(text.c_str(), &end);
  std::string_view suffix = end;
  constexpr std::string_view kUnits = "KMGT";
  if (const size_t unit = suffix.empty() ? kUnits.npos : kUnits.find(suffix[0]); unit != kUnits.npos) {
    bytes *= std::exp2(10.0 * static_cast<double>(unit + 1));
    suffix.remove_prefix(1);
  }
  const bool is_whole = end != text.c_str() && (suffix.empty() || suffix == "B" || suffix == "iB");
  return is_whole && bytes >= 1 && bytes < 0x1p62 ? static_cast<size_t>(bytes) : 0;
}

std::string CheckBytes(const std::string& text) {
  return ParseBytes(text) > 0 ? "" : "'" + text + "' is not a number of bytes such as 512M or 2G";
}

std::string CheckForm(const std::string& text) {
  const auto form = ParseForm(text);
  return form ? "" : form.error().message;
}

std::string CheckCodec(const std::string& text) {
  if (text.find('/') == std::string::npos) return CheckForm(text);
  return "'" + text + "' is two codecs; give those of keys with --form-k and those of values with --form-v";
}

std::string CheckGrowth(const std::string& text) {
  const auto growth = ParseGrowth(text);
  return growth ? "" : growth.error().message;
}

std::string CheckRetain(const std::string& text) {
  const auto settings = ParseRetain(text);
  if (settings) return "";
  const bool is_list = text == "all" || (text.find(',') != text.npos && text.find(':') == text.npos);
  return settings.error().message + (is_list ? "; a list of policies is what `kvist eval --retain` takes, here it is "
                                               "one, with its options as in snapkv:keep=0.5"
                                             : "");
}

std::string RetentionPolicyNames() {
  std::string names;
  for (const RetentionPolicy policy : kAllRetentionPolicies) {
    names += std::string(names.empty() ? "" : ", ") + RetentionPolicyName(policy);
  }
  return names;
}

std::string CheckTier(const std::string& text) {
  const Status readable = CheckTierSpec(text);
  return readable ? "" : readable.error().message;
}

std::string CheckStream(const std::string& text) {
  const auto options = ParseStream(text);
  return options ? "" : options.error().message;
}

std::string CheckCount(const std::string& text) {
  return IsBetween(text, 1, 1'000'000) ? "" : "'" + text + "' is not a whole number from 1 to a million";
}

std::string CheckCountOrZero(const std::string& text) {
  return IsBetween(text, 0, 1'000'000) ? "" : "'" + text + "' is not a whole number from 0 to a million";
}

std::string CheckNotEmpty(const std::string& text) {
  return text.empty() ? "is empty; give a name, or leave the option out" : "";
}

std::string CheckPhase(const std::string& text) {
  return text == "decode" || text == "prefill" ? "" : "'" + text + "' is neither decode nor prefill";
}

std::string CheckSequences(const std::string& text) {
  if (IsBetween(text, 1, Model::kMaxBatchTokens)) return "";
  return "'" + text + "' is not between 1 and " + std::to_string(Model::kMaxBatchTokens);
}

std::string CheckThreads(const std::string& text) {
  if (IsBetween(text, 1, kMaxThreads)) return "";
  return "'" + text + "' is not between 1 and " + std::to_string(kMaxThreads) + "; without the option it is " +
         std::to_string(NumAvailableCores()) + ", the cores there are";
}

std::string CheckWeights(const std::string& text) {
  return text == "file" || text == "f32" ? "" : "'" + text + "' is neither file nor f32";
}

}  // namespace kvist
