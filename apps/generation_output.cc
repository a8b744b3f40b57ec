// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "generation_output.h"

#include <algorithm>

#include "report.h"
#include "tier/open_tier.h"

namespace kvist {

Result<Generation> GenerateTo(Output& out, const GenerateArguments& arguments,
                              const std::function<Result<Generation>(const GenerateEvents&)>& generate) {
  Progress progress("prompt", "tokens", arguments.progress);
  bool has_text = false;
  GenerateEvents events;
  events.cancel = &interrupted();
  events.on_prefill = [&](int64_t done, int64_t all) { done < all ? progress.Show(done, all) : progress.Clear(); };
  if (!arguments.json) {
    events.on_text = [&](std::string_view text) {
      has_text = true;
      out.Write(text);
      return !out.failed();
    };
  }
  auto generation = generate(events);
  if (has_text) out.Write("\n");
  return generation;
}

void NoteWhatFitsMore(const GenerateArguments& arguments) {
  const bool has_disk = std::ranges::any_of(arguments.model.tiers, IsDiskSpec);
  Note(std::string("more fits with a larger --kv-memory") + (has_disk ? " or " : ", ") + "a smaller --form" +
       (has_disk ? "" : ", or a --tier"));
}

Json GenerationJson(const char* command, const Generation& generation, const GenerateArguments& arguments,
                    const LoadedModel& loaded, const std::string& strategy) {
  Json params = ModelParams(arguments.model, loaded);
  params["max_tokens"] = arguments.options.max_tokens;
  params["temperature"] = arguments.options.sampler.temperature;
  params["reuse_moved"] = arguments.model.reuses_moved_chunks;
  params["seed"] = arguments.options.sampler.seed;
  if (arguments.options.sequence.growth) params["growth"] = GrowthSpec(*arguments.options.sequence.growth);
  if (!strategy.empty()) {
    params["strategy"] = strategy;
    params["sealing"] = arguments.options.sequence.is_sealing;
  }
  params["pages"] = arguments.options.sequence.pages.num_tokens;
  params["retain"] = RetainSpec(arguments.options.retain);
  if (arguments.options.stream) params["stream"] = StreamSpec(*arguments.options.stream);
  Json object = {{"command", command},
                 {"impl", "kvist"},
                 {"params", params},
                 {"text", generation.text},
                 {"tokens", generation.tokens},
                 {"finish", FinishReasonName(generation.finish)},
                 {"statistics", StatisticsJson(generation.stats, loaded)},
                 {"reuse", ReuseJson(generation.reuse)}};
  if (generation.retained.num_times > 0) {
    object["retained"] = {{"times", generation.retained.num_times},
                          {"seconds", generation.retained.seconds},
                          {"held_tokens", generation.retained.held_tokens},
                          {"held_bytes", generation.retained.held_bytes}};
  }
  if (generation.stream) {
    object["slid"] = {{"times", generation.stream->num_slides},
                      {"retired_tokens", generation.stream->num_retired_tokens}};
  }
  if (const PagesStats& pages = generation.stats.pages; pages.num_steps > 0) {
    const auto num_selecting = static_cast<double>(std::max<int64_t>(1, pages.num_selecting_steps));
    object["paged"] = {{"steps", pages.num_steps},
                       {"selecting_steps", pages.num_selecting_steps},
                       {"read_tokens", pages.read_tokens / num_selecting},
                       {"held_tokens", pages.held_tokens / num_selecting}};
  }
  AddOrigin(object);
  return object;
}

}  // namespace kvist
