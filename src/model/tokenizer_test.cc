// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors

#include "model/tokenizer.h"

#include <doctest/doctest.h>

#include <functional>
#include <random>
#include <string>
#include <vector>

#include "model/gguf_builder.h"
#include "model/vocabulary.h"

namespace kvist::tokenizer_test {
namespace {

using Tokens = std::vector<Token>;
using enum TokenType;

// GPT-2's spelling of a byte, as UTF-8.
std::string Spelled(int byte) {
  static const std::vector<std::string> table = [] {
    std::vector<std::string> spellings(256);
    int next = 256;
    for (int b = 0; b < 256; ++b) {
      const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
      const int c = printable ? b : next++;
      spellings[b] = c < 128 ? std::string(1, static_cast<char>(c))
                             : std::string{static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 63))};
    }
    return spellings;
  }();
  return table[byte];
}

// Plain data whose text lives as long as it does.
struct Small {
  std::shared_ptr<std::vector<std::string>> text = std::make_shared<std::vector<std::string>>();
  Vocabulary vocabulary;
  std::vector<std::string> merges;

  Token Add(const std::string& piece, TokenType type = kNormal, float score = 0) {
    text->push_back(piece);
    vocabulary.types.push_back(type);
    vocabulary.scores.push_back(score);
    return static_cast<Token>(text->size() - 1);
  }
  Vocabulary Build() {
    Vocabulary built = vocabulary;
    const size_t num_pieces = text->size();
    text->insert(text->end(), merges.begin(), merges.end());
    for (size_t i = 0; i < text->size(); ++i) (i < num_pieces ? built.pieces : built.merges).push_back((*text)[i]);
    built.owner = text;
    return built;
  }
  std::shared_ptr<const Tokenizer> Open() {
    auto tokenizer = Tokenizer::Open(Build());
    REQUIRE_MESSAGE(tokenizer.has_value(), tokenizer.error().message);
    return *tokenizer;
  }
};

// All bytes (ids as their values), then a few merges and special tokens.
Small SmallBpe() {
  Small small;
  small.vocabulary.model = "gpt2";
  small.vocabulary.pretokenizer = "gpt-2";
  for (int byte = 0; byte < 256; ++byte) small.Add(Spelled(byte));
  small.merges = {"l o", "lo w", "e r", "Ġ low", "Ġ l"};
  for (const char* piece : {"lo", "low", "er", "Ġlow", "Ġl"}) small.Add(piece);  // 256 to 260
  small.Add("<|end|>", kControl);                                                // 261
  small.Add("<tool>", kUserDefined);
  small.Add("<tool>\n", kUserDefined);
  small.Add("<unk>", kUnknown);
  small.vocabulary.eos = small.Add("<eos>", kControl);  // 265
  small.vocabulary.bos = small.Add("<bos>", kControl);
  return small;
}

Small SmallSentencePiece() {
  Small small;
  small.vocabulary.model = "llama";
  small.vocabulary.unknown = small.Add("<unk>", kUnknown);
  small.vocabulary.bos = small.Add("<s>", kControl);
  small.vocabulary.eos = small.Add("</s>", kControl);
  for (int byte = 0; byte < 256; ++byte) {  // 3 to 258
    const char* digits = "0123456789ABCDEF";
    small.Add(std::string("<0x") + digits[byte / 16] + digits[byte % 16] + ">", kByte);
  }
  for (const char* piece : {"▁", "a", "b", "c", "<", "s", ">"}) small.Add(piece, kNormal, -10);  // 259 to 265
  small.Add("ab", kNormal, -2);                                                                  // 266
  small.Add("bc", kNormal, -1);                                                                  // 267
  small.Add("▁a", kNormal, -3);                                                                  // 268
  small.Add("<s", kNormal, -4);                                                                  // 269
  small.Add("\n\n", kUserDefined);                                                               // 270
  small.vocabulary.add_bos = true;
  small.vocabulary.add_space_prefix = true;
  return small;
}

