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

// Everything kept and read first, to show what a form alone loses.
Result<std::vector<RetentionCase>> CasesOf(const RetainArguments& arguments, std::span<const Form> forms) {
  std::vector<std::string> names = arguments.policies;
  if (names == std::vector<std::string>{"all"}) {
    names.clear();
    for (const RetentionPolicy policy : kAllRetentionPolicies) names.emplace_back(RetentionPolicyName(policy));
  }
  std::vector<RetentionCase> cases;
  std::string why_not;
  for (const Form form : forms) {
    cases.push_back({.form = form});
    for (const int64_t page_tokens : arguments.page_tokens) {
      cases.push_back({.form = form, .page_tokens = page_tokens});
    }
    for (const double keep : arguments.keep) {
      for (const std::string& name : names) {
        KVIST_TRY(const RetentionPolicy policy, ParseRetentionPolicy(name));
        if (policy == RetentionPolicy::kFull) continue;
        for (const std::string& shape_name : arguments.shapes) {
          KVIST_TRY(const BudgetShape shape, ParseBudgetShape(shape_name));
          const Status fits = RetentionOptions{.policy = policy, .shape = shape}.Validate();
          if (!fits) why_not = fits.error().message;
          if (!fits || (policy == RetentionPolicy::kWindow && shape != BudgetShape::kUniform)) continue;
          cases.push_back({.form = form, .policy = policy, .shape = shape, .keep = keep});
        }
      }
    }
  }
  if (!why_not.empty()) Note("left out: " + why_not);
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
      "a prefix takes %.2f s, %.2f s while attention is noted, and kvzip's second pass %.2f s\n\n"
      "form     policy        shape      keep   read     held          KV  evicted in  KL from f32         same top  "
      "perplexity  recovered\n",
      options.num_windows, options.num_windows == 1 ? "" : "es", (long long)options.prefix_tokens,
      (long long)options.continuation_tokens, report.base_perplexity, report.no_prefix_perplexity, report.prefill_s,
      report.observed_prefill_s, report.repetition_s);
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
  }
}

// --- recall ---

constexpr char kIntroduction[] =
    "A pass key is hidden somewhere in the text that follows. Find it and remember it.\n\n";
constexpr char kQuestion[] = "\n\nWhat is the pass key that was hidden in the text? The pass key is";

std::vector<Token> EncodePlainly(const Tokenizer& tokenizer, const std::string& text) {
  return tokenizer.Encode(text, {.add_special = false, .parse_special = false});
}

void Append(std::span<const Token> from, std::vector<Token>& to) {
  to.insert(to.end(), from.begin(), from.end());
}

// The digits' tokens as they come after the question.
Result<std::vector<Token>> DigitsAfter(const Tokenizer& tokenizer, const std::string& text,
                                       std::span<const Token> question, const std::string& number) {
  const auto all = EncodePlainly(tokenizer, text + " " + number);
  const bool continues =
      all.size() > question.size() && std::ranges::equal(std::span(all).first(question.size()), question);
  if (!continues)
    return Fail(ErrorCode::kUnsupported, "the tokenizer joins a pass key's digits to what is before them");
  return std::vector<Token>(all.begin() + std::ssize(question), all.end());
}

// Contexts of filler with something hidden in each, at depths spread evenly.
class Hiding {
 public:
  Hiding(std::span<const Token> filler, int64_t num_tokens, int count, std::optional<Token> bos)
      : filler_(filler),
        num_tokens_(num_tokens),
        count_(count),
        bos_(bos),
        random_(static_cast<unsigned>(num_tokens)) {}

  std::mt19937& random() { return random_; }
  // The i-th of them, without cue and answer.
  Result<Recall> Hide(int i, std::span<const Token> before, std::span<const Token> hidden) {
    const int64_t num_filler = num_tokens_ - std::ssize(before) - std::ssize(hidden) - 1;
    if (num_filler < 1 || std::ssize(filler_) < num_filler * 2) {
      return Fail(ErrorCode::kInvalidArgument,
                  "the text has " + std::to_string(filler_.size()) + " tokens, too few to hide something in " +
                      std::to_string(num_tokens_) + " of them; give a longer text, or longer or shorter contexts");
    }
    const auto begin = random_() % static_cast<uint64_t>(std::ssize(filler_) - num_filler);
    const auto here = filler_.subspan(begin, static_cast<size_t>(num_filler));
    Recall recall{.context = {}, .cue = {}, .answer = {}, .depth = (i + 0.5) / count_};
    const auto split = static_cast<size_t>(recall.depth * static_cast<double>(num_filler));
    if (bos_) recall.context.push_back(*bos_);
    Append(before, recall.context);
    Append(here.first(split), recall.context);
    Append(hidden, recall.context);
    Append(here.subspan(split), recall.context);
    return recall;
  }

