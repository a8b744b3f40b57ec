// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "eval_stream.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "engine/stream_quality.h"
#include "option_checks.h"

namespace kvist {
namespace {

// For each form every stream, and after those of one window and overlap the same without sliding.
Result<std::vector<StreamCase>> CasesOf(std::span<const std::string> specs, std::span<const Form> forms) {
  std::vector<StreamCase> cases;
  for (const Form form : forms) {
    std::vector<StreamCase> recomputed;
    for (const std::string& spec : specs) {
      KVIST_TRY(const StreamOptions stream, ParseStream(spec));
      cases.push_back({.form = form, .stream = stream});
      const StreamOptions base{stream.window_tokens, stream.overlap_tokens, 0};
      const auto is_base = [&](const StreamCase& each) { return each.stream == base; };
      if (std::ranges::none_of(recomputed, is_base)) recomputed.push_back({form, base, true});
    }
    cases.insert(cases.end(), recomputed.begin(), recomputed.end());
  }
  return cases;
}

std::string Name(const StreamCase& what) {
  if (!what.recomputes) return StreamSpec(what.stream);
  return "recomputed,window=" + std::to_string(what.stream.window_tokens) +
         ",overlap=" + std::to_string(what.stream.overlap_tokens);
}

std::string Cell(double number) {
  char text[32];
  std::snprintf(text, sizeof(text), "  %9.5g", number);
  return text;
}

// A line a part, a column a stream.
void WriteTable(std::span<const StreamQuality> qualities, int64_t num_tokens, Output& out) {
  std::string text = std::to_string(num_tokens) + " tokens of text; perplexity of its parts\n\n";
  for (size_t i = 0; i < qualities.size(); ++i) {
    text +=
        "  " + std::to_string(i + 1) + ": " + FormName(qualities[i].what.form) + " " + Name(qualities[i].what) + "\n";
  }
  text += "\npart    ";
  for (size_t i = 0; i < qualities.size(); ++i) text += Cell(static_cast<double>(i + 1));
  const auto line = [&](const std::string& title, auto cell) {
    text += "\n" + title + std::string(8 - std::min<size_t>(8, title.size()), ' ');
    for (const StreamQuality& each : qualities) text += cell(each);
  };
  for (size_t part = 0; part < qualities.front().perplexities.size(); ++part) {
    line(std::to_string(part + 1), [&](const StreamQuality& each) { return Cell(each.perplexities[part]); });
  }
  line("all", [](const StreamQuality& each) { return Cell(each.perplexity); });
  line("slides", [](const StreamQuality& each) { return Cell(static_cast<double>(each.num_slides)); });
  line("MiB", [](const StreamQuality& each) { return Cell(static_cast<double>(each.peak_live_bytes) / (1 << 20)); });
  line("tok/s", [&](const StreamQuality& each) { return Cell(static_cast<double>(num_tokens) / each.seconds); });
  out.Write(text + "\n");
}

void WriteRecords(std::span<const StreamQuality> qualities, Json params, int64_t num_tokens, Output& out) {
  for (const StreamQuality& each : qualities) {
    params["stream"] = Name(each.what);
    params["form_k"] = CodecName(each.what.form.k);
    params["form_v"] = CodecName(each.what.form.v);
    const auto write = [&](const Json& fixed, std::string_view metric, Json value) {
      WriteRecord({.bench = "eval", .params = fixed, .metric = metric, .value = std::move(value)}, out);
    };
    Json of_part = params;
    for (size_t part = 0; part < each.perplexities.size(); ++part) {
      of_part["part"] = part + 1;
      write(of_part, "perplexity", each.perplexities[part]);
    }
    write(params, "perplexity", each.perplexity);
    write(params, "slides", each.num_slides);
    write(params, "recomputed_tokens", each.num_recomputed_tokens);
    write(params, "peak_kv_bytes", each.peak_live_bytes);
    write(params, "tokens_per_s", static_cast<double>(num_tokens) / each.seconds);
  }
}

}  // namespace

void AddStreamOptions(CLI::App* command, CLI::Option* text, StreamArguments* arguments) {
  CLI::Option* stream =
      command
          ->add_option("--stream", arguments->streams,
                       "Measure instead how the whole text is predicted, part by part, in a window that slides: "
                       "window=1024,overlap=128,sinks=4, or some of them; may be given several times. Beside it: the "
                       "overlap computed anew each time the window is full")
          ->check(CheckStream)
          ->type_name("SPEC")
          ->expected(1)
          ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
          ->needs(text);
  for (const char* other : {"--retain", "--pages", "--passkey", "--copy", "--asked", "--continuation", "--context",
                            "--windows", "--after-the-fact"}) {
    stream->excludes(command->get_option(other));
  }
  command->add_option("--tokens", arguments->num_tokens, "Tokens of the text, from its first; the default is all")
      ->check(CheckCount)
      ->type_name("N")
      ->needs(stream);
  command->add_option("--parts", arguments->num_parts, "Parts of the text that are told apart")
      ->check(CheckCount)
      ->type_name("N")
      ->capture_default_str()
      ->needs(stream);
}

Status EvalStreams(const StreamArguments& arguments, std::span<const Form> forms, const LoadedModel& loaded,
                   std::span<const Token> tokens, const QualityOptions& quality, Json params, Progress& progress,
                   bool as_json, Output& out) {
  if (arguments.num_tokens > std::ssize(tokens)) {
    return Fail(ErrorCode::kInvalidArgument,
                "the text has " + std::to_string(tokens.size()) + " tokens; give a longer one, or fewer with --tokens");
  }
  if (arguments.num_tokens > 0) tokens = tokens.first(static_cast<size_t>(arguments.num_tokens));
  KVIST_TRY(const auto cases, CasesOf(arguments.streams, forms));
  const StreamQualityOptions options{.num_parts = arguments.num_parts, .cache = quality.cache, .bos = quality.bos};
  const auto show = [&](int64_t done, int64_t all) {
    progress.Show(done, all);
    return !interrupted();
  };
  KVIST_TRY(const auto qualities, MeasureStreams(*loaded.model, tokens, cases, options, show));
  progress.Clear();
  params["tokens"] = tokens.size();
  params["parts"] = options.num_parts;
  as_json ? WriteRecords(qualities, params, std::ssize(tokens), out) : WriteTable(qualities, std::ssize(tokens), out);
  return {};
}

}  // namespace kvist
