// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "model/golden.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string_view>

namespace kvist {
namespace {

using nlohmann::json;

constexpr size_t kGoldenPieceTokens = 512;

std::optional<std::string> ReadText(const json& object, const char* key) {
  const auto it = object.find(key);
  if (it == object.end() || !it->is_string()) return std::nullopt;
  return it->get<std::string>();
}

std::optional<Token> ReadToken(const json& value) {
  if (!value.is_number_integer()) return std::nullopt;
  const auto number = value.get<int64_t>();
  if (number < 0 || number > INT32_MAX) return std::nullopt;
  return static_cast<Token>(number);
}

std::optional<std::vector<Token>> ReadTokens(const json& object, const char* key) {
  const auto it = object.find(key);
  if (it == object.end() || !it->is_array()) return std::nullopt;
  std::vector<Token> tokens;
  for (const json& value : *it) {
    const auto token = ReadToken(value);
    if (!token) return std::nullopt;
    tokens.push_back(*token);
  }
  return tokens;
}

// [[[token, log-probability], ...], ...]
std::optional<std::vector<std::vector<std::pair<Token, double>>>> ReadTop(const json& object) {
  const auto it = object.find("top");
  if (it == object.end() || !it->is_array()) return std::nullopt;
  std::vector<std::vector<std::pair<Token, double>>> places;
  for (const json& place : *it) {
    if (!place.is_array()) return std::nullopt;
    auto& entries = places.emplace_back();
    for (const json& pair : place) {
      if (!pair.is_array() || pair.size() != 2 || !pair[1].is_number()) return std::nullopt;
      const auto token = ReadToken(pair[0]);
      if (!token) return std::nullopt;
      entries.emplace_back(*token, pair[1].get<double>());
    }
  }
  return places;
}

std::optional<GoldenPrompt> ReadPrompt(const json& object) {
  if (!object.is_object()) return std::nullopt;
  auto name = ReadText(object, "name");
  auto text = ReadText(object, "text");
  auto ids = ReadTokens(object, "ids");
  auto greedy = ReadTokens(object, "greedy");
  auto top = ReadTop(object);
  if (!name || !text || !ids || !greedy || !top) return std::nullopt;
  if (ids->empty() || top->size() != greedy->size()) return std::nullopt;
  return GoldenPrompt{.name = std::move(*name),
                      .text = std::move(*text),
                      .ids = std::move(*ids),
                      .greedy = std::move(*greedy),
                      .greedy_text = ReadText(object, "greedy_text").value_or(""),
                      .top = std::move(*top)};
}

// The logarithm of the sum of e^logit, added up in f32: first the `num_first` largest, then the others as they come.
double LogSum(std::span<const float> logits, size_t num_first) {
  std::vector<float> ordered(logits.begin(), logits.end());
  const auto middle = ordered.begin() + static_cast<std::ptrdiff_t>(std::clamp<size_t>(num_first, 1, ordered.size()));
  std::partial_sort(ordered.begin(), middle, ordered.end(), std::greater());
  float sum = 0.0F;
  for (const float logit : ordered) sum += std::exp(logit - ordered[0]);
  return ordered[0] + std::log(static_cast<double>(sum));
}

// What a model thinks of one place: log-probability of a token, and its choice.
class Prediction {
 public:
  Prediction(std::span<const float> logits, const std::vector<bool>& never) : logits_(logits) {
    for (size_t i = 0; i < logits.size(); ++i) {
      if (never[i]) continue;
      if (choice_ < 0 || logits[i] > logits[static_cast<size_t>(choice_)]) choice_ = static_cast<Token>(i);
    }
  }

  // The sum of p (log p - log q) over the recorded tokens, p recorded, q ours.
  double Divergence(const std::vector<std::pair<Token, double>>& top) const {
    const double log_sum = LogSum(logits_, top.size());
    double sum = 0.0;
    for (const auto& [token, log_p] : top) {
      sum += std::exp(log_p) * (log_p - (logits_[static_cast<size_t>(token)] - log_sum));
    }
    return sum;
  }
  Token choice() const { return choice_; }