 private:
  const std::span<const Token> filler_;
  const int64_t num_tokens_;
  const int count_;
  const std::optional<Token> bos_;
  std::mt19937 random_;
};

Result<std::vector<Recall>> MakePasskeys(const Tokenizer& tokenizer, int count, Hiding hiding) {
  const auto introduction = EncodePlainly(tokenizer, kIntroduction), question = EncodePlainly(tokenizer, kQuestion);
  std::vector<Recall> recalls;
  for (int i = 0; i < count; ++i) {
    const std::string number = std::to_string(10000 + hiding.random()() % 90000);
    const auto needle = EncodePlainly(
        tokenizer, "\n\nThe pass key is " + number + ". Keep it in mind: " + number + " is the pass key.\n\n");
    KVIST_TRY(Recall recall, hiding.Hide(i, introduction, needle));
    recall.cue = question;
    KVIST_TRY(recall.answer, DigitsAfter(tokenizer, kQuestion, question, number));
    recalls.push_back(std::move(recall));
  }
  return recalls;
}

// Passages that nobody can know: shreds of the text, one after the other. The cue is how they begin.
Result<std::vector<Recall>> MakePassages(std::span<const Token> text, int count, Hiding hiding) {
  constexpr size_t kNumShreds = 24, kShredTokens = 8, kCueTokens = 32;
  std::vector<Recall> recalls;
  for (int i = 0; i < count && text.size() > kShredTokens; ++i) {
    std::vector<Token> passage;
    while (passage.size() < kNumShreds * kShredTokens) {
      Append(text.subspan(hiding.random()() % (text.size() - kShredTokens), kShredTokens), passage);
    }
    KVIST_TRY(Recall recall, hiding.Hide(i, {}, passage));
    recall.cue.assign(passage.begin(), passage.begin() + kCueTokens);
    recall.answer.assign(passage.begin() + kCueTokens, passage.end());
    recalls.push_back(std::move(recall));
  }
  return recalls;
}

// What is recalled, for people and in records.
struct RecallTest {
  const char* title;
  std::string metric;  // begins so
};
const RecallTest kPasskeyTest{"pass keys hidden in %lld tokens, asked for after eviction", "passkey"};
const RecallTest kCopyTest{"passages of 192 tokens in %lld tokens, to be copied after eviction, given their first 32",
                           "copy"};

void WriteRecall(const RecallTest& test, const RecallReport& report, int64_t num_tokens, Output& out) {
  char title[128], text[384];
  std::snprintf(title, sizeof(title), test.title, (long long)num_tokens);
  std::snprintf(text, sizeof(text),
                "\n%s\nln probability of a token without the context %.3f\n\n"
                "form     policy        shape      keep   read  all right    tokens right  ln probability of a token\n",
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
      ->needs(retain);
  command->add_option("--shape", arguments->shapes, "How they are shared out: uniform, pyramid, adaptive, global")
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
  params["context"] = options.prefix_tokens;
  params["continuation"] = options.continuation_tokens;
  params["windows"] = options.num_windows;
  KVIST_TRY(const auto report, MeasureRetention(*loaded.model, tokens, cases, options, show));
  progress.Clear();
  as_json ? WriteContinuationRecords(report, params, out) : WriteContinuation(report, options, out);
  const auto measure = [&](const RecallTest& test, int64_t num_tokens, const std::vector<Recall>& recalls) -> Status {
    KVIST_TRY(const auto recalled, MeasureRecall(*loaded.model, recalls, cases, options, show));
    progress.Clear();
    as_json ? WriteRecallRecords(test, recalled, params, num_tokens, out)
            : WriteRecall(test, recalled, num_tokens, out);
    return {};
  };
  const int count = arguments.num_asked;
  for (const int64_t num_tokens : arguments.passkey_tokens) {
    KVIST_TRY(const auto passkeys,
              MakePasskeys(*loaded.tokenizer, count, Hiding(tokens, num_tokens, count, quality.bos)));
    KVIST_TRY_VOID(measure(kPasskeyTest, num_tokens, passkeys));
  }
  for (const int64_t num_tokens : arguments.copy_tokens) {
    KVIST_TRY(const auto passages, MakePassages(tokens, count, Hiding(tokens, num_tokens, count, quality.bos)));
    KVIST_TRY_VOID(measure(kCopyTest, num_tokens, passages));
  }
  return {};
}

}  // namespace kvist
