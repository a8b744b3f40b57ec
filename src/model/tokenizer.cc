// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors

#include "model/tokenizer.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "model/bpe.h"
#include "model/piece_map.h"
#include "model/sentencepiece.h"
#include "model/special_tokens.h"
#include "model/utf8.h"
#include "model/vocabulary.h"

namespace kvist {
namespace {

// Control tokens that end an answer in some family, whatever the file declares: files often name only one of theirs.
constexpr std::string_view kEndNames[] = {
    "</s>",    "<eos>",         "<|endoftext|>", "<|end_of_text|>", "<|im_end|>",   "<|eot_id|>",      "<|eom_id|>",
    "<|end|>", "<end_of_turn>", "<|fim_pad|>",   "<|repo_name|>",   "<|file_sep|>", "<|end_of_turn|>",
};

constexpr std::string_view kReplacement = "\uFFFD";

}  // namespace

struct Tokenizer::State {
  explicit State(Vocabulary the_vocabulary)
      : vocabulary(std::move(the_vocabulary)), map(vocabulary.pieces), special(vocabulary) {
    ends = vocabulary.more_ends;
    if (vocabulary.eos) ends.push_back(*vocabulary.eos);
    for (const std::string_view name : kEndNames) {
      const Token token = map.Find(name);
      if (token >= 0 && TypeOf(token) == TokenType::kControl) ends.push_back(token);
    }
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  bool Has(Token token) const { return token >= 0 && static_cast<size_t>(token) < vocabulary.pieces.size(); }
  TokenType TypeOf(Token token) const { return vocabulary.types[token]; }
  bool IsControl(Token token) const {
    return TypeOf(token) == TokenType::kControl || TypeOf(token) == TokenType::kUnknown;
  }

  void EncodePlain(std::string_view text, bool after_special, std::vector<Token>& tokens) const;
  size_t SkipSpaceAfter(Token token, std::string_view text, size_t from) const;
  void AppendBytes(Token token, bool render_special, std::string& out) const;

  const Vocabulary vocabulary;
  const PieceMap map;
  const SpecialTokens special;
  std::vector<Token> ends;
  std::optional<ByteLevelBpe> bpe;  // one of the two
  std::optional<SentencePiece> sentence_piece;
};

void Tokenizer::State::EncodePlain(std::string_view text, bool after_special, std::vector<Token>& tokens) const {
  if (text.empty()) return;
  if (bpe) {
    bpe->Encode(text, tokens);
  } else {
    sentence_piece->Encode(text, vocabulary.add_space_prefix && after_special, tokens);
  }
}

// Phi-3 was trained with the white space behind its markers belonging to them.
size_t Tokenizer::State::SkipSpaceAfter(Token token, std::string_view text, size_t from) const {
  if (!vocabulary.strip_after_control || TypeOf(token) != TokenType::kControl) return from;
  for (const std::string_view keeps : {"<s>", "<|endoftext|>"}) {
    if (vocabulary.pieces[token] == keeps) return from;
  }
  const size_t next = text.find_first_not_of(" \t\n\v\f\r", from);
  return next == std::string_view::npos ? text.size() : next;
}

void Tokenizer::State::AppendBytes(Token token, bool render_special, std::string& out) const {
  if (!Has(token)) return;
  if (IsControl(token)) {
    if (render_special) out.append(vocabulary.pieces[token]);
  } else if (TypeOf(token) == TokenType::kUserDefined) {
    out.append(vocabulary.pieces[token]);
  } else if (bpe) {
    AppendBytesOfPiece(vocabulary.pieces[token], out);
  } else {
    sentence_piece->AppendBytes(token, out);
  }
}

Tokenizer::Tokenizer(std::shared_ptr<const State> state) : state_(std::move(state)) {}

Result<std::shared_ptr<const Tokenizer>> Tokenizer::Open(const std::shared_ptr<const GgufFile>& file) {
  KVIST_TRY(Vocabulary vocabulary, ReadVocabulary(file));
  auto tokenizer = Open(std::move(vocabulary));
  if (!tokenizer) return Fail(tokenizer.error().code, file->path() + ": " + tokenizer.error().message);
  return tokenizer;
}

Result<std::shared_ptr<const Tokenizer>> Tokenizer::Open(Vocabulary vocabulary) {
  KVIST_TRY_VOID(CheckVocabulary(vocabulary));
  auto state = std::make_shared<State>(std::move(vocabulary));
  if (state->vocabulary.model == "gpt2") {
    KVIST_TRY(state->bpe, ByteLevelBpe::Open(state->vocabulary, state->map));
  } else if (state->vocabulary.model == "llama") {
    KVIST_TRY(state->sentence_piece, SentencePiece::Open(state->vocabulary, state->map));
  } else {
    return Fail(ErrorCode::kUnsupported, "the model's vocabulary kind '" + state->vocabulary.model.substr(0, 60) +
                                             "' (tokenizer.ggml.model) is not known; known are gpt2 and llama.");
  }
  return std::shared_ptr<const Tokenizer>(new Tokenizer(std::move(state)));
}

std::vector<Token> Tokenizer::Encode(std::string_view text, EncodeOptions options) const {
  const State& state = *state_;
  std::vector<Token> tokens;
  if (options.add_special && state.vocabulary.add_bos && state.vocabulary.bos) tokens.push_back(*state.vocabulary.bos);
  bool after_special = true;
  size_t done = 0;
  while (const auto match = state.special.Find(text, done, options.parse_special)) {
    state.EncodePlain(text.substr(done, match->begin - done), after_special, tokens);
    tokens.push_back(match->token);
    after_special = true;
    done = state.SkipSpaceAfter(match->token, text, match->end);
  }
  state.EncodePlain(text.substr(done), after_special, tokens);
  if (options.add_special && state.vocabulary.add_eos && state.vocabulary.eos) tokens.push_back(*state.vocabulary.eos);
  return tokens;
}

std::string Tokenizer::Decode(Token token, bool render_special) const {
  std::string out;
  state_->AppendBytes(token, render_special, out);
  return out;
}

std::string Tokenizer::Decode(std::span<const Token> tokens, bool render_special) const {
  std::string out;
  for (const Token token : tokens) state_->AppendBytes(token, render_special, out);
  return out;
}

bool Tokenizer::IsEndOfGeneration(Token token) const {
  return std::find(state_->ends.begin(), state_->ends.end(), token) != state_->ends.end();
}

int Tokenizer::num_tokens() const {
  return static_cast<int>(state_->vocabulary.pieces.size());
}
std::optional<Token> Tokenizer::bos() const {
  return state_->vocabulary.bos;
}

StreamDecoder::StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer) : tokenizer_(std::move(tokenizer)) {}

std::string StreamDecoder::Push(Token token) {
  pending_ += tokenizer_->Decode(token);
  std::string out;
  std::string_view rest = pending_;
  while (!rest.empty()) {
    const Utf8Step step = NextUtf8(rest);
    if (step.kind == Utf8Step::Kind::kIncomplete) break;
    out.append(step.kind == Utf8Step::Kind::kCharacter ? rest.substr(0, step.num_bytes) : kReplacement);
    rest.remove_prefix(step.num_bytes);
  }
  pending_ = std::string(rest);
  return out;
}

std::string StreamDecoder::Finish() {
  const bool cut_off = !std::exchange(pending_, std::string()).empty();
  return std::string(cut_off ? kReplacement : std::string_view());
}

}  // namespace kvist
