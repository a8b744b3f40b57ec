// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "eval_pages.h"

#include <cstdio>
#include <string>
#include <utility>

#include "engine/page_quality.h"
#include "option_checks.h"

namespace kvist {
namespace {

void WriteTable(std::span<const PageQuality> qualities, const PageQualityOptions& options, Output& out) {
  char text[256];
  std::snprintf(text, sizeof(text),
                "%d prefix%s of %lld tokens, then %lld of the text one at a time, compared with reading everything\n\n"
                "form       read  KL                     same top  perplexity\n",
                options.num_windows, options.num_windows == 1 ? "" : "es", (long long)options.prefix_tokens,
                (long long)options.continuation_tokens);
  out.Write(text);
  for (const PageQuality& each : qualities) {
    const std::string read = each.page_tokens == 0 ? "all" : std::to_string(each.page_tokens);
    std::snprintf(text, sizeof(text), "%-8s %6s  %8.2e +- %7.1e  %8.2f%%  %10.5g\n", FormName(each.form).c_str(),
                  read.c_str(), each.kl.mean, each.kl.standard_error, 100 * each.same_top, each.perplexity);
    out.Write(text);
  }
}

void WriteRecords(std::span<const PageQuality> qualities, Json params, Output& out) {
  for (const PageQuality& each : qualities) {
    params["form_k"] = CodecName(each.form.k);
    params["form_v"] = CodecName(each.form.v);
    params["pages"] = each.page_tokens;
    const std::pair<const char*, double> metrics[] = {{"kl_mean", each.kl.mean},
                                                      {"kl_se", each.kl.standard_error},
                                                      {"same_top", each.same_top},
                                                      {"perplexity", each.perplexity}};
    for (const auto& [metric, value] : metrics) {
      WriteRecord({.bench = "eval", .params = params, .metric = metric, .value = value}, out);
    }
  }
}

}  // namespace

void AddPagesOption(CLI::App* command, CLI::Option* text, std::vector<int64_t>* page_tokens) {
  command
      ->add_option("--pages", *page_tokens,
                   "Measure instead what reading so many tokens, those in the blocks that promise the largest scores, "
                   "loses in steps of one token behind a prefix of --context tokens")
      ->delimiter(',')
      ->check(CheckCount)
      ->type_name("N,...")
      ->needs(text)
      ->excludes(command->get_option("--retain"));
}

Status EvalPages(std::span<const int64_t> page_tokens, int64_t continuation_tokens, std::span<const Form> forms,
                 const LoadedModel& loaded, std::span<const Token> tokens, const QualityOptions& quality,
                 Progress& progress, bool as_json, Output& out) {
  const PageQualityOptions options{.prefix_tokens = quality.window_tokens,
                                   .continuation_tokens = continuation_tokens,
                                   .num_windows = quality.num_windows,
                                   .cache = quality.cache,
                                   .bos = quality.bos};
  const auto show = [&](int64_t done, int64_t all) {
    progress.Show(done, all);
    return !interrupted();
  };
  KVIST_TRY(const auto qualities, MeasurePages(*loaded.model, tokens, forms, page_tokens, options, show));
  progress.Clear();
  const Json params = {{"model", ModelName(loaded)},
                       {"context", options.prefix_tokens},
                       {"continuation", options.continuation_tokens},
                       {"windows", options.num_windows},
                       {"threads", loaded.model->num_threads()}};
  as_json ? WriteRecords(qualities, params, out) : WriteTable(qualities, options, out);
  return {};
}

}  // namespace kvist