TEST_CASE("tokenizer: byte-level BPE merges in the order of the list") {
  const auto tokenizer = SmallBpe().Open();
  CHECK(tokenizer->Encode("low") == Tokens{257});
  CHECK(tokenizer->Encode(" lower") == Tokens{259, 258});
  CHECK(tokenizer->Encode(" l") == Tokens{260});
  CHECK(tokenizer->Encode("lolow") == Tokens{256, 257});
  CHECK(tokenizer->Encode("") == Tokens{});
  CHECK(tokenizer->Decode(Tokens{259, 258}) == " lower");
  CHECK(tokenizer->Decode(-1) == "");
  CHECK(tokenizer->Decode(1 << 30) == "");
}

TEST_CASE("tokenizer: special tokens, longest first, control ones only when asked") {
  const auto tokenizer = SmallBpe().Open();
  CHECK(tokenizer->Encode("<tool>\nlow<tool><|end|>") == Tokens{263, 257, 262, 261});
  const Tokens plain = tokenizer->Encode("<|end|><tool>", {.add_special = true, .parse_special = false});
  CHECK(plain.size() == 8);
  CHECK(plain.back() == 262);
  CHECK(tokenizer->Decode(plain) == "<|end|><tool>");
  CHECK(tokenizer->Decode(261) == "");
  CHECK(tokenizer->Decode(261, true) == "<|end|>");
  CHECK(tokenizer->IsEndOfGeneration(261));  // by its name
  CHECK(tokenizer->IsEndOfGeneration(265));  // because the file says so
  CHECK_FALSE(tokenizer->IsEndOfGeneration(262));
}

TEST_CASE("tokenizer: BOS and EOS as the vocabulary asks") {
  Small small = SmallBpe();
  small.vocabulary.add_bos = small.vocabulary.add_eos = true;
  const auto tokenizer = small.Open();
  CHECK(tokenizer->Encode("low") == Tokens{266, 257, 265});
  CHECK(tokenizer->Encode("low", {.add_special = false}) == Tokens{257});
  CHECK(tokenizer->Encode("") == Tokens{266, 265});
}

TEST_CASE("tokenizer: any bytes come back from byte-level BPE") {
  const uint32_t seed = std::random_device()();
  CAPTURE(seed);
  std::mt19937 random(seed);
  for (const char* pre : {"default", "gpt-2", "smollm", "llama-bpe", "qwen2", "gpt-4o"}) {
    Small small = SmallBpe();
    small.vocabulary.pretokenizer = pre;
    const auto tokenizer = small.Open();
    for (int round = 0; round < 200; ++round) {
      std::string bytes(random() % 64, ' ');
      for (char& c : bytes) c = random() % 2 ? static_cast<char>(random()) : " lower\n<tool>"[random() % 13];
      CHECK(tokenizer->Decode(tokenizer->Encode(bytes, {.add_special = true, .parse_special = false})) == bytes);
    }
  }
}

TEST_CASE("tokenizer: the whole word first where the family does so") {
  Small small = SmallBpe();
  const Token whole = small.Add("zz");  // no merge leads to it
  CHECK(small.Open()->Encode("zz") == Tokens{'z', 'z'});
  small = SmallBpe();
  CHECK(small.Add("zz") == whole);
  small.vocabulary.pretokenizer = "llama-bpe";
  CHECK(small.Open()->Encode("zz") == Tokens{whole});
}

