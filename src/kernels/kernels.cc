// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "kernels/kernels.h"

#include <algorithm>
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
    }
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

void MergeSoftmax(int num_rows, int value_dim, const SoftmaxRows& part, const SoftmaxRows& total) {
  constexpr float kEmpty = -std::numeric_limits<float>::infinity();
  for (int row = 0; row < num_rows; ++row) {
    if (part.largest[row] == kEmpty) continue;
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
