// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors

// Token ids of real models against the recorded ones (tests/golden/*.json).

#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "model/chat_template.h"
#include "model/gguf.h"
#include "model/tokenizer.h"

namespace kvist::tokenizer_golden_test {
namespace {

std::string ModelPath(const std::string& name) {
  const char* folder = std::getenv("KVIST_MODELS_DIR");
  const char* home = std::getenv("HOME");
  const std::string base = folder != nullptr ? folder : std::string(home ? home : "") + "/.local/share/kvist/models";
  return base + "/" + name + ".gguf";
}

std::shared_ptr<const GgufFile> OpenModel(const std::string& name) {
  const std::string path = ModelPath(name);
  INFO("this test needs " << path << "; fetch it with: kvist model get " << name);
  REQUIRE(std::filesystem::exists(path));
  auto file = GgufFile::Open(path);
  REQUIRE_MESSAGE(file.has_value(), file.error().message);
  return *file;
}

std::shared_ptr<const Tokenizer> OpenTokenizer(const std::string& name) {
  auto tokenizer = Tokenizer::Open(OpenModel(name));
  REQUIRE_MESSAGE(tokenizer.has_value(), tokenizer.error().message);
  return *tokenizer;
}

nlohmann::json ReadGolden(const std::string& name) {
  std::ifstream in(std::string(KVIST_SOURCE_DIR) + "/tests/golden/" + name + ".json");
  REQUIRE(in.good());
  return nlohmann::json::parse(in);
}

std::string RandomBytes(std::mt19937& random, size_t size, int kind) {
  // 0: any bytes; 1: mostly text; 2: characters of all planes, cut anywhere
  std::string bytes;
  while (bytes.size() < size) {
    const uint32_t x = random();
    if (kind == 0 || x % 16 == 0) {
      bytes += static_cast<char>(x >> 8);
    } else if (kind == 1) {
      bytes += " \n\tabcdefXYZ0123456789'.,<>|_"[x / 16 % 29];
    } else {
      bytes += static_cast<char>(0xE1 + x / 16 % 12);
      bytes += static_cast<char>(0x80 + x / 256 % 64);
      bytes += static_cast<char>(0x80 + x / 65536 % 64);
    }
  }
  return bytes;
}

void CheckGolden(const std::string& golden, const std::string& model) {
  const auto tokenizer = OpenTokenizer(model);
  const nlohmann::json recorded = ReadGolden(golden);  // named: a range-for over a part of a temporary dangles
  REQUIRE(recorded["prompts"].size() == 10);
  for (const auto& prompt : recorded["prompts"]) {
    CAPTURE(prompt["name"].get<std::string>());
    const auto ids = prompt["ids"].get<std::vector<Token>>();
    CHECK(tokenizer->Encode(prompt["text"].get<std::string>()) == ids);
    CHECK(tokenizer->Decode(ids) == prompt["text"].get<std::string>());
    const auto greedy = prompt["greedy"].get<std::vector<Token>>();
    StreamDecoder stream(tokenizer);
    std::string text;
    for (size_t i = 0; i < greedy.size(); ++i) {
      text += stream.Push(greedy[i]);
      // The recorded runs never chose a token that ends generation, however likely: where the likeliest token was not
      // chosen, it must be such a one.
      CHECK_FALSE(tokenizer->IsEndOfGeneration(greedy[i]));
      const Token likeliest = prompt["top"][i][0][0].get<Token>();
      if (likeliest != greedy[i] && prompt["top"][i][0][1] != prompt["top"][i][1][1]) {
        CHECK(tokenizer->IsEndOfGeneration(likeliest));
      }
    }
    // The recording left out tokens that ended inside a character: such lists are shorter than the 64 asked for.
    if (greedy.size() == 64) CHECK(text + stream.Finish() == prompt["greedy_text"].get<std::string>());
  }
}

TEST_CASE("golden: SmolLM2 tokenizes as recorded") {
  CheckGolden("smollm2", "smollm2");
  CheckGolden("smollm2-f32", "smollm2");
}

TEST_CASE("golden: Gemma 3 tokenizes as recorded") {
  CheckGolden("gemma3", "gemma3");
  CheckGolden("gemma3-f32", "gemma3");
}

TEST_CASE("golden: any bytes come back from real vocabularies") {
  const uint32_t seed = std::random_device()();
  CAPTURE(seed);
  std::mt19937 random(seed);
  const auto smollm2 = OpenTokenizer("smollm2");
  const auto gemma3 = OpenTokenizer("gemma3");
  // SmolLM2 has no piece for these.
  const std::string missing("\x04\x06\x13\x14\x16\x1d\xc0\xc1\xf1\xf2\xf5\xf6\xf7\xf8\xf9\xfa\xfb\xfc\xfd\xfe\xff");
  for (int round = 0; round < 300; ++round) {
    const std::string bytes = RandomBytes(random, random() % 200, round % 3);
    std::string known = bytes;
    std::erase_if(known, [&](char c) { return missing.find(c) != std::string::npos; });
    CHECK(smollm2->Decode(smollm2->Encode(bytes, {.add_special = false, .parse_special = false})) == known);
    std::string spaced = bytes;  // SentencePiece writes a space as U+2581 and can't tell the two apart
    for (size_t at; (at = spaced.find("\u2581")) != std::string::npos;) spaced.replace(at, 3, " ");
    CHECK(gemma3->Decode(gemma3->Encode(bytes, {.add_special = false, .parse_special = false})) == spaced);
  }
}

TEST_CASE("golden: special tokens of the real vocabularies") {
  const auto smollm2 = OpenTokenizer("smollm2");
  CHECK(smollm2->num_tokens() == 49152);
  CHECK(smollm2->Encode("<|im_start|>user\nHi<|im_end|>\n") == std::vector<Token>{1, 4093, 198, 26843, 2, 198});
  const auto plain = smollm2->Encode("<|im_end|>", {.add_special = true, .parse_special = false});
  CHECK(std::find(plain.begin(), plain.end(), 2) == plain.end());
  CHECK(smollm2->Decode(plain) == "<|im_end|>");
  CHECK(smollm2->Decode(2) == "");
  CHECK(smollm2->Decode(2, true) == "<|im_end|>");
  CHECK(smollm2->IsEndOfGeneration(0));
  CHECK(smollm2->IsEndOfGeneration(2));
  CHECK_FALSE(smollm2->IsEndOfGeneration(1));

  const auto gemma3 = OpenTokenizer("gemma3");
  CHECK(gemma3->num_tokens() == 262144);
  CHECK(gemma3->Encode("<end_of_turn>", {.add_special = false, .parse_special = true}) == std::vector<Token>{106});
  CHECK(gemma3->IsEndOfGeneration(106));
  CHECK(gemma3->IsEndOfGeneration(1));
  CHECK(gemma3->bos() == Token{2});
  for (const char* name : {"<end_of_turn>", "<bos>", "<0x0A>", "<unk>"}) {
    CAPTURE(name);
    const auto spelled = gemma3->Encode(name, {.add_special = false, .parse_special = false});
    CHECK(spelled.size() > 1);
    CHECK(gemma3->Decode(spelled) == name);
  }
}

TEST_CASE("golden: the real chat templates") {
  auto chat = ChatTemplate::Open(*OpenModel("smollm2"));
  REQUIRE_MESSAGE(chat.has_value(), chat.error().message);
  CHECK(chat->family() == "chatml");
  CHECK(chat->Render(std::vector<ChatMessage>{{"user", "Hi"}}, true).value() ==
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  const auto base = ChatTemplate::Open(*OpenModel("gemma3"));  // the file is the base model's and has none
  REQUIRE_FALSE(base.has_value());
  CHECK(base.error().code == ErrorCode::kUnsupported);
  CHECK(base.error().message.contains("--no-template"));
}

}  // namespace
}  // namespace kvist::tokenizer_golden_test
