// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "tier/open_tier.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "tier/disk_tier.h"
#include "tier/redis_tier.h"

namespace kvist {
namespace {

constexpr std::string_view kShapes =
    "a tier is disk:PATH[,size=8G] or redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE][,ttl=SECONDS][,prefix=TEXT]"
    "[,timeout=MS]";

std::unexpected<Error> Wrong(std::string_view spec, const std::string& what) {
  // A password must not reach a log.
  const size_t at = spec.rfind('@');
  const std::string shown = at == spec.npos ? std::string(spec) : "redis://..." + std::string(spec.substr(at));
  return Fail(ErrorCode::kInvalidArgument, "tier '" + shown + "': " + what + "; " + std::string(kShapes));
}

std::optional<uint64_t> ParseNumber(std::string_view text) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

std::optional<uint64_t> ParseSize(std::string_view text) {
  constexpr std::string_view kUnits = "KMGT";
  uint64_t unit = 1;
  if (!text.empty()) {
    const size_t index = kUnits.find(char(text.back() & ~0x20));
    if (index != kUnits.npos) {
      unit = uint64_t{1} << (10 * (index + 1));
      text.remove_suffix(1);
    }
  }
  const auto number = ParseNumber(text);
  if (!number || *number > std::numeric_limits<int64_t>::max() / unit) return std::nullopt;
  return *number * unit;
}

using Options = std::map<std::string, std::string, std::less<>>;

// Splits "...,key=value,..." off behind the part without a "=". A path may have commas as long as no "key=" follows.
Result<Options> TakeOptions(std::string_view spec, std::string_view& rest,
                            std::initializer_list<std::string_view> known) {
  Options options;
  while (true) {
    const size_t comma = rest.rfind(',');
    const size_t equals = rest.find('=', comma == rest.npos ? 0 : comma);
    if (comma == rest.npos || equals == rest.npos) return options;
    const std::string_view key = rest.substr(comma + 1, equals - comma - 1);
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      std::string names;
      for (const std::string_view name : known) names += (names.empty() ? "" : ", ") + std::string(name);
      return Wrong(spec, "there is no option '" + std::string(key) + "', only " + names);
    }
    if (!options.try_emplace(std::string(key), rest.substr(equals + 1)).second) {
      return Wrong(spec, "the option '" + std::string(key) + "' is there twice");
    }
    rest = rest.substr(0, comma);
  }
}

struct DiskSpec {
  std::string path;
  DiskTierOptions options;
};
using TierSpec = std::variant<DiskSpec, RedisTierOptions>;

Result<TierSpec> ParseDisk(std::string_view spec, std::string_view rest) {
  DiskTierOptions options;
  KVIST_TRY(const Options given, TakeOptions(spec, rest, {"size"}));
  if (const auto size = given.find("size"); size != given.end()) {
    const auto bytes = ParseSize(size->second);
    if (!bytes) return Wrong(spec, "'" + size->second + "' is no size; give one as in 512M or 8G");
    options.limit_bytes = *bytes;
  }
  if (rest.empty()) return Wrong(spec, "the path of a folder is missing");
  std::string path(rest);
  if (rest == "~" || rest.starts_with("~/")) {  // no shell looks for it behind "disk:"
    const char* home = std::getenv("HOME");
    if (home == nullptr || *home == '\0') return Wrong(spec, "~ stands for the folder in HOME, which is not set");
    path = home + path.substr(1);
  }
  return DiskSpec{std::move(path), options};
}

// [[USER]:PASSWORD@]HOST[:PORT][/DATABASE]
Status ParseAddress(std::string_view spec, std::string_view rest, RedisTierOptions& options) {
  if (const size_t at = rest.rfind('@'); at != rest.npos) {
    const std::string_view account = rest.substr(0, at);
    const size_t colon = account.find(':');
    if (colon == account.npos) return Wrong(spec, "before @ there should be USER:PASSWORD or :PASSWORD");
    options.user = account.substr(0, colon);
    options.password = account.substr(colon + 1);
    rest.remove_prefix(at + 1);
  }
  if (const size_t slash = rest.find('/'); slash != rest.npos) {
    const std::string_view database = rest.substr(slash + 1);
    const auto number = database.empty() ? 0 : ParseNumber(database);
    if (!number || *number > 1 << 20) return Wrong(spec, "the database should be a number");
    options.database = int(*number);
    rest = rest.substr(0, slash);
  }
  // An IPv6 address stands in brackets.
  const size_t colon = rest.starts_with('[') ? rest.find(':', rest.find(']')) : rest.find(':');
  if (colon != rest.npos) {
    const auto port = ParseNumber(rest.substr(colon + 1));
    if (!port || *port == 0 || *port > 65535) return Wrong(spec, "the port should be a number from 1 to 65535");
    options.port = int(*port);
    rest = rest.substr(0, colon);
  }
  if (rest.starts_with('[') && rest.ends_with(']')) rest = rest.substr(1, rest.size() - 2);
  if (rest.empty()) return Wrong(spec, "the host is missing");
  options.host = rest;
  return {};
}

Result<TierSpec> ParseRedis(std::string_view spec, std::string_view rest, bool uses_tls) {
  RedisTierOptions options;
  options.uses_tls = uses_tls;
  KVIST_TRY(const Options given, TakeOptions(spec, rest, {"ttl", "prefix", "timeout"}));
  constexpr uint64_t kMostSeconds = 10ull * 365 * 24 * 3600;
  if (const auto ttl = given.find("ttl"); ttl != given.end()) {
    const auto seconds = ParseNumber(ttl->second);
    if (!seconds || *seconds > kMostSeconds) return Wrong(spec, "ttl should be a number of seconds, 0 for no end");
    options.ttl = std::chrono::seconds(*seconds);
  }
  if (const auto timeout = given.find("timeout"); timeout != given.end()) {
    const auto ms = ParseNumber(timeout->second);
    if (!ms || *ms == 0 || *ms > 600'000) return Wrong(spec, "timeout should be 1 to 600000 milliseconds");
    options.timeout = std::chrono::milliseconds(*ms);
  }
  if (const auto prefix = given.find("prefix"); prefix != given.end()) options.prefix = prefix->second;
  KVIST_TRY_VOID(ParseAddress(spec, rest, options));
  return options;
}

Result<TierSpec> ParseTier(std::string_view spec) {
  if (IsDiskSpec(spec)) return ParseDisk(spec, spec.substr(5));
  if (spec.starts_with("redis://")) return ParseRedis(spec, spec.substr(8), false);
  if (spec.starts_with("rediss://")) return ParseRedis(spec, spec.substr(9), true);
  return Wrong(spec, "there is no such kind");
}

}  // namespace

Result<std::unique_ptr<Tier>> OpenTier(std::string_view spec) {
  KVIST_TRY(const TierSpec parsed, ParseTier(spec));
  if (const auto* disk = std::get_if<DiskSpec>(&parsed)) return DiskTier::Open(disk->path, disk->options);
  return RedisTier::Open(std::get<RedisTierOptions>(parsed));
}

Status CheckTierSpec(std::string_view spec) {
  KVIST_TRY([[maybe_unused]] const TierSpec parsed, ParseTier(spec));
  return {};
}

std::optional<std::string> DiskPathOf(std::string_view spec) {
  const auto parsed = ParseTier(spec);
  const auto* disk = parsed ? std::get_if<DiskSpec>(&*parsed) : nullptr;
  return disk == nullptr ? std::nullopt : std::optional(disk->path);
}

bool IsDiskSpec(std::string_view spec) {
  return spec.starts_with("disk:");
}

}  // namespace kvist
