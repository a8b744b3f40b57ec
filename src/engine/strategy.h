// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/retaining.h"
#include "engine/stream.h"
#include "kvist/error.h"
#include "kvist/geometry.h"
#include "kvist/growth.h"
#include "kvist/page_selection.h"
#include "policy/chat_class.h"

namespace kvist {

// How a conversation's keys and values are kept: a bundle of policies under a name.
struct Strategy {
  std::string name;
  GrowthOptions growth = {};
  Form form = {};  // the open form, exact; or the quantised one
  PageSelection pages = {};
  RetainSettings retain = {};
  std::optional<StreamOptions> stream = {};
  bool uses_tiers = false;  // leaves memory while another conversation is used, for the tiers if there are any
  bool operator==(const Strategy&) const = default;
};

// The strategies there are, and which each class of conversation gets. One cache serves them all, so there is one
// quantised form at most among them.
class StrategySet {
 public:
  // From JSON as DefaultText shows it. kInvalidArgument says which part of it is wrong, and what there is.
  static Result<StrategySet> Parse(std::string_view json);
  // The article's recommendations, with what was measured (docs/strategies.md).
  static std::string_view DefaultText();

  const std::vector<Strategy>& strategies() const { return strategies_; }
  const Strategy* Find(std::string_view name) const;  // null when there is none
  const Strategy& Of(ChatClass chat_class) const { return strategies_[of_class_[size_t(chat_class)]]; }
  // What a cache has to be opened with.
  Form cache_form() const { return cache_form_; }
  std::string Names() const;  // "compressed, doubling, ..."

 private:
  std::vector<Strategy> strategies_;
  std::array<size_t, 4> of_class_ = {};
  Form cache_form_;
};

}  // namespace kvist
