// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "model/golden.h"

#include <doctest/doctest.h>

#include <span>
#include <string_view>

#include "model/gguf_builder.h"

namespace kvist::golden_test {
namespace {

Result<Golden> Read(std::string_view text) {
  const TemporaryFile file(std::as_bytes(std::span(text)));
  return ReadGolden(file.path());
}

TEST_CASE("golden: reads prompts") {
  const auto golden = Read(R"({"model": "m", "reference": "r", "prompts": [{"name": "n", "text": "t", "ids": [1, 2],
      "greedy": [3], "greedy_text": "g", "top": [[[3, -0.5], [4, -1]]]}]})");
  REQUIRE(golden.has_value());
  CHECK(golden->model == "m");
  REQUIRE(golden->prompts.size() == 1);
  const GoldenPrompt& prompt = golden->prompts[0];
  CHECK(prompt.ids == std::vector<Token>{1, 2});
  CHECK(prompt.greedy_text == "g");
  CHECK(prompt.top[0] == std::vector<std::pair<Token, double>>{{3, -0.5}, {4, -1.0}});
}

TEST_CASE("golden: what is not in the format is an error") {
  CHECK(ReadGolden("/nonexistent/golden.json").error().code == ErrorCode::kNotFound);
  for (const std::string_view text : {
           "",
           "[",
           "[]",
           "{}",
           "3",
           R"({"prompts": 1})",
           R"({"prompts": [1]})",
           R"({"prompts": [{}]})",
           R"({"prompts": [{"name": "n", "text": "t", "ids": [], "greedy": [], "top": []}]})",
           R"({"prompts": [{"name": "n", "text": "t", "ids": [1], "greedy": [2], "top": []}]})",
           R"({"prompts": [{"name": "n", "text": "t", "ids": [-1], "greedy": [], "top": []}]})",
           R"({"prompts": [{"name": "n", "text": "t", "ids": [99999999999], "greedy": [], "top": []}]})",
           R"({"prompts": [{"name": "n", "text": "t", "ids": [1.5], "greedy": [], "top": []}]})",
           R"({"prompts": [{"name": "n", "text": "t", "ids": [1], "greedy": [2], "top": [[[2]]]}]})",
           R"({"prompts": [{"name": "n", "text": "t", "ids": [1], "greedy": [2], "top": [[[2, "x"]]]}]})",
       }) {
    CAPTURE(text);
    const auto golden = Read(text);
    REQUIRE_FALSE(golden.has_value());
    CHECK(golden.error().code == ErrorCode::kCorrupt);
  }
}

}  // namespace
}  // namespace kvist::golden_test
