// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "inspect_store.h"

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <map>
#include <optional>
#include <tuple>
#include <utility>

#include "report.h"
#include "tier/record.h"

namespace kvist {
namespace {

using Rows = std::vector<std::vector<std::string>>;

// Columns as wide as their widest cell; numbers, after the first `num_texts` columns, end below each other.
std::string TableText(const Rows& rows, size_t num_texts) {
  std::vector<size_t> widths(rows.front().size());
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string padding(widths[i] - row[i].size(), ' ');
      const bool is_last = i + 1 == row.size();
      text += i < num_texts ? row[i] + (is_last ? "" : padding) : padding + row[i];
      text += is_last ? "\n" : "  ";
    }
  }
  return text;
}

std::string Count(uint64_t number, const std::string& what) {
  return std::to_string(number) + " " + what + (number == 1 ? "" : "s");
}

std::string Text(const Json& text) {
  return PrintableText(text.get<std::string>());
}
std::string Age(const Json& time_s) {
  return AgeText(time_s.get<int64_t>());
}

// --- as JSON ---

struct Totals {
  uint64_t num_records = 0, num_tokens = 0, bytes = 0;
  int64_t oldest_s = INT64_MAX, newest_s = INT64_MIN;
};

// By model, form, and whether sealed.
Json KindsJson(const StoreView& view) {
  std::map<std::tuple<std::string, std::string, bool>, Totals> kind_to_totals;
  view.ForEachRecord([&](const DiskTier::Stored& record) {
    Totals& totals = kind_to_totals[{record.header.model, record.header.form, record.header.is_sealed}];
    ++totals.num_records;
    totals.num_tokens += record.header.tokens.size();
    totals.bytes += record.bytes;
    totals.oldest_s = std::min(totals.oldest_s, record.written_at_s);
    totals.newest_s = std::max(totals.newest_s, record.written_at_s);
  });
  Json kinds = Json::array();
  for (const auto& [kind, totals] : kind_to_totals) {
    kinds.push_back({{"model", std::get<0>(kind)},
                     {"form", std::get<1>(kind)},
                     {"sealed", std::get<2>(kind)},
                     {"records", totals.num_records},
                     {"tokens", totals.num_tokens},
                     {"bytes", totals.bytes},
                     {"oldest_at_s", totals.oldest_s},
                     {"newest_at_s", totals.newest_s}});
  }
  return kinds;
}

Json RecordJson(const DiskTier::Stored& record) {
  return {
      {"key", RecordKeyName(record.key)},      {"model", record.header.model},   {"form", record.header.form},
      {"sealed", record.header.is_sealed},     {"group", record.header.group},   {"position", record.header.position},
      {"tokens", record.header.tokens.size()}, {"bytes", record.bytes},          {"written_at_s", record.written_at_s},
      {"used_at_s", record.used_at_s},         {"session", record.is_of_session}};
}

Json VerificationJson(const StoreView& view) {
  Progress progress("verify", "files", false);
  Json faults = Json::array();
  const uint64_t num_fine = view.Verify(
      [&](const std::string& file, const std::string& what) {
        faults.push_back({{"file", file}, {"what", what}});
      },
      [&](int64_t done, int64_t all) { progress.Show(done, all); });
  return {{"records", num_fine}, {"faults", faults}};
}

Json StoreJson(const StoreView& view, const InspectStoreOptions& options) {
  Json sessions = Json::array();
  for (const std::string& name : view.SessionNames()) sessions.push_back(SessionJson(view.ReadSession(name).value()));
  return {{"command", "inspect"},
          {"path", view.path()},
          {"bytes", view.bytes()},
          {"records", view.num_records()},
          {"damaged_files", view.num_damaged_files()},
          {"newer_files", view.num_newer_files()},
          {"kinds", KindsJson(view)},
          {"sessions", sessions},
          {"verification", options.verifies ? VerificationJson(view) : Json()}};
}

// --- for people ---

std::string KindsText(const Json& kinds) {
  Rows rows = {{"model", "form", "blocks", "records", "tokens", "bytes", "oldest", "newest"}};
  for (const Json& kind : kinds) {
    rows.push_back({Text(kind["model"]), Text(kind["form"]), kind["sealed"].get<bool>() ? "sealed" : "open",
                    Number(kind["records"]), Number(kind["tokens"]), Bytes(kind["bytes"]), Age(kind["oldest_at_s"]),
                    Age(kind["newest_at_s"])});
  }
  return TableText(rows, 3);
}

std::string VerificationText(const Json& verification) {
  const Json& faults = verification["faults"];
  std::string text = Row("verified", Count(verification["records"].get<uint64_t>(), "record") + " right, " +
                                         Count(faults.size(), "fault"));
  for (const Json& fault : faults) text += "  " + Text(fault["file"]) + ": " + Text(fault["what"]) + "\n";
  return text;
}