 private:
  std::span<const float> logits_;
  Token choice_ = -1;
};

// For each greedy token the bytes of tokens before it that were not recorded; nearly always none.
std::vector<std::string> UnrecordedBefore(const GoldenPrompt& prompt, const Tokenizer& tokenizer) {
  constexpr size_t kMaxBytes = 32;
  std::vector<std::string> unrecorded(prompt.greedy.size());
  std::string_view text = prompt.greedy_text;
  for (size_t i = 0; i < prompt.greedy.size(); ++i) {
    const std::string bytes = tokenizer.Decode(prompt.greedy[i]);
    size_t gap = 0;
    while (gap < std::min(kMaxBytes, text.size()) && !text.substr(gap).starts_with(bytes)) ++gap;
    if (!text.substr(gap).starts_with(bytes)) return unrecorded;  // the text says nothing about the rest
    unrecorded[i] = text.substr(0, gap);
    text.remove_prefix(gap + bytes.size());
  }
  return unrecorded;
}

// The comparison of one prompt: tokens are gathered, fed together, and their logits scored.
class Run {
 public:
  Run(const GoldenPrompt& prompt, Model& model, Cache& cache, const std::vector<bool>& never)
      : prompt_(prompt), model_(model), never_(never), sequence_(cache.Begin()) {}

  // Feeds everything but the prompt's last token, which predicts the first greedy one.
  Status Begin() {
    const std::span<const Token> before(prompt_.ids.data(), prompt_.ids.size() - 1);
    for (size_t begin = 0; begin < before.size(); begin += kGoldenPieceTokens) {
      const auto piece = before.subspan(begin, std::min(kGoldenPieceTokens, before.size() - begin));
      const BatchItem item{&sequence_, piece, LogitsWanted::kNone};
      KVIST_TRY([[maybe_unused]] const auto none, model_.Forward({&item, 1}));
    }
    tokens_.push_back(prompt_.ids.back());
    return {};
  }

  // The last token gathered predicts the greedy token at `place`, which is the next.
  Status Predict(size_t place) {
    places_.push_back(place);
    if (tokens_.size() == kGoldenPieceTokens) {
      KVIST_TRY([[maybe_unused]] const Token choice, Flush());
    }
    tokens_.push_back(prompt_.greedy[place]);
    return {};
  }

  // The model's own choices for tokens with these bytes. False when it would choose others.
  Result<bool> Fill(std::string_view bytes, const Tokenizer& tokenizer) {
    while (!bytes.empty()) {
      KVIST_TRY(const Token choice, Flush());
      const std::string chosen = tokenizer.Decode(choice);
      if (chosen.empty() || !bytes.starts_with(chosen)) return false;
      bytes.remove_prefix(chosen.size());
      tokens_.push_back(choice);
    }
    return true;
  }

  // Feeds what was gathered. Returns what the model would choose next; -1 when nothing was gathered.
  Result<Token> Flush() {
    if (tokens_.empty()) return -1;
    const BatchItem item{&sequence_, tokens_, LogitsWanted::kAll};
    KVIST_TRY(const auto logits, model_.Forward({&item, 1}));
    Token choice = -1;
    for (size_t i = 0; i < tokens_.size(); ++i) {
      const Prediction ours(logits.subspan(i * never_.size(), never_.size()), never_);
      choice = ours.choice();
      if (i < places_.size()) Score(places_[i], ours);
    }
    tokens_.clear();
    places_.clear();
    return choice;
  }

  int num_scored() const { return num_scored_; }
  int num_equal() const { return num_equal_; }
  double kl_sum() const { return kl_sum_; }
  double kl_max() const { return kl_max_; }

 private:
  void Score(size_t place, const Prediction& ours) {
    const double kl = ours.Divergence(prompt_.top[place]);
    ++num_scored_;
    kl_sum_ += kl;
    if (!(kl <= kl_max_)) kl_max_ = kl;  // a NaN must not hide
    if (ours.choice() == prompt_.greedy[place]) ++num_equal_;
  }

  const GoldenPrompt& prompt_;
  Model& model_;
  const std::vector<bool>& never_;  // tokens that are never chosen
  Sequence sequence_;
  std::vector<Token> tokens_;   // gathered, not fed yet
  std::vector<size_t> places_;  // what each of them predicts; shorter by one when the last predicts nothing recorded
  int num_scored_ = 0;
  int num_equal_ = 0;
  double kl_sum_ = 0.0;
  double kl_max_ = 0.0;
};

class Comparison {
 public:
  Comparison(Model& model, Cache& cache, const Tokenizer& tokenizer)
      : model_(model), cache_(cache), tokenizer_(tokenizer), never_(static_cast<size_t>(model.num_vocabulary())) {
    for (size_t i = 0; i < never_.size(); ++i) never_[i] = tokenizer.IsEndOfGeneration(static_cast<Token>(i));
  }

