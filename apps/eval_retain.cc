// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "eval_retain.h"

#include <algorithm>
#include <cstdio>
#include <random>
#include <utility>

#include "engine/retention_quality.h"
#include "option_checks.h"

namespace kvist {
namespace {

// Full retention first, to show what a form alone loses.
Result<std::vector<RetentionCase>> CasesOf(const RetainArguments& arguments, std::span<const Form> forms) {
  std::vector<std::string> names = arguments.policies;
  if (names == std::vector<std::string>{"all"}) {
    names.clear();
    for (const RetentionPolicy policy : kAllRetentionPolicies) names.emplace_back(RetentionPolicyName(policy));
  }
  std::vector<RetentionCase> cases;
  for (const Form form : forms) {
    cases.push_back({.form = form});
    for (const double keep : arguments.keep) {
      for (const std::string& name : names) {
        KVIST_TRY(const RetentionPolicy policy, ParseRetentionPolicy(name));
        if (policy == RetentionPolicy::kFull) continue;
        for (const std::string& shape_name : arguments.shapes) {
          KVIST_TRY(const BudgetShape shape, ParseBudgetShape(shape_name));
          if (!RetentionOptions{.policy = policy, .shape = shape}.Validate()) continue;
          if (policy == RetentionPolicy::kWindow && shape != BudgetShape::kUniform) continue;
          cases.push_back({form, policy, shape, keep});
        }
      }
    }
  }
  return cases;
}

std::string Name(const RetentionCase& what) {
  char text[128];
  std::snprintf(text, sizeof(text), "%-8s %-13s %-9s %5.0f%%", FormName(what.form).c_str(),
                RetentionPolicyName(what.policy), BudgetShapeName(what.shape), 100 * what.keep);
  return text;
}

Json ParamsOf(const RetentionCase& what, Json params) {
  params["form_k"] = CodecName(what.form.k);
  params["form_v"] = CodecName(what.form.v);
  params["policy"] = RetentionPolicyName(what.policy);
  params["shape"] = BudgetShapeName(what.shape);
  params["keep"] = what.keep;
  return params;
}

void WriteMetrics(const Json& params, std::span<const std::pair<const char*, Json>> metrics, Output& out) {
  for (const auto& [metric, value] : metrics) {
    WriteRecord({.bench = "eval", .params = params, .metric = metric, .value = value}, out);
  }
}

void WriteContinuation(const RetentionQualityReport& report, const RetentionQualityOptions& options, Output& out) {
  char text[512];
  std::snprintf(
      text, sizeof(text),
      "%d prefix%s of %lld tokens, then %lld of the text; perplexity with the whole prefix %.5g, with none %.5g\n"
      "a prefix takes %.2f s, and %.2f s while attention is noted\n\n"
      "form     policy        shape      keep     held          KV  evicted in  KL from f32         same top  "
      "perplexity  recovered\n",
      options.num_windows, options.num_windows == 1 ? "" : "es", (long long)options.prefix_tokens,
      (long long)options.continuation_tokens, report.base_perplexity, report.no_prefix_perplexity, report.prefill_s,
      report.observed_prefill_s);
  out.Write(text);
  for (const RetentionQuality& each : report.cases) {
    std::snprintf(text, sizeof(text), "%s  %7.0f  %10s  %8.2f s  %8.2e +- %7.1e  %6.2f%%  %10.5g  %8.1f%%\n",
                  Name(each.what).c_str(), each.held_tokens, BytesText(each.held_bytes).c_str(), each.retain_s,
                  each.kl.mean, each.kl.standard_error, 100 * each.same_top, each.perplexity, 100 * each.recovered);
    out.Write(text);
  }
}

void WriteContinuationRecords(const RetentionQualityReport& report, const Json& params, Output& out) {
  for (const RetentionQuality& each : report.cases) {
    const std::pair<const char*, Json> metrics[] = {
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
    };
    WriteMetrics(ParamsOf(each.what, params), metrics, out);
  }
}

// --- passkeys ---

constexpr char kIntroduction[] =
    "A pass key is hidden somewhere in the text that follows. Find it and remember it.\n\n";
constexpr char kQuestion[] = "\n\nWhat is the pass key that was hidden in the text? The pass key is";

// The digits' tokens as they come after the question.
Result<std::vector<Token>> DigitsAfter(const Tokenizer& tokenizer, const std::string& text,
                                       std::span<const Token> question, const std::string& number) {
  const auto all = tokenizer.Encode(text + " " + number, {.add_special = false, .parse_special = false});
  const bool continues =
      all.size() > question.size() && std::ranges::equal(std::span(all).first(question.size()), question);
  if (!continues)
    return Fail(ErrorCode::kUnsupported, "the tokenizer joins a pass key's digits to what is before them");
  return std::vector<Token>(all.begin() + std::ssize(question), all.end());
}

// Keys at depths spread evenly, each in another part of the text.
Result<std::vector<Passkey>> MakePasskeys(const Tokenizer& tokenizer, std::span<const Token> filler, int64_t num_tokens,
                                          int count, std::optional<Token> bos) {
  const auto encode = [&](const std::string& text) {
    return tokenizer.Encode(text, {.add_special = false, .parse_special = false});
  };
  const std::vector<Token> introduction = encode(kIntroduction), question = encode(kQuestion);
  std::mt19937 random(static_cast<unsigned>(num_tokens));
  std::vector<Passkey> passkeys;
  for (int i = 0; i < count; ++i) {
    const std::string number = std::to_string(10000 + random() % 90000);
    const std::vector<Token> needle =
        encode("\n\nThe pass key is " + number + ". Keep it in mind: " + number + " is the pass key.\n\n");
    const int64_t num_filler = num_tokens - std::ssize(introduction) - std::ssize(needle) - 1;
    if (num_filler < 1 || std::ssize(filler) < num_filler * 2) {
      return Fail(ErrorCode::kInvalidArgument,
                  "the text has " + std::to_string(filler.size()) + " tokens, too few to hide pass keys in " +
                      std::to_string(num_tokens) + " of them; give a longer text or shorter contexts");
    }
    const auto begin = static_cast<int64_t>(random() % static_cast<uint64_t>(std::ssize(filler) - num_filler));
    const double depth = (i + 0.5) / count;
    const auto before = static_cast<int64_t>(depth * static_cast<double>(num_filler));
    Passkey passkey{.context = {}, .question = question, .digits = {}, .depth = depth};
    if (bos) passkey.context.push_back(*bos);
    const auto append = [&](std::span<const Token> tokens) {
      passkey.context.insert(passkey.context.end(), tokens.begin(), tokens.end());
    };
    append(introduction);
    append(filler.subspan(static_cast<size_t>(begin), static_cast<size_t>(before)));
    append(needle);
    append(filler.subspan(static_cast<size_t>(begin + before), static_cast<size_t>(num_filler - before)));
    KVIST_TRY(passkey.digits, DigitsAfter(tokenizer, kQuestion, question, number));
    passkeys.push_back(std::move(passkey));
  }
  return passkeys;
}

void WritePasskeys(std::span<const PasskeyQuality> qualities, int64_t num_tokens, Output& out) {
  char text[256];
  std::snprintf(text, sizeof(text),
                "\npass keys hidden in %lld tokens, asked for after eviction\n\n"
                "form     policy        shape      keep  found        ln probability of the digits\n",
                (long long)num_tokens);
  out.Write(text);
  for (const PasskeyQuality& each : qualities) {
    std::snprintf(text, sizeof(text), "%s  %3.0f of %-3lld   %8.3f\n", Name(each.what).c_str(),
                  each.found * double(each.num_keys), (long long)each.num_keys, each.log_probability);
    out.Write(text);
  }
}

void WritePasskeyRecords(std::span<const PasskeyQuality> qualities, Json params, int64_t num_tokens, Output& out) {
  params["context"] = num_tokens;
  for (const PasskeyQuality& each : qualities) {
    const std::pair<const char*, Json> metrics[] = {
        {"passkeys", each.num_keys}, {"passkeys_found", each.found}, {"passkey_ln_probability", each.log_probability}};
    WriteMetrics(ParamsOf(each.what, params), metrics, out);
  }
}

}  // namespace

void AddRetainOptions(CLI::App* command, CLI::Option* text, RetainArguments* arguments) {
  CLI::Option* retain =
      command
          ->add_option(
              "--retain", arguments->policies,
              "Measure instead what giving up tokens of a prefix of --context tokens loses, by policy: " +
                  [] {
                    std::string names;
                    for (const RetentionPolicy policy : kAllRetentionPolicies)
                      names += std::string(names.empty() ? "" : ", ") + RetentionPolicyName(policy);
                    return names;
                  }() +
                  "; all")
          ->delimiter(',')
          ->check([](const std::string& name) {
            const auto policy = ParseRetentionPolicy(name);
            return name == "all" || policy ? std::string() : policy.error().message;
          })
          ->type_name("POLICY,...")
          ->needs(text);
  command->add_option("--keep", arguments->keep, "Shares of the prefix's tokens to keep")
      ->delimiter(',')
      ->check(CLI::Range(0.01, 1.0))
      ->type_name("SHARE,...")
      ->needs(retain);
  command->add_option("--shape", arguments->shapes, "How they are shared out: uniform, pyramid, adaptive")
      ->delimiter(',')
      ->check([](const std::string& name) {
        const auto shape = ParseBudgetShape(name);
        return shape ? std::string() : shape.error().message;
      })
      ->type_name("SHAPE,...")
      ->needs(retain);
  command->add_option("--continuation", arguments->continuation_tokens, "Tokens after the prefix that are predicted")
      ->check(CheckCount)
      ->type_name("N")
      ->capture_default_str()
      ->needs(retain);
  command
      ->add_option("--passkey", arguments->passkey_tokens,
                   "Also hide pass keys in contexts of so many tokens, and ask for them after eviction")
      ->delimiter(',')
      ->check(CheckCount)
      ->type_name("N,...")
      ->needs(retain);
  command->add_option("--passkeys", arguments->num_passkeys, "Pass keys in each length")
      ->check(CheckCount)
      ->type_name("N")
      ->capture_default_str()
      ->needs(retain);
}

Status EvalRetention(const RetainArguments& arguments, std::span<const Form> forms, const LoadedModel& loaded,
                     std::span<const Token> tokens, const QualityOptions& quality, Progress& progress, bool as_json,
                     Output& out) {
  KVIST_TRY(const auto cases, CasesOf(arguments, forms));
  const RetentionQualityOptions options{.prefix_tokens = quality.window_tokens,
                                        .continuation_tokens = arguments.continuation_tokens,
                                        .num_windows = quality.num_windows,
                                        .cache = quality.cache,
                                        .bos = quality.bos};
  const auto show = [&](int64_t done, int64_t all) {
    progress.Show(done, all);
    return !interrupted();
  };
  const Json params = {{"model", ModelName(loaded)},
                       {"context", options.prefix_tokens},
                       {"windows", options.num_windows},
                       {"threads", loaded.model->num_threads()}};
  KVIST_TRY(const auto report, MeasureRetention(*loaded.model, tokens, cases, options, show));
  progress.Clear();
  as_json ? WriteContinuationRecords(report, params, out) : WriteContinuation(report, options, out);
  for (const int64_t num_tokens : arguments.passkey_tokens) {
    KVIST_TRY(const auto passkeys,
              MakePasskeys(*loaded.tokenizer, tokens, num_tokens, arguments.num_passkeys, quality.bos));
    KVIST_TRY(const auto found, MeasurePasskeys(*loaded.model, passkeys, cases, options.cache, show));
    progress.Clear();
    as_json ? WritePasskeyRecords(found, params, num_tokens, out) : WritePasskeys(found, num_tokens, out);
  }
  return {};
}

}  // namespace kvist
