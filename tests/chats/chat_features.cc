// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors

// chat_features --features FILE: a JSON line for each labelled conversation with its features, for
// tools/fit_chat_classifier.py, so that features are computed in one place only.
// chat_features --score FILE: how well the classifier and the article's rule do on both halves.

#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

#include "policy/chat_features.h"
#include "tests/chats/labelled_chats.h"

namespace kvist {
namespace {

void PrintFeatures(const std::vector<LabelledChat>& chats) {
  for (const LabelledChat& chat : chats) {
    const nlohmann::json line = {{"label", ChatClassName(chat.label)},
                                 {"language", chat.language},
                                 {"split", chat.is_held_out ? "held_out" : "tune"},
                                 {"features", ChatFeatures(chat.evidence())}};
    std::printf("%s\n", line.dump().c_str());
  }
}

void PrintScores(const std::vector<LabelledChat>& chats) {
  for (const bool held_out : {false, true}) {
    const char* half = held_out ? "held-out half" : "half that it was fitted to";
    std::printf("classifier, %s\n%s", half, ScoreText(chats, held_out, ClassOf).c_str());
    std::printf("article's rule, %s\n%s", half, ScoreText(chats, held_out, ArticleRule).c_str());
  }
}

int Run(const std::string& command, const std::string& path) {
  const auto chats = ReadLabelledChats(path);
  if (!chats) {
    std::fprintf(stderr, "%s\n", chats.error().message.c_str());
    return 1;
  }
  if (command == "--features") {
    PrintFeatures(*chats);
  } else {
    PrintScores(*chats);
  }
  return 0;
}

}  // namespace
}  // namespace kvist

int main(int argc, char** argv) {
  const std::string command = argc == 3 ? argv[1] : "";
  if (command != "--features" && command != "--score") {
    std::fprintf(stderr, "usage: chat_features --features|--score FILE\n");
    return 2;
  }
  return kvist::Run(command, argv[2]);
}
