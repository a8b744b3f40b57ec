// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "base/spec.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <system_error>

namespace kvist {
namespace {

template <class T>
Result<T> Parse(const char* what, const std::pair<std::string, std::string>& value, T least, T most,
                const std::string& range) {
  T number{};
  const char* const end = value.second.data() + value.second.size();
  const auto [stopped_at, error] = std::from_chars(value.second.data(), end, number);
  if (error == std::errc() && stopped_at == end && number >= least && number <= most) return number;
  return Fail(ErrorCode::kInvalidArgument,
              std::string(what) + ": " + value.first + " must be " + range + ", is '" + value.second + "'");
}

}  // namespace

std::string NumberText(double number) {
  char text[32];
  std::snprintf(text, sizeof(text), "%g", number);
  return text;
}

Result<Spec> ParseSpec(const char* what, std::string_view text, const std::vector<std::string_view>& known_keys) {
  const size_t colon = text.find(':');
  Spec spec{.name = std::string(text.substr(0, colon)), .values = {}};
  std::string_view rest = colon == std::string_view::npos ? std::string_view() : text.substr(colon + 1);
  while (!rest.empty()) {
    const size_t comma = rest.find(',');
    const std::string_view part = rest.substr(0, comma);
    rest = comma == std::string_view::npos ? std::string_view() : rest.substr(comma + 1);
    const size_t equals = part.find('=');
    const std::string_view key = part.substr(0, equals);
    if (equals == std::string_view::npos || std::ranges::find(known_keys, key) == known_keys.end()) {
      std::string known;
      for (const std::string_view each : known_keys) known += (known.empty() ? "" : ", ") + std::string(each);
      return Fail(ErrorCode::kInvalidArgument,
                  std::string(what) + " has no option '" + std::string(part) + "'; it takes key=value with: " + known);
    }
    spec.values.emplace_back(key, part.substr(equals + 1));
  }
  return spec;
}

Result<int64_t> WholeNumber(const char* what, const std::pair<std::string, std::string>& value, int64_t least,
                            int64_t most) {
  return Parse(what, value, least, most,
               "a whole number from " + std::to_string(least) + " to " + std::to_string(most));
}

Result<double> Number(const char* what, const std::pair<std::string, std::string>& value, double least, double most) {
  return Parse(what, value, least, most, "a number from " + NumberText(least) + " to " + NumberText(most));
}

}  // namespace kvist