  Status Add(const GoldenPrompt& prompt) {
    ++report_.prompts;
    if (tokenizer_.Encode(prompt.text) == prompt.ids) {
      ++report_.ids_equal;
    } else {
      report_.ids_different.push_back(prompt.name);
    }
    KVIST_TRY_VOID(CheckTokens(prompt));
    if (prompt.greedy.empty()) return {};
    const std::vector<std::string> unrecorded = UnrecordedBefore(prompt, tokenizer_);
    Run run(prompt, model_, cache_, never_);
    KVIST_TRY_VOID(run.Begin());
    for (size_t place = 0; place < prompt.greedy.size(); ++place) {
      KVIST_TRY(const bool same, run.Fill(unrecorded[place], tokenizer_));
      if (!same) break;
      KVIST_TRY_VOID(run.Predict(place));
    }
    KVIST_TRY([[maybe_unused]] const Token next, run.Flush());
    Count(prompt, run);
    return {};
  }

  GoldenReport Finish() {
    if (num_scored_ > 0) report_.kl_mean = kl_sum_ / num_scored_;
    return std::move(report_);
  }

 private:
  // A file made for another vocabulary.
  Status CheckTokens(const GoldenPrompt& prompt) const {
    const auto unknown = [&](Token token) { return token >= model_.num_vocabulary(); };
    bool bad = std::ranges::any_of(prompt.ids, unknown) || std::ranges::any_of(prompt.greedy, unknown);
    for (const auto& place : prompt.top)
      bad |= std::ranges::any_of(place, unknown, [](const auto& p) { return p.first; });
    if (!bad) return {};
    return Fail(
        ErrorCode::kInvalidArgument,
        "prompt '" + prompt.name + "' has tokens that are not in the model's vocabulary; it is of another model");
  }

  void Count(const GoldenPrompt& prompt, const Run& run) {
    report_.greedy_tokens += static_cast<int>(prompt.greedy.size());
    report_.greedy_equal += run.num_equal();
    if (!(run.kl_max() <= report_.kl_max)) report_.kl_max = run.kl_max();
    kl_sum_ += run.kl_sum();
    num_scored_ += run.num_scored();
  }

  Model& model_;
  Cache& cache_;
  const Tokenizer& tokenizer_;
  std::vector<bool> never_;
  GoldenReport report_;
  double kl_sum_ = 0.0;
  int num_scored_ = 0;
};

}  // namespace

Result<Golden> ReadGolden(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) return Fail(ErrorCode::kNotFound, "cannot open " + path + ": " + std::strerror(errno));
  const json root = json::parse(stream, nullptr, /*allow_exceptions=*/false);
  if (root.is_discarded()) return Fail(ErrorCode::kCorrupt, path + " is not JSON");
  const auto prompts = root.is_object() ? root.find("prompts") : root.end();
  if (!root.is_object() || prompts == root.end() || !prompts->is_array()) {
    return Fail(ErrorCode::kCorrupt, path + " has no list of prompts");
  }
  Golden golden;
  golden.model = ReadText(root, "model").value_or("");
  golden.reference = ReadText(root, "reference").value_or("");
  for (const json& object : *prompts) {
    auto prompt = ReadPrompt(object);
    if (!prompt) {
      return Fail(ErrorCode::kCorrupt, path + ": prompt " + std::to_string(golden.prompts.size()) +
                                           " lacks name, text, ids, greedy or top, or they contradict each other");
    }
    golden.prompts.push_back(std::move(*prompt));
  }
  return golden;
}

Result<GoldenReport> CompareGolden(const Golden& golden, Model& model, Cache& cache, const Tokenizer& tokenizer,
                                   const std::function<void(int, int)>& progress) {
  Comparison comparison(model, cache, tokenizer);
  const auto total = static_cast<int>(golden.prompts.size());
  for (int i = 0; i < total; ++i) {
    if (progress) progress(i, total);
    KVIST_TRY_VOID(comparison.Add(golden.prompts[static_cast<size_t>(i)]));
  }
  if (progress) progress(total, total);
  return comparison.Finish();
}

}  // namespace kvist
