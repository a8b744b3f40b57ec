// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "kernels/kernels.h"

#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

namespace kvist {

namespace scalar {
extern const Kernels kKernels;
}
#if defined(__x86_64__)
namespace avx2 {
extern const Kernels kKernels;
}
namespace avx512 {
extern const Kernels kKernels;
}
namespace avx512vnni {
extern const Kernels kKernels;
}
#elif defined(__aarch64__)
namespace neon {
extern const Kernels kKernels;
}
namespace neon_dotprod {
extern const Kernels kKernels;
}
#endif

std::span<const Kernels* const> SupportedKernels() {
  static const std::vector<const Kernels*> supported = [] {
    std::vector<const Kernels*> kernels{&scalar::kKernels};
#if defined(__x86_64__)
    const bool has_avx2 =
        __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    if (has_avx2) kernels.push_back(&avx2::kKernels);
    if (has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
      kernels.push_back(&avx512::kKernels);
      if (__builtin_cpu_supports("avx512vnni")) kernels.push_back(&avx512vnni::kKernels);
    }
#elif defined(__aarch64__)
    kernels.push_back(&neon::kKernels);
    if ((getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0) kernels.push_back(&neon_dotprod::kKernels);
#endif
    return kernels;
  }();
  return supported;
}

Result<const Kernels*> ChooseKernels() {
  const auto supported = SupportedKernels();
  const char* wanted = std::getenv("KVIST_ISA");
  if (wanted == nullptr || *wanted == '\0') return supported.back();
  std::string names;
  for (const Kernels* kernels : supported) {
    if (std::string(kernels->name) == wanted) return kernels;
    names += std::string(names.empty() ? "" : ", ") + kernels->name;
  }
  return Fail(ErrorCode::kUnsupported,
              "KVIST_ISA=" + std::string(wanted) + " is not an instruction set of this CPU; it has: " + names);
}

namespace {

// To nearest, ties to even, for |x| < 2^22, without a function call: the addition rounds.
int32_t RoundToInt(float x) {
  return std::bit_cast<int32_t>(x + 12582912.0f) - 0x4b400000;
}

template <class Number>
void RoundRows(const float* rows, int num_rows, int dim, int32_t limit, Number* numbers, float* scales, int32_t* sums) {
  for (int row = 0; row < num_rows; ++row, rows += dim, numbers += dim) {
    float largest = 0, nothing = 0;
    for (int c = 0; c < dim; ++c) {
      largest = std::max(largest, std::fabs(rows[c]));
      nothing += rows[c] * 0.0f;  // NaN where a number is not finite: that has to show
    }
    const bool can_be_rounded = largest > 0x1p-100f && nothing == 0.0f;
    const float inverse = can_be_rounded ? float(limit) / largest : 0.0f;
    int32_t sum = 0;
    for (int c = 0; c < dim; ++c) {
      const int32_t number = can_be_rounded ? RoundToInt(rows[c] * inverse) : 0;
      numbers[c] = Number(number);
      sum += number;
    }
    scales[row] = largest / float(limit) + nothing;
    sums[row] = sum;
  }
}

}  // namespace

void RoundQueries(const float* rows, int num_rows, int key_dim, int8_t* bytes, float* scales, int32_t* sums) {
  RoundRows(rows, num_rows, key_dim, 127, bytes, scales, sums);
}
void RoundQueries(const float* rows, int num_rows, int key_dim, int16_t* words, float* scales, int32_t* sums) {
  RoundRows(rows, num_rows, key_dim, 8191, words, scales, sums);
}

void MergeSoftmax(int num_rows, int value_dim, const SoftmaxRows& part, const SoftmaxRows& total) {
  for (int row = 0; row < num_rows; ++row) {
    if (part.sum[row] == 0.0f) continue;  // NaN is not nothing
    const float* from = part.output + size_t(row) * size_t(value_dim);
    float* to = total.output + size_t(row) * size_t(value_dim);
    const float largest = std::max(part.largest[row], total.largest[row]);
    const float part_scale = std::exp(part.largest[row] - largest);
    const float total_scale = std::exp(total.largest[row] - largest);
    for (int i = 0; i < value_dim; ++i) to[i] = to[i] * total_scale + from[i] * part_scale;
    total.sum[row] = total.sum[row] * total_scale + part.sum[row] * part_scale;
    total.largest[row] = largest;
  }
}

}  // namespace kvist
