// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kvist/error.h"

namespace kvist {

// That a specification may name.
inline constexpr int64_t kMostSpecTokens = int64_t{1} << 30;

// "NAME" or "NAME:key=value,key=value", as options are written on a command line.
struct Spec {
  std::string name;
  std::vector<std::pair<std::string, std::string>> values;  // [key]
};

// what: "retention", say, for the sentence. kInvalidArgument: a part that is no key=value, or a key that is not among
// the known ones.
Result<Spec> ParseSpec(const char* what, std::string_view text, const std::vector<std::string_view>& known_keys);

// The number that a key has. kInvalidArgument when it is none, or not in [least, most].
Result<int64_t> WholeNumber(const char* what, const std::pair<std::string, std::string>& value, int64_t least,
                            int64_t most);
Result<double> Number(const char* what, const std::pair<std::string, std::string>& value, double least, double most);
std::string NumberText(double number);  // "0.5"

}  // namespace kvist