TEST_CASE("tokenizer: SentencePiece joins by score, prefixes a space, falls back to bytes") {
  const auto tokenizer = SmallSentencePiece().Open();
  CHECK(tokenizer->Encode("abc") == Tokens{1, 268, 267});  // bc (-1) before ab (-2), then the prefix joins a
  CHECK(tokenizer->Encode("é") == Tokens{1, 259, 3 + 0xC3, 3 + 0xA9});
  CHECK(tokenizer->Encode("\xff\n") == Tokens{1, 259, 3 + 0xFF, 3 + '\n'});
  CHECK(tokenizer->Encode("c\n\na") == Tokens{1, 259, 262, 270, 268});  // a space after a special token, too
  CHECK(tokenizer->Encode("") == Tokens{1});
  CHECK(tokenizer->Decode(Tokens{1, 268, 267}) == " abc");
  CHECK(tokenizer->Decode(3 + 0xC3) == "\xC3");
  // Text never spells out a control token: it stays "<s" and ">".
  CHECK(tokenizer->Encode("<s>", {.add_special = false, .parse_special = false}) == Tokens{259, 269, 265});
  CHECK(tokenizer->Encode("<s>", {.add_special = false}) == Tokens{1});

  Small bare = SmallSentencePiece();
  bare.vocabulary.add_space_prefix = false;
  CHECK(bare.Open()->Encode("abc ") == Tokens{1, 260, 267, 259});
  for (TokenType& type : bare.vocabulary.types) type = type == kByte ? kUnused : type;  // no fall-back: unknown
  CHECK(bare.Open()->Encode("éa") == Tokens{1, 0, 260});
}

TEST_CASE("tokenizer: Phi-3's markers swallow the white space behind them") {
  Small small = SmallSentencePiece();
  small.Add("<|user|>", kControl);  // 271
  small.vocabulary.add_space_prefix = false;
  small.vocabulary.strip_after_control = true;
  const auto tokenizer = small.Open();
  CHECK(tokenizer->Encode("<|user|>\n a<|user|> \n", {.add_special = false}) == Tokens{271, 260, 271});
  CHECK(tokenizer->Encode("<s> a", {.add_special = false}) == Tokens{1, 268});
}

TEST_CASE("tokenizer: the stream never splits a character") {
  const auto tokenizer = SmallBpe().Open();
  const std::string text = "né 大 🍕!";
  StreamDecoder decoder(tokenizer);
  std::string shown;
  for (const char c : text) {
    const std::string part = decoder.Push(static_cast<uint8_t>(c));
    CHECK((part.empty() || (static_cast<uint8_t>(part[0]) & 0xC0) != 0x80));
    shown += part;
  }
  CHECK(shown == text);
  CHECK(decoder.Finish() == "");
  CHECK(decoder.Push(0xF0) == "");
  CHECK(decoder.Push(0x9F) == "");
  CHECK(decoder.Push('a') == "\uFFFDa");
  CHECK(decoder.Push(0xFF) == "\uFFFD");
  CHECK(decoder.Push(0xE5) == "");
  CHECK(decoder.Push(261) == "");
  CHECK(decoder.Finish() == "\uFFFD");
  CHECK(decoder.Finish() == "");
}

TEST_CASE("tokenizer: a vocabulary that contradicts itself is refused") {
  const auto check = [](Small small, const std::function<void(Vocabulary&)>& damage, ErrorCode code) {
    Vocabulary vocabulary = small.Build();
    damage(vocabulary);
    const auto tokenizer = Tokenizer::Open(vocabulary);
    REQUIRE_FALSE(tokenizer.has_value());
    CHECK(tokenizer.error().code == code);
    CHECK(tokenizer.error().message.size() > 20);
  };
  using enum ErrorCode;
  check(
      SmallBpe(), [](Vocabulary& v) { v.types.pop_back(); }, kCorrupt);
  check(
      SmallBpe(), [](Vocabulary& v) { v.pieces.clear(); }, kCorrupt);
  check(
      SmallBpe(), [](Vocabulary& v) { v.bos = 100000; }, kCorrupt);
  check(
      SmallBpe(), [](Vocabulary& v) { v.eos = -1; }, kCorrupt);
  check(
      SmallBpe(), [](Vocabulary& v) { v.more_ends = {100000}; }, kCorrupt);
  for (const char* merge : {"nospace", "l o w", "q zq", "", " ", "l ", "lo lo"}) {
    CAPTURE(merge);
    check(
        SmallBpe(), [&](Vocabulary& v) { v.merges.push_back(merge); }, kCorrupt);
  }
  check(
      SmallBpe(), [](Vocabulary& v) { v.model = "bert"; }, kUnsupported);
  check(
      SmallBpe(), [](Vocabulary& v) { v.pretokenizer = "martian"; }, kUnsupported);
  check(
      SmallSentencePiece(), [](Vocabulary& v) { v.scores.pop_back(); }, kCorrupt);
  check(
      SmallSentencePiece(), [](Vocabulary& v) { v.types[259] = TokenType::kByte; }, kCorrupt);
}

