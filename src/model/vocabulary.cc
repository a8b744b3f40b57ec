// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors

#include "model/vocabulary.h"

#include <algorithm>
#include <limits>
#include <string>

#include "model/pretokenize.h"

namespace kvist {
namespace {

std::string Key(std::string_view name) {
  return "tokenizer.ggml." + std::string(name);
}

std::unexpected<Error> CorruptVocabulary(const std::string& what) {
  return Fail(ErrorCode::kCorrupt, what + "; get the model file again.");
}

// The array under `key`, or nullptr when the file has none. kCorrupt when it is something else.
template <class T>
Result<const std::vector<T>*> FindArray(const GgufFile& file, const std::string& key) {
  const GgufValue* value = file.Find(key);
  if (value == nullptr) return nullptr;
  const auto* array = std::get_if<std::vector<T>>(value);
  if (array == nullptr) return CorruptVocabulary(file.path() + ": " + key + " is not the array it should be");
  return array;
}

// Whole numbers that a file may hold with or without a sign.
Result<std::vector<int64_t>> ReadIntegers(const GgufFile& file, const std::string& key) {
  const GgufValue* value = file.Find(key);
  if (value == nullptr) return std::vector<int64_t>();
  if (const auto* array = std::get_if<std::vector<int64_t>>(value)) return *array;
  if (const auto* array = std::get_if<std::vector<uint64_t>>(value)) {
    return std::vector<int64_t>(array->begin(), array->end());
  }
  return CorruptVocabulary(file.path() + ": " + key + " is not an array of whole numbers");
}

Result<std::vector<TokenType>> ReadTypes(const GgufFile& file, size_t num_tokens) {
  KVIST_TRY(const std::vector<int64_t> numbers, ReadIntegers(file, Key("token_type")));
  if (numbers.empty()) return std::vector<TokenType>(num_tokens, TokenType::kNormal);
  std::vector<TokenType> types;
  types.reserve(numbers.size());
  for (const int64_t number : numbers) {
    if (number < 0 || number > static_cast<int64_t>(TokenType::kByte)) {
      return CorruptVocabulary(file.path() + ": " + Key("token_type") + " holds " + std::to_string(number) +
                               ", which is no token type (0 to 6)");
    }
    types.push_back(static_cast<TokenType>(number));
  }
  return types;
}

Result<std::optional<Token>> ReadId(const GgufFile& file, std::string_view name, size_t num_tokens) {
  const std::string key = Key(name);
  if (file.Find(key) == nullptr) return std::nullopt;
  KVIST_TRY(const uint64_t id, file.GetUint(key));
  if (id >= num_tokens) {
    return CorruptVocabulary(file.path() + ": " + key + " is " + std::to_string(id) + ", but there are only " +
                             std::to_string(num_tokens) + " tokens");
  }
  return static_cast<Token>(id);
}

Status ReadIds(const GgufFile& file, Vocabulary& vocabulary) {
  const size_t num_tokens = vocabulary.pieces.size();
  KVIST_TRY(vocabulary.bos, ReadId(file, "bos_token_id", num_tokens));
  KVIST_TRY(vocabulary.eos, ReadId(file, "eos_token_id", num_tokens));
  KVIST_TRY(vocabulary.unknown, ReadId(file, "unknown_token_id", num_tokens));
  for (const char* name : {"eot_token_id", "eom_token_id"}) {
    KVIST_TRY(const std::optional<Token> id, ReadId(file, name, num_tokens));
    if (id) vocabulary.more_ends.push_back(*id);
  }
  return {};
}

// The ids SentencePiece gives out when nobody asks for others; old Llama files leave them unsaid.
void FillSentencePieceIds(Vocabulary& vocabulary) {
  if (vocabulary.pieces.size() < 3) return;
  if (!vocabulary.unknown) vocabulary.unknown = 0;
  if (!vocabulary.bos) vocabulary.bos = 1;
  if (!vocabulary.eos) vocabulary.eos = 2;
}

Status ReadSentencePiece(const GgufFile& file, Vocabulary& vocabulary) {
  KVIST_TRY(const auto* scores, FindArray<double>(file, Key("scores")));
  if (scores != nullptr) vocabulary.scores.assign(scores->begin(), scores->end());
  FillSentencePieceIds(vocabulary);
  KVIST_TRY(vocabulary.add_space_prefix, file.BoolOr(Key("add_space_prefix"), true));
  KVIST_TRY(const std::string_view architecture, file.StringOr("general.architecture", ""));
  vocabulary.strip_after_control = architecture == "phi3";
  vocabulary.add_bos = true;
  return {};
}

Status ReadByteLevelBpe(const GgufFile& file, Vocabulary& vocabulary) {
  KVIST_TRY(const std::string_view pretokenizer, file.StringOr(Key("pre"), "default"));
  vocabulary.pretokenizer = pretokenizer;
  KVIST_TRY(const auto* merges, FindArray<std::string_view>(file, Key("merges")));
  if (merges == nullptr) return CorruptVocabulary(file.path() + ": " + Key("merges") + " is missing");
  vocabulary.merges = *merges;
  vocabulary.add_bos = Pretokenizer::AddsBos(vocabulary.pretokenizer);
  return {};
}

}  // namespace

Result<Vocabulary> ReadVocabulary(const std::shared_ptr<const GgufFile>& file) {
  Vocabulary vocabulary;
  vocabulary.owner = file;
  KVIST_TRY(const std::string_view model, file->GetString(Key("model")));
  vocabulary.model = model;
  KVIST_TRY(const auto* pieces, FindArray<std::string_view>(*file, Key("tokens")));
  if (pieces == nullptr) return CorruptVocabulary(file->path() + ": " + Key("tokens") + " is missing");
  vocabulary.pieces = *pieces;
  KVIST_TRY(vocabulary.types, ReadTypes(*file, pieces->size()));
  KVIST_TRY_VOID(ReadIds(*file, vocabulary));
  if (vocabulary.model == "llama") KVIST_TRY_VOID(ReadSentencePiece(*file, vocabulary));
  if (vocabulary.model == "gpt2") KVIST_TRY_VOID(ReadByteLevelBpe(*file, vocabulary));
  KVIST_TRY(vocabulary.add_bos, file->BoolOr(Key("add_bos_token"), vocabulary.add_bos));
  KVIST_TRY(vocabulary.add_eos, file->BoolOr(Key("add_eos_token"), false));
  return vocabulary;
}

Status CheckVocabulary(const Vocabulary& vocabulary) {
  const size_t num_tokens = vocabulary.pieces.size();
  if (num_tokens == 0) return CorruptVocabulary(Key("tokens") + " is empty");
  if (num_tokens > size_t{std::numeric_limits<Token>::max()})
    return CorruptVocabulary(Key("tokens") + " is absurdly long");
  if (vocabulary.types.size() != num_tokens) {
    return CorruptVocabulary(Key("token_type") + " has " + std::to_string(vocabulary.types.size()) + " entries for " +
                             std::to_string(num_tokens) + " tokens");
  }
  if (vocabulary.model == "llama" && vocabulary.scores.size() != num_tokens) {
    return CorruptVocabulary(Key("scores") + " has " + std::to_string(vocabulary.scores.size()) + " entries for " +
                             std::to_string(num_tokens) + " tokens");
  }
  std::vector<Token> ids = vocabulary.more_ends;
  for (const auto& id : {vocabulary.bos, vocabulary.eos, vocabulary.unknown}) {
    if (id) ids.push_back(*id);
  }
  for (const Token id : ids) {
    if (id < 0 || static_cast<size_t>(id) >= num_tokens) {
      return CorruptVocabulary("a special token has id " + std::to_string(id) + ", but there are only " +
                               std::to_string(num_tokens) + " tokens");
    }
  }
  return {};
}

}  // namespace kvist
