// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include <algorithm>
#include <charconv>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "bench/scenario/growth.h"

namespace kvist {
namespace {

constexpr int64_t kMaxRequestTokens = 1 << 24;

std::unexpected<Error> BadLine(const std::string& path, int64_t line, const std::string& why) {
  return Fail(ErrorCode::kCorrupt, path + " line " + std::to_string(line) + ": " + why +
                                       "; a trace is Azure's CSV (ContextTokens, GeneratedTokens) or Mooncake's JSON "
                                       "lines (input_length, output_length)");
}

Status CheckRequest(const TraceRequest& request, const std::string& path, int64_t line) {
  if (request.prompt_tokens >= 1 && request.output_tokens >= 0 && request.prompt_tokens <= kMaxRequestTokens &&
      request.output_tokens <= kMaxRequestTokens) {
    return {};
  }
  return BadLine(path, line, "lengths out of range");
}

Result<TraceRequest> ParseJsonLine(const std::string& text, const std::string& path, int64_t line) {
  const auto object = nlohmann::json::parse(text, nullptr, false);
  auto length = [&](const char* key) -> int64_t {
    return object.is_object() && object.contains(key) && object[key].is_number_integer() ? object[key].get<int64_t>()
                                                                                         : -1;
  };
  const TraceRequest request{length("input_length"), length("output_length")};
  KVIST_TRY_VOID(CheckRequest(request, path, line));
  return request;
}

std::vector<std::string> Fields(const std::string& text) {
  std::vector<std::string> fields;
  std::istringstream stream(text);
  for (std::string field; std::getline(stream, field, ',');) {
    while (!field.empty() && (field.back() == '\r' || field.back() == ' ')) field.pop_back();
    fields.push_back(field);
  }
  return fields;
}

Result<TraceRequest> ParseCsvLine(const std::string& text, size_t prompt_column, size_t output_column,
                                  const std::string& path, int64_t line) {
  const std::vector<std::string> fields = Fields(text);
  auto number = [&](size_t column) -> int64_t {
    int64_t value = -1;
    if (column >= fields.size()) return -1;
    const std::string& field = fields[column];
    const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value);
    return error == std::errc() && end == field.data() + field.size() ? value : -1;
  };
  const TraceRequest request{number(prompt_column), number(output_column)};
  KVIST_TRY_VOID(CheckRequest(request, path, line));
  return request;
}

}  // namespace

Result<std::vector<TraceRequest>> ReadTrace(const std::string& path, int64_t max_requests) {
  std::ifstream file(path);
  if (!file) return Fail(ErrorCode::kNotFound, "cannot read the trace " + path);
  std::vector<TraceRequest> requests;
  std::vector<std::string> columns;
  int64_t line = 0;
  for (std::string text; int64_t(requests.size()) < max_requests && std::getline(file, text);) {
    ++line;
    if (text.empty() || text == "\r") continue;
    if (text.front() == '{') {
      KVIST_TRY(requests.emplace_back(), ParseJsonLine(text, path, line));
    } else if (columns.empty()) {
      columns = Fields(text);
    } else {
      const auto prompt = size_t(std::ranges::find(columns, "ContextTokens") - columns.begin());
      const auto output = size_t(std::ranges::find(columns, "GeneratedTokens") - columns.begin());
      KVIST_TRY(requests.emplace_back(), ParseCsvLine(text, prompt, output, path, line));
    }
  }
  if (requests.empty()) return BadLine(path, line, "no request in it");
  return requests;
}

}  // namespace kvist
