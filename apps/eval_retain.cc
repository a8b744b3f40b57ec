// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "eval_retain.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <set>
#include <utility>

#include "engine/recall_quality.h"
#include "engine/retaining.h"
#include "engine/retention_quality.h"
#include "option_checks.h"

namespace kvist {
namespace {

// Everything kept and read first, to show what a form alone loses.
Result<std::vector<RetentionCase>> CasesOf(const RetainArguments& arguments, std::span<const Form> forms) {
  std::vector<std::string> names = arguments.policies;
  if (names == std::vector<std::string>{"all"}) {
    names.clear();
    for (const RetentionPolicy policy : kAllRetentionPolicies) names.emplace_back(RetentionPolicyName(policy));
  }
  std::vector<BudgetShape> shapes;
  for (const std::string& name : arguments.shapes) {
    KVIST_TRY(const BudgetShape shape, ParseBudgetShape(name));
    shapes.push_back(shape);
  }
  std::vector<RetentionCase> cases;
  std::set<std::string> left_out;
  bool any = false;
  for (const Form form : forms) {
    cases.push_back({.form = form});
    for (const int64_t page_tokens : arguments.page_tokens) {
      cases.push_back({.form = form, .page_tokens = page_tokens});
    }
    for (const double keep : arguments.keep) {
      for (const std::string& name : names) {
        KVIST_TRY(const RetentionPolicy policy, ParseRetentionPolicy(name));
        any |= policy == RetentionPolicy::kFull;
        if (policy == RetentionPolicy::kFull) continue;
        for (const BudgetShape shape : shapes.empty() ? std::vector{OwnShape(policy)} : shapes) {
          RetentionCase each{.form = form, .policy = policy, .shape = shape, .keep = keep};
          each.recent_tokens = arguments.recent_tokens;
          each.sink_tokens = arguments.sink_tokens;
          const Status fits = each.retention().Validate();
          if (!fits) left_out.insert(name + " with " + BudgetShapeName(shape) + ": " + fits.error().message);
          if (!fits) continue;
          cases.push_back(each);
          any = true;
        }
      }
    }
  }
  if (!any && !left_out.empty()) return Fail(ErrorCode::kInvalidArgument, *left_out.begin());
  for (const std::string& what : left_out) Note("left out: " + what);
  return cases;
}

std::string Name(const RetentionCase& what) {
  char text[128];
  const std::string read = what.page_tokens == 0 ? "all" : std::to_string(what.page_tokens);
  std::snprintf(text, sizeof(text), "%-8s %-13s %-9s %5.0f%%  %5s", FormName(what.form).c_str(),
                RetentionPolicyName(what.policy), BudgetShapeName(what.shape), 100 * what.keep, read.c_str());
  return text;
}

Json ParamsOf(const RetentionCase& what, Json params) {
  params["form_k"] = CodecName(what.form.k);
  params["form_v"] = CodecName(what.form.v);
  params["policy"] = RetentionPolicyName(what.policy);
  params["shape"] = BudgetShapeName(what.shape);
  params["keep"] = what.keep;
  params["pages"] = what.page_tokens;
  params["retain_recent_tokens"] = what.retention().recent_tokens;
  params["retain_sink_tokens"] = what.retention().sink_tokens;
  return params;
}

void WriteMetrics(const Json& params, std::span<const std::pair<std::string, Json>> metrics, Output& out) {
  for (const auto& [metric, value] : metrics) {
    WriteRecord({.bench = "eval", .params = params, .metric = metric, .value = value}, out);
  }
}

void WriteContinuation(const RetentionQualityReport& report, const RetentionQualityOptions& options, Output& out) {
  char text[512];
  std::snprintf(
      text, sizeof(text),
      "%d prefix%s of %lld tokens, then %lld of the text; perplexity with the whole prefix %.5g, with none %.5g\n"
      "a prefix takes %.2f s, %.2f s while attention is noted",
      options.num_windows, options.num_windows == 1 ? "" : "es", (long long)options.prefix_tokens,
      (long long)options.continuation_tokens, report.base_perplexity, report.no_prefix_perplexity, report.prefill_s,
      report.observed_prefill_s);
  out.Write(text);
  if (report.repetition_s > 0) {
    std::snprintf(text, sizeof(text), ", and kvzip's second pass %.2f s", report.repetition_s);
    out.Write(text);
  }
  out.Write(
      "\n\nform     policy        shape      keep  pages     held     read          KV  evicted in  "
      "KL from f32         same top  perplexity  recovered\n");
  for (const RetentionQuality& each : report.cases) {
    const std::string read = each.what.page_tokens == 0 ? "all" : std::to_string(std::llround(each.read_tokens));
    std::snprintf(text, sizeof(text), "%s  %7.0f  %7s  %10s  %8.2f s  %8.2e +- %7.1e  %6.2f%%  %10.5g  %8.1f%%\n",
                  Name(each.what).c_str(), each.held_tokens, read.c_str(), BytesText(each.held_bytes).c_str(),
                  each.retain_s, each.kl.mean, each.kl.standard_error, 100 * each.same_top, each.perplexity,
                  100 * each.recovered);
    out.Write(text);
  }
}

void WriteContinuationRecords(const RetentionQualityReport& report, const Json& params, Output& out) {
  for (const RetentionQuality& each : report.cases) {
    const std::pair<std::string, Json> metrics[] = {
        {"kl_mean", each.kl.mean},
        {"kl_se", each.kl.standard_error},
        {"same_top", each.same_top},
        {"perplexity", each.perplexity},
        {"recovered", each.recovered},
        {"held_tokens", each.held_tokens},
        {"kv_bytes", each.held_bytes},
        {"evict_s", each.retain_s},
        {"base_perplexity", report.base_perplexity},
        {"no_prefix_perplexity", report.no_prefix_perplexity},
        {"prefill_s", report.prefill_s},
        {"observed_prefill_s", report.observed_prefill_s},
        {"repetition_s", report.repetition_s},
    };
    WriteMetrics(ParamsOf(each.what, params), metrics, out);
    if (each.what.page_tokens == 0) continue;
    const std::pair<std::string, Json> read[] = {{"read_tokens", each.read_tokens}};
    WriteMetrics(ParamsOf(each.what, params), read, out);
  }
}

// A share below what is never given up is not what was measured.
void NoteShares(const RetentionQualityReport& report, int64_t prefix_tokens) {
  double least_held = INFINITY;
  int num_above = 0;
  for (const RetentionQuality& each : report.cases) {
    if (each.what.policy == RetentionPolicy::kFull) continue;
    const double wanted = each.what.keep * double(prefix_tokens);
    if (each.held_tokens <= 1.05 * wanted + 1) continue;
    ++num_above;
    least_held = std::min(least_held, each.held_tokens);
  }
  if (num_above == 0) return;
  Note("of " + std::to_string(num_above) + " rows more is held than was asked for: the first and the last tokens, " +
       std::to_string(std::llround(least_held)) + " of " + std::to_string(prefix_tokens) +
       ", always stay (--kept-recent, --kept-sinks)");
}

// --- recall ---

// What is recalled, for people and in records.
struct RecallTest {
  const char* title;
  std::string metric;  // begins so
};
const RecallTest kPasskeyTest{"pass keys hidden in %lld tokens, asked for after eviction", "passkey"};
static_assert(kPassageTokens == 192 && kPassageCueTokens == 32);
const RecallTest kCopyTest{"passages of 192 tokens in %lld tokens, to be copied after eviction, given their first 32",
                           "copy"};

void WriteRecall(const RecallTest& test, const RecallReport& report, int64_t num_tokens, Output& out) {
  char title[128], text[384];
  std::snprintf(title, sizeof(title), test.title, (long long)num_tokens);
  std::snprintf(text, sizeof(text),
                "\n%s\nln probability of a token without the context %.3f\n\n"
                "form     policy        shape      keep  pages  all right    tokens right  ln probability of a token\n",
                title, report.no_context_log_probability);
  out.Write(text);
  for (const RecallQuality& each : report.cases) {
    std::snprintf(text, sizeof(text), "%s  %3.0f of %-3lld      %6.1f%%       %8.3f\n", Name(each.what).c_str(),
                  each.found * double(each.num_asked), (long long)each.num_asked, 100 * each.right_tokens,
                  each.log_probability);
    out.Write(text);
  }
}

void WriteRecallRecords(const RecallTest& test, const RecallReport& report, Json params, int64_t num_tokens,
                        Output& out) {
  params["context"] = num_tokens;
  for (const RecallQuality& each : report.cases) {
    params["asked"] = each.num_asked;
    const std::pair<std::string, Json> metrics[] = {
        {test.metric + "_found", each.found},
        {test.metric + "_tokens_right", each.right_tokens},
        {test.metric + "_ln_probability", each.log_probability},
        {test.metric + "_no_context_ln_probability", report.no_context_log_probability},
    };
    WriteMetrics(ParamsOf(each.what, params), metrics, out);
  }
}

}  // namespace

void AddRetainOptions(CLI::App* command, CLI::Option* text, RetainArguments* arguments) {
  CLI::Option* retain =
      command
          ->add_option("--retain", arguments->policies,
                       "Measure instead what giving up tokens of a prefix of --context tokens loses, by policy: " +
                           RetentionPolicyNames() + "; all")
          ->delimiter(',')
          ->check([](const std::string& name) {
            const auto policy = ParseRetentionPolicy(name);
            if (name == "all" || policy) return std::string();
            const bool has_options = name.find_first_of(":=") != std::string::npos;
            return policy.error().message +
                   (has_options
                        ? "; here policies only, as in snapkv,knorm; give shares with --keep and shapes with --shape"
                        : "");
          })
          ->type_name("POLICY,...")
          ->needs(text);
  command
      ->add_option("--pages", arguments->page_tokens,
                   "Measure instead, or beside it, what reading so many tokens loses, those in the blocks that "
                   "promise the largest scores, in steps of one token behind a prefix of --context tokens")
      ->delimiter(',')
      ->check(CheckCount)
      ->type_name("N,...")
      ->needs(text);
  command->add_option("--keep", arguments->keep, "Shares of the prefix's tokens to keep")
      ->delimiter(',')
      ->check(CLI::Range(0.01, 1.0))
      ->type_name("SHARE,...")
      ->default_str("0.25,0.5,0.75")
      ->needs(retain);
  command
      ->add_option("--shape", arguments->shapes,
                   "How they are shared out: uniform, pyramid, adaptive, global; the default is global for kvzip and "
                   "uniform for the others")
      ->delimiter(',')
      ->check([](const std::string& name) {
        const auto shape = ParseBudgetShape(name);
        return shape ? std::string() : shape.error().message;
      })
      ->type_name("SHAPE,...")
      ->needs(retain);
  command
      ->add_option("--kept-recent", arguments->recent_tokens,
                   "Last tokens of the prefix that no policy gives up, rounded up to whole blocks")
      ->check(CheckCountOrZero)
      ->type_name("N")
      ->capture_default_str()
      ->needs(retain);
  command->add_option("--kept-sinks", arguments->sink_tokens, "First tokens that no policy gives up, likewise")
      ->check(CheckCountOrZero)
      ->type_name("N")
      ->capture_default_str()
      ->needs(retain);
  command->add_option("--continuation", arguments->continuation_tokens, "Tokens after the prefix that are predicted")
      ->check(CheckCount)
      ->type_name("N")
      ->capture_default_str()
      ->needs(text);
  command
      ->add_option("--passkey", arguments->passkey_tokens,
                   "Also hide pass keys in contexts of so many tokens, and ask for them after eviction")
      ->delimiter(',')
      ->check(CheckCount)
      ->type_name("N,...")
      ->needs(text);
  command
      ->add_option("--copy", arguments->copy_tokens,
                   "Also hide passages in contexts of so many tokens, and have them copied after eviction")
      ->delimiter(',')
      ->check(CheckCount)
      ->type_name("N,...")
      ->needs(text);
  command->add_option("--asked", arguments->num_asked, "Pass keys and passages in each length")
      ->check(CheckCount)
      ->type_name("N")
      ->capture_default_str()
      ->needs(text);
}

Status EvalRetention(const RetainArguments& arguments, std::span<const Form> forms, const LoadedModel& loaded,
                     std::span<const Token> tokens, const QualityOptions& quality, Json params, Progress& progress,
                     bool as_json, Output& out) {
  KVIST_TRY(const auto cases, CasesOf(arguments, forms));
  const RetentionQualityOptions options{.prefix_tokens = quality.window_tokens,
                                        .continuation_tokens = arguments.continuation_tokens,
                                        .num_windows = quality.num_windows,
                                        .bos = quality.bos,
                                        .cache = quality.cache,
                                        .repeat = MakeRepeatPrompts(*loaded.tokenizer)};
  const auto show = [&](int64_t done, int64_t all) {
    progress.Show(done, all);
    return !interrupted();
  };
  const RecallQualityOptions of_recall{.cache = options.cache, .repeat = options.repeat};
  params["context"] = options.prefix_tokens;
  params["continuation"] = options.continuation_tokens;
  params["windows"] = options.num_windows;
  const auto sizes = [&](int64_t num_tokens) { return RecallSizes{num_tokens, arguments.num_asked}; };
  struct Asked {
    const RecallTest& test;
    int64_t num_tokens;
    std::vector<Recall> recalls;
  };
  std::vector<Asked> asked;  // made before anything is measured: whether they can be made is known at once
  for (const int64_t num_tokens : arguments.passkey_tokens) {
    KVIST_TRY(auto made, MakePasskeys(*loaded.tokenizer, tokens, sizes(num_tokens), quality.bos));
    asked.push_back({kPasskeyTest, num_tokens, std::move(made)});
  }
  for (const int64_t num_tokens : arguments.copy_tokens) {
    KVIST_TRY(auto made, MakePassages(tokens, sizes(num_tokens), quality.bos));
    asked.push_back({kCopyTest, num_tokens, std::move(made)});
  }
  KVIST_TRY(const auto report, MeasureRetention(*loaded.model, tokens, cases, options, show));
  progress.Clear();
  NoteShares(report, options.prefix_tokens);
  as_json ? WriteContinuationRecords(report, params, out) : WriteContinuation(report, options, out);
  for (const auto& [test, num_tokens, recalls] : asked) {
    KVIST_TRY(const auto recalled, MeasureRecall(*loaded.model, recalls, cases, of_recall, show));
    progress.Clear();
    as_json ? WriteRecallRecords(test, recalled, params, num_tokens, out)
            : WriteRecall(test, recalled, num_tokens, out);
  }
  return {};
}

}  // namespace kvist