std::string StoreText(const Json& store) {
  std::string text = Row("store", Text(store["path"])) +
                     Row("holds", Bytes(store["bytes"]) + ": " + Count(store["records"].get<uint64_t>(), "record") +
                                      ", " + Count(store["sessions"].size(), "session"));
  if (const auto newer = store["newer_files"].get<uint64_t>(); newer > 0) {
    text += Row("not read", Count(newer, "file") + " of a newer kvist");
  }
  if (!store["verification"].is_null()) {
    text += VerificationText(store["verification"]);
  } else if (const auto damaged = store["damaged_files"].get<uint64_t>(); damaged > 0) {
    text += Row("damaged", Count(damaged, "file") + "; --verify says more");
  }
  if (!store["kinds"].empty()) text += "\n" + KindsText(store["kinds"]);
  if (!store["sessions"].empty()) text += "\n" + SessionsText(store["sessions"].get<std::vector<Json>>());
  return text;
}

// One that fits below the others without knowing them: there may be many.
std::string RecordText(const DiskTier::Stored& record) {
  char line[160];
  std::snprintf(line, sizeof(line), "%s  %8llu  %6zu  %10s  %8s  %8s  %s\n", RecordKeyName(record.key).c_str(),
                static_cast<unsigned long long>(record.header.position), record.header.tokens.size(),
                BytesText(double(record.bytes)).c_str(), AgeText(record.written_at_s).c_str(),
                AgeText(record.used_at_s).c_str(), record.is_of_session ? "session" : "-");
  return line;
}

void WriteRecords(const StoreView& view, bool as_json, Output& out) {
  if (!as_json) {
    char line[160];
    std::snprintf(line, sizeof(line), "\n%-32s  %8s  %6s  %10s  %8s  %8s  %s\n", "key", "position", "tokens", "bytes",
                  "age", "unused", "kept for");
    out.Write(line);
  }
  view.ForEachRecord([&](const DiskTier::Stored& record) {
    as_json ? WriteJson(RecordJson(record), out) : out.Write(RecordText(record));
  });
}

}  // namespace

int InspectStore(const std::string& path, const InspectStoreOptions& options) {
  const auto view = StoreView::Open(path);
  if (!view) return Report(view.error());
  const Json store = StoreJson(*view, options);
  Output out;
  options.json ? WriteJson(store, out) : out.Write(StoreText(store));
  if (options.lists_records) WriteRecords(*view, options.json, out);
  const size_t num_faults = options.verifies ? store["verification"]["faults"].size() : 0;
  if (num_faults == 0) return out.ExitCode(kExitOk);
  return out.ExitCode(Report({ErrorCode::kCorrupt, path + " has " + Count(num_faults, "fault") +
                                                       "; what is damaged is never used but computed again, and goes "
                                                       "when its file makes room"}));
}

Json SessionJson(const StoreView::Session& session) {
  return {{"name", session.name},
          {"model", session.manifest.model},
          {"form", session.manifest.form},
          {"tokens", session.manifest.tokens.size()},
          {"bytes", session.bytes},
          {"saved_at_s", session.saved_at_s},
          {"records", session.num_records},
          {"missing_records", session.num_missing_records},
          {"fault", session.fault ? Json(session.fault->message) : Json()}};
}

std::string SessionsText(const std::vector<Json>& sessions) {
  Rows rows = {{"session", "model", "form", "tokens", "bytes", "saved", "records"}};
  for (const Json& session : sessions) {
    const std::string missing = Number(session["missing_records"]);
    const std::string records =
        Number(session["records"]) + (missing == "0" ? ", all there" : ", " + missing + " missing");
    rows.push_back({Text(session["name"]), Text(session["model"]), Text(session["form"]), Number(session["tokens"]),
                    Bytes(session["bytes"]), Age(session["saved_at_s"]),
                    session["fault"].is_null() ? records : Text(session["fault"])});
  }
  return TableText(rows, 3);
}

std::string Number(const Json& number) {
  return std::to_string(number.get<int64_t>());
}

std::string Bytes(const Json& number) {
  return BytesText(number.get<double>());
}

std::string AgeText(int64_t time_s) {
  const int64_t age_s = std::max<int64_t>(0, std::time(nullptr) - time_s);
  if (age_s < 60) return std::to_string(age_s) + " s";
  if (age_s < 60 * 60) return std::to_string(age_s / 60) + " min";
  if (age_s < 48 * 60 * 60) return std::to_string(age_s / (60 * 60)) + " h";
  return std::to_string(age_s / (24 * 60 * 60)) + " d";
}

std::string PrintableText(std::string_view text) {
  std::string printable(text);
  const auto is_control = [](unsigned char c) { return (c < ' ' && c != '\n' && c != '\t') || c == 0x7f; };
  std::ranges::replace_if(printable, is_control, '?');
  return printable;
}

std::string Row(const std::string& label, const std::string& text) {
  return label + std::string(label.size() < 15 ? 15 - label.size() : 1, ' ') + text + "\n";
}

}  // namespace kvist
