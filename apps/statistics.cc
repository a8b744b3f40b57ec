// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "statistics.h"

#include <cstdarg>
#include <cstdio>

#include "kvist/kv_size.h"
#include "report.h"

namespace kvist {
namespace {

[[gnu::format(printf, 1, 2)]] std::string Print(const char* format, ...) {
  char text[256];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  return text;
}

double Rate(int64_t count, double seconds) {
  return seconds > 0 ? static_cast<double>(count) / seconds : 0;
}

size_t StaticBytes(const LoadedModel& loaded) {
  return StaticKvBytes(loaded.model->geometry(), loaded.cache->options().form, loaded.model->context_length());
}

double StaticRatio(const LoadedModel& loaded, const CacheStats& cache) {
  return cache.live_bytes > 0 ? static_cast<double>(StaticBytes(loaded)) / static_cast<double>(cache.live_bytes) : 0;
}

long long Long(int64_t number) {
  return number;
}
unsigned long long Count(uint64_t number) {
  return number;
}

std::string PagesText(const PagesStats& pages) {
  std::string text =
      Print("pages         %lld of %lld steps left out blocks", Long(pages.num_selecting_steps), Long(pages.num_steps));
  if (pages.num_selecting_steps == 0) return text + "\n";
  const auto num_steps = static_cast<double>(pages.num_selecting_steps);
  return text +
         Print(": a lane read %.0f of %.0f tokens\n", pages.read_tokens / num_steps, pages.held_tokens / num_steps);
}

}  // namespace

std::string StatisticsText(const GenerationStats& stats, const LoadedModel& loaded) {
  const CacheStats cache = loaded.cache->stats();
  const auto resident = loaded.cache->ResidentBytes();
  const Form form = loaded.cache->options().form;
  std::string text = Print("prompt        %lld tokens: %lld reused, %lld computed in %.2f s (%.1f tokens/s)\n",
                           Long(stats.prompt_tokens), Long(stats.reused_tokens), Long(stats.computed_tokens),
                           stats.prefill_s, Rate(stats.computed_tokens, stats.prefill_s));
  text += Print("output        %lld tokens in %.2f s (%.1f tokens/s)\n", Long(stats.output_tokens), stats.decode_s,
                Rate(stats.decode_steps, stats.decode_s));
  if (stats.pages.num_steps > 0) text += PagesText(stats.pages);
  text += Print("KV cache      form %s, blocks %zu, live %s, committed %s, resident %s, reserved %s of address space\n",
                FormName(form).c_str(), cache.num_live_blocks, BytesText(double(cache.live_bytes)).c_str(),
                BytesText(double(cache.committed_bytes)).c_str(),
                resident ? BytesText(double(*resident)).c_str() : "unknown",
                BytesText(double(cache.reserved_bytes)).c_str());
  if (cache.spill_bytes_read > 0) {
    text +=
        Print("spilled       %s read from the disk tier by steps, which waited %.2f s for it; %s of memory for that\n",
              BytesText(double(cache.spill_bytes_read)).c_str(), cache.spill_wait_s,
              BytesText(double(cache.staging_bytes)).c_str());
  }
  if (cache.num_damaged_records > 0) {
    text += Print("damaged       %llu records of the tiers; what they held is computed again\n",
                  Count(cache.num_damaged_records));
  }
  text += Print("static cache  of the full context of %d tokens: %s", loaded.model->context_length(),
                BytesText(double(StaticBytes(loaded))).c_str());
  if (cache.live_bytes > 0) text += Print(", %.1f times as much as live", StaticRatio(loaded, cache));
  return text + "\n";
}

std::string TiersText(const Cache& cache) {
  std::string text;
  for (const auto& [name, tier] : cache.tier_stats()) {
    text += Print("%-13s %llu records read (%s), %llu missed; %llu written (%s), %llu declined; %llu failures",
                  (name + " tier").c_str(), Count(tier.num_hits), BytesText(double(tier.bytes_read)).c_str(),
                  Count(tier.num_misses), Count(tier.num_written), BytesText(double(tier.bytes_written)).c_str(),
                  Count(tier.num_declined), Count(tier.num_failures));
    text += tier.num_failures > 0 ? ", the last: " + tier.last_failure + "\n" : "\n";
  }
  return text;
}

void NoteFailures(const Cache& cache) {
  for (const auto& [name, tier] : cache.tier_stats()) {
    if (tier.num_failures == 0) continue;
    Note(Print("the %s tier failed %llu times; what it could not store or bring back is computed again; the last: %s",
               name.c_str(), Count(tier.num_failures), tier.last_failure.c_str()));
  }
}

std::string ReuseText(const ReuseReport& reuse, const Tokenizer& tokenizer) {
  std::string text = Print("reused        %lld tokens of this conversation, %lld of others in memory",
                           Long(reuse.own_tokens), Long(reuse.shared_tokens));
  for (const ReuseReport::FromTier& from : reuse.loaded) {
    text += Print(", %lld from %s (%s in %.0f ms)", Long(from.tokens), from.tier.c_str(),
                  BytesText(double(from.bytes)).c_str(), from.seconds * 1e3);
  }
  if (reuse.spilled_tokens > 0) text += Print(", %lld stay on disk", Long(reuse.spilled_tokens));
  if (reuse.moved_tokens > 0) {
    text += Print(", %lld in %lld chunks from another position", Long(reuse.moved_tokens), Long(reuse.moved_chunks));
  }
  if (reuse.is_approximate) text += " (the answer is approximate)";
  if (reuse.reason == MissReason::kNone) return text + "\n";
  text += Print("; no more at token %lld: %s", Long(reuse.miss_position), MissReasonName(reuse.reason));
  const auto quoted = [&](Token token) {
    return Json(tokenizer.Decode(token, true)).dump(-1, ' ', false, Json::error_handler_t::replace);
  };
  if (reuse.stored_token)
    text += " (" + quoted(*reuse.wanted_token) + ", stored is " + quoted(*reuse.stored_token) + ")";
  return text + "\n";
}

std::string StreamText(const std::optional<StreamStats>& stream) {
  if (!stream) return "";
  return Print("window        slid %lld time%s; %lld tokens have left it\n", Long(stream->num_slides),
               stream->num_slides == 1 ? "" : "s", Long(stream->num_retired_tokens));
}

std::string RetainedText(const RetainStats& retained) {
  if (retained.num_times == 0) return "";
  return Print("gave up       tokens %d times in %.2f s; %.0f in %s stayed, the last time\n", retained.num_times,
               retained.seconds, retained.held_tokens, BytesText(double(retained.held_bytes)).c_str());
}

Json TiersJson(const Cache& cache) {
  Json tiers = Json::array();
  for (const auto& [name, tier] : cache.tier_stats()) {
    tiers.push_back({{"tier", name},
                     {"hits", tier.num_hits},
                     {"misses", tier.num_misses},
                     {"read_bytes", tier.bytes_read},
                     {"written", tier.num_written},
                     {"written_bytes", tier.bytes_written},
                     {"declined", tier.num_declined},
                     {"failures", tier.num_failures}});
    if (tier.num_failures > 0) tiers.back()["last_failure"] = tier.last_failure;
  }
  return tiers;
}

Json ReuseJson(const ReuseReport& reuse) {
  Json loaded = Json::array();
  for (const ReuseReport::FromTier& from : reuse.loaded) {
    loaded.push_back({{"tier", from.tier}, {"tokens", from.tokens}, {"bytes", from.bytes}, {"ms", from.seconds * 1e3}});
  }
  return {{"own_tokens", reuse.own_tokens},
          {"shared_tokens", reuse.shared_tokens},
          {"loaded", loaded},
          {"spilled_tokens", reuse.spilled_tokens},
          {"moved_tokens", reuse.moved_tokens},
          {"moved_chunks", reuse.moved_chunks},
          {"approximate", reuse.is_approximate},
          {"reason", MissReasonName(reuse.reason)},
          {"miss_position", reuse.miss_position},
          {"wanted_token", reuse.wanted_token ? Json(*reuse.wanted_token) : Json()},
          {"stored_token", reuse.stored_token ? Json(*reuse.stored_token) : Json()}};
}

Json StatisticsJson(const GenerationStats& stats, const LoadedModel& loaded) {
  const CacheStats cache = loaded.cache->stats();
  const auto resident = loaded.cache->ResidentBytes();
  return {{"prompt_tokens", stats.prompt_tokens},
          {"reused_tokens", stats.reused_tokens},
          {"computed_tokens", stats.computed_tokens},
          {"output_tokens", stats.output_tokens},
          {"prefill_ms", stats.prefill_s * 1e3},
          {"prefill_tokens_per_s", Rate(stats.computed_tokens, stats.prefill_s)},
          {"decode_ms", stats.decode_s * 1e3},
          {"decode_tokens_per_s", Rate(stats.decode_steps, stats.decode_s)},
          {"live_bytes", cache.live_bytes},
          {"committed_bytes", cache.committed_bytes},
          {"peak_bytes", cache.peak_live_bytes},
          {"resident_bytes", resident ? Json(*resident) : Json()},
          {"reserved_bytes", cache.reserved_bytes},
          {"staging_bytes", cache.staging_bytes},
          {"spill_read_bytes", cache.spill_bytes_read},
          {"spill_wait_ms", cache.spill_wait_s * 1e3},
          {"tiers", TiersJson(*loaded.cache)},
          {"damaged_records", cache.num_damaged_records},
          {"blocks", cache.num_live_blocks},
          {"static_bytes", StaticBytes(loaded)},
          {"static_ratio", StaticRatio(loaded, cache)}};
}

}  // namespace kvist