GgufBuilder SmallFile() {
  GgufBuilder builder;
  builder.AddString("tokenizer.ggml.model", "llama");
  builder.AddStrings("tokenizer.ggml.tokens", {"<unk>", "<s>", "</s>", "▁", "a", "▁a"});
  builder.AddFloats("tokenizer.ggml.scores", {0, 0, 0, -1, -1, -2});
  builder.AddInts("tokenizer.ggml.token_type", {2, 3, 3, 1, 1, 1});
  return builder;
}

Result<std::shared_ptr<const Tokenizer>> OpenBuilt(const GgufBuilder& builder) {
  const TemporaryFile file(builder.Build());
  const auto gguf = GgufFile::Open(file.path());
  REQUIRE_MESSAGE(gguf.has_value(), gguf.error().message);
  return Tokenizer::Open(*gguf);
}

TEST_CASE("tokenizer: a file's keys, and the defaults of its kind") {
  const auto tokenizer = OpenBuilt(SmallFile());
  REQUIRE_MESSAGE(tokenizer.has_value(), tokenizer.error().message);
  CHECK((*tokenizer)->Encode("a") == Tokens{1, 5});  // BOS 1 and a space prefix unless the file says otherwise
  CHECK((*tokenizer)->IsEndOfGeneration(2));
  CHECK((*tokenizer)->num_tokens() == 6);

  GgufBuilder told = SmallFile();
  told.AddBool("tokenizer.ggml.add_bos_token", false);
  told.AddBool("tokenizer.ggml.add_eos_token", true);
  told.AddBool("tokenizer.ggml.add_space_prefix", false);
  told.AddUint("tokenizer.ggml.eot_token_id", 4);
  const auto other = OpenBuilt(told);
  REQUIRE(other.has_value());
  CHECK((*other)->Encode("a") == Tokens{4, 2});
  CHECK((*other)->IsEndOfGeneration(4));
}

TEST_CASE("tokenizer: a file with wrong keys says which") {
  const auto check = [](const std::function<void(GgufBuilder&)>& damage, const char* word) {
    GgufBuilder builder;
    damage(builder);
    const auto tokenizer = OpenBuilt(builder);
    REQUIRE_FALSE(tokenizer.has_value());
    CHECK(tokenizer.error().code == ErrorCode::kCorrupt);
    CAPTURE(tokenizer.error().message);
    CHECK(tokenizer.error().message.contains(word));
  };
  check([](GgufBuilder&) {}, "tokenizer.ggml.model");
  check([](GgufBuilder& b) { b.AddString("tokenizer.ggml.model", "gpt2"); }, "tokenizer.ggml.tokens");
  check(
      [](GgufBuilder& b) {
        b.AddString("tokenizer.ggml.model", "gpt2");
        b.AddStrings("tokenizer.ggml.tokens", {"a"});
      },
      "tokenizer.ggml.merges");
  check(
      [](GgufBuilder& b) {
        b = SmallFile();
        b.AddUint("tokenizer.ggml.bos_token_id", 6);
      },
      "bos_token_id");
  check(
      [](GgufBuilder& b) {
        b.AddString("tokenizer.ggml.model", "llama");
        b.AddStrings("tokenizer.ggml.tokens", {"a"});
        b.AddInts("tokenizer.ggml.token_type", {7});
      },
      "token_type");
  check(
      [](GgufBuilder& b) {
        b.AddString("tokenizer.ggml.model", "llama");
        b.AddStrings("tokenizer.ggml.tokens", {"a"});
        b.AddString("tokenizer.ggml.scores", "none");
      },
      "scores");
}

}  // namespace
}  // namespace kvist::tokenizer_test
