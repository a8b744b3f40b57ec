// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "quality_output.h"

#include <algorithm>
#include <cstdio>
#include <string>

namespace kvist {
namespace {

constexpr Form kNoise{Codec::kF16, Codec::kF16};

std::string Heading(const QualityReport& report, const QualityOptions& options) {
  char text[256];
  std::snprintf(
      text, sizeof(text),
      "%lld predictions in %d window%s of %lld tokens, %s; with keys and values in f32: perplexity %.5g, %s\n",
      static_cast<long long>(report.forms.front().num_tokens), options.num_windows, options.num_windows == 1 ? "" : "s",
      static_cast<long long>(options.window_tokens),
      options.after_the_fact ? "sealed after the fact" : "sealed as they come", report.base_perplexity,
      BytesText(double(report.base_kv_bytes)).c_str());
  return text;
}

std::string Line(const FormQuality& form) {
  char text[256];
  std::snprintf(text, sizeof(text),
                "%-10s %6.2f %7.2f %10s  %9.2e +- %7.1e  %8.2e  %8.2e  %7.2f%%  %10.5g  %+9.2e +- %7.1e\n",
                FormName(form.form).c_str(), form.bits, form.total_bits, BytesText(double(form.kv_bytes)).c_str(),
                form.kl.mean, form.kl.standard_error, form.kl_p99, form.kl_max, 100 * form.same_top, form.perplexity,
                form.ln_perplexity_difference.mean, form.ln_perplexity_difference.standard_error);
  return text;
}

// What the figure of f16 is good for.
std::string NoiseText(const QualityReport& report) {
  const auto noise = std::ranges::find(report.forms, kNoise, &FormQuality::form);
  if (noise == report.forms.end()) return "";
  char text[256];
  std::snprintf(text, sizeof(text),
                "\nf16 is the noise of this measurement: its KL of %.1e is rounding, and a form within ten times of it "
                "can't be told from one without loss.\n",
                noise->kl.mean);
  return text;
}

}  // namespace

void WriteQualityTable(const QualityReport& report, const QualityOptions& options, Output& out) {
  out.Write(Heading(report, options) +
            "\n             bits a number            KL from f32, nats                                        "
            "             ln perplexity\n"
            "form       sealed  in all         KV  mean                 99 % below       max  same top  perplexity  "
            "less that of f32\n");
  for (const FormQuality& form : report.forms) out.Write(Line(form));
  out.Write(NoiseText(report));
}

void WriteQualityRecords(const QualityReport& report, const Json& params, Output& out) {
  for (const FormQuality& form : report.forms) {
    Json of_form = params;
    of_form["form_k"] = CodecName(form.form.k);
    of_form["form_v"] = CodecName(form.form.v);
    const std::pair<const char*, Json> metrics[] = {
        {"tokens", form.num_tokens},
        {"kl_mean", form.kl.mean},
        {"kl_se", form.kl.standard_error},
        {"kl_median", form.kl_median},
        {"kl_p99", form.kl_p99},
        {"kl_max", form.kl_max},
        {"same_top", form.same_top},
        {"perplexity", form.perplexity},
        {"base_perplexity", report.base_perplexity},
        {"ln_perplexity_difference", form.ln_perplexity_difference.mean},
        {"ln_perplexity_difference_se", form.ln_perplexity_difference.standard_error},
        {"bits", form.bits},
        {"total_bits", form.total_bits},
        {"kv_bytes", form.kv_bytes},
    };
    for (const auto& [metric, value] : metrics) {
      WriteRecord({.bench = "eval", .params = of_form, .metric = metric, .value = value}, out);
    }
  }
}

}  // namespace kvist
