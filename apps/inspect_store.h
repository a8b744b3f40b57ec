// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "record.h"
#include "store_view.h"

namespace kvist {

struct InspectStoreOptions {
  bool json = false;
  bool verifies = false;
  bool lists_records = false;
};
// `kvist inspect STORE`; returns the exit code, that of a failure when something is damaged.
int InspectStore(const std::string& path, const InspectStoreOptions& options);

// A session's facts as an object of docs/results.schema.json, and as a table of several such objects.
Json SessionJson(const StoreView::Session& session);
std::string SessionsText(const std::vector<Json>& sessions);

std::string Number(const Json& number);            // a whole one
std::string Bytes(const Json& number);             // "22.5 KiB"
std::string AgeText(int64_t time_s);               // "5 min" ago; from seconds since 1970
std::string PrintableText(std::string_view text);  // without what a terminal would obey
// A line of an inspection: labels take the same width.
std::string Row(const std::string& label, const std::string& text);

}  // namespace kvist
