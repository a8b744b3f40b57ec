// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <nlohmann/json.hpp>

#include <string>
#include <string_view>

#include "terminal.h"

namespace kvist {

using Json = nlohmann::ordered_json;  // fields in the order they are set

// Machine-readable results: one JSON object a line, checked against docs/results.schema.json.

// One measured number: {"bench", "impl", "params", "metric", "value", "cpu", "isa", "commit"}.
struct Record {
  std::string_view bench;
  std::string_view impl = "kvist";  // the contestant
  Json params;                      // what was held fixed
  std::string_view metric;
  Json value;
};
void WriteRecord(const Record& record, Output& out);

// Any other object as one line. Strings that are not UTF-8 are mended.
void WriteJson(const Json& object, Output& out);

// The fields that say where a result comes from: cpu, isa, commit.
void AddOrigin(Json& object);

}  // namespace kvist
