// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "engine/strategy.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace kvist {
namespace {

using Json = nlohmann::json;

std::unexpected<Error> Invalid(const std::string& message) {
  return Fail(ErrorCode::kInvalidArgument, "strategies: " + message);
}

Result<std::string> Text(const std::string& where, const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  return Invalid(where + " must be a text in quotes");
}

// An error of a part, with where it stands.
template <class T>
Result<T> At(const std::string& where, Result<T> parsed) {
  if (!parsed) return Invalid(where + ": " + parsed.error().message);
  return parsed;
}

Result<Strategy> ParseStrategy(const std::string& name, const Json& json) {
  if (!json.is_object()) return Invalid("'" + name + "' must be an object");
  Strategy strategy{.name = name};
  for (const auto& [key, value] : json.items()) {
    const std::string where = "'" + name + "', \"" + key + "\"";
    if (key == "tiers") {
      if (!value.is_boolean()) return Invalid(where + " must be true or false");
      strategy.uses_tiers = value.get<bool>();
      continue;
    }
    if (key == "pages") {
      if (!value.is_number_unsigned()) return Invalid(where + " must be a number of tokens, 0 for all");
      strategy.pages.num_tokens = value.get<int64_t>();
      KVIST_TRY_VOID(At(where, strategy.pages.Validate()));
      continue;
    }
    KVIST_TRY(const std::string text, Text(where, value));
    if (key == "growth") {
      KVIST_TRY(strategy.growth, At(where, ParseGrowth(text)));
    } else if (key == "form") {
      KVIST_TRY(strategy.form, At(where, ParseForm(text)));
    } else if (key == "retain") {
      KVIST_TRY(strategy.retain, At(where, ParseRetain(text)));
    } else if (key == "stream") {
      KVIST_TRY(strategy.stream, At(where, ParseStream(text)));
    } else {
      return Invalid(where + " is no part of a strategy; there are growth, form, pages, retain, stream and tiers");
    }
  }
  if (strategy.stream && strategy.retain.is_on()) return Invalid("'" + name + "' has both retain and stream");
  return strategy;
}

// The one that all of them can be stored in: their quantised form, or the open one.
Result<Form> CacheForm(const std::vector<Strategy>& strategies) {
  std::optional<Form> quantised, open;
  for (const Strategy& strategy : strategies) {
    std::optional<Form>& known = IsQuantised(strategy.form) ? quantised : open;
    if (!known) known = strategy.form;
    if (*known == strategy.form) continue;
    return Invalid("one cache has one quantised form and one open form, and there are " + FormName(*known) + " and " +
                   FormName(strategy.form) + "; let all strategies use one of them");
  }
  if (quantised && open && OpenForm(*quantised) != *open) {
    return Invalid("beside the quantised form " + FormName(*quantised) + " the open form is " +
                   FormName(OpenForm(*quantised)) + ", not " + FormName(*open));
  }
  return quantised ? *quantised : *open;
}

}  // namespace

std::string_view StrategySet::DefaultText() {
  return R"({
  "strategies": {
    "predictive": {"growth": "predictive:initial=256,window=5", "form": "f16"},
    "tiers":      {"growth": "exact", "form": "f16", "tiers": true},
    "doubling":   {"growth": "dynamic:initial=512,factor=2", "form": "f16"},
    "compressed": {"growth": "exact", "form": "q4"}
  },
  "classes": {
    "short_chat": "predictive",
    "long_document": "tiers",
    "code": "doubling",
    "creative": "compressed"
  }
}
)";
}

Result<StrategySet> StrategySet::Parse(std::string_view text) {
  const Json json = Json::parse(text, nullptr, false, true);
  const auto is_object = [&](const char* key) { return json.contains(key) && json[key].is_object(); };
  if (!json.is_object() || !is_object("strategies") || !is_object("classes")) {
    return Invalid("not JSON with objects \"strategies\" and \"classes\" (docs/strategies.md has an example)");
  }
  StrategySet set;
  for (const auto& [name, value] : json["strategies"].items()) {
    if (name == "auto") return Invalid("'auto' stands for the choice among them and can't be a strategy's name");
    KVIST_TRY(Strategy strategy, ParseStrategy(name, value));
    set.strategies_.push_back(std::move(strategy));
  }
  if (set.strategies_.empty()) return Invalid("there is none");
  KVIST_TRY(set.cache_form_, CacheForm(set.strategies_));
  for (const auto& [name, value] : json["classes"].items()) {
    KVIST_TRY([[maybe_unused]] const ChatClass known, At("classes", ParseChatClass(name)));
  }
  for (const ChatClass chat_class : kAllChatClasses) {
    const std::string name = ChatClassName(chat_class);
    if (!json["classes"].contains(name)) return Invalid("class '" + name + "' has none");
    KVIST_TRY(const std::string wanted, Text("class '" + name + "'", json["classes"][name]));
    const Strategy* const found = set.Find(wanted);
    if (found == nullptr) {
      return Invalid("class '" + name + "': there is no '" + wanted + "'; there are " + set.Names());
    }
    set.of_class_[size_t(chat_class)] = size_t(found - set.strategies_.data());
  }
  return set;
}

const Strategy* StrategySet::Find(std::string_view name) const {
  const auto found = std::ranges::find(strategies_, name, &Strategy::name);
  return found == strategies_.end() ? nullptr : &*found;
}

std::string StrategySet::Names() const {
  std::string names;
  for (const Strategy& strategy : strategies_) names += (names.empty() ? "" : ", ") + strategy.name;
  return names;
}

}  // namespace kvist
