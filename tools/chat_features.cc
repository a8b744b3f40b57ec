// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
//
// For tools/fit_chat_classes.py: reads conversations as JSON lines (tests/data/chats) from standard input, writes what
// the classifier looks at, one array of numbers a line.
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "policy/chat_class.h"

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    const auto conversation = nlohmann::json::parse(line);
    std::vector<kvist::ChatTurn> turns;
    for (const auto& message : conversation["messages"]) {
      turns.push_back({message["role"] == "user", message["content"].get_ref<const std::string&>()});
    }
    std::puts(nlohmann::json(kvist::FeaturesOf({.recent_turns = turns})).dump().c_str());
  }
}
