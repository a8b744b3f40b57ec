// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <doctest/doctest.h>

#include <memory>
#include <optional>
#include <utility>

#include "engine/letters.h"
#include "model/model.h"
#include "model/tiny_model.h"
#include "model/tokenizer.h"

namespace kvist {

// A tiny model that one thread computes, and the tokenizer of its letters (tests only).
struct TinyEngine {
  explicit TinyEngine(const TinyModel& tiny, std::optional<Token> end = {}) : file(tiny.Build()) {
    auto gguf = GgufFile::Open(file.path());
    REQUIRE(gguf);
    auto opened = Model::Open(*gguf, {.num_threads = 1});
    REQUIRE(opened);
    model = *std::move(opened);
    auto letters = Tokenizer::Open(LettersVocabulary(tiny.vocabulary, end));
    REQUIRE(letters);
    tokenizer = *letters;
  }

  TemporaryFile file;
  std::unique_ptr<Model> model;
  std::shared_ptr<const Tokenizer> tokenizer;
};

}  // namespace kvist
