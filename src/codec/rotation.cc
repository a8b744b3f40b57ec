// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "codec/rotation.h"

#include <cmath>

namespace kvist {
namespace {

// One pass of the fast transform: sums and differences of channels `kStride` apart.
template <int kStride>
void Butterfly(float* x, int n) {
  for (int begin = 0; begin < n; begin += 2 * kStride) {
    for (int i = begin; i < begin + kStride; ++i) {
      const float a = x[i], b = x[i + kStride];
      x[i] = a + b;
      x[i + kStride] = a - b;
    }
  }
}

void Butterfly(float* x, int n, int stride) {
  for (int begin = 0; begin < n; begin += 2 * stride) {
    for (int i = begin; i < begin + stride; ++i) {
      const float a = x[i], b = x[i + stride];
      x[i] = a + b;
      x[i + stride] = a - b;
    }
  }
}

}  // namespace

void RotateRows(float* rows, int num_rows, int dim) {
  const int block = dim & -dim;
  const float scale = 1.0f / std::sqrt(float(block));
  for (float* row = rows; row != rows + static_cast<long>(num_rows) * dim; row += dim) {
    // Blocks of one row are passed over together: a pass knows no borders of blocks.
    if (block > 1) Butterfly<1>(row, dim);
    if (block > 2) Butterfly<2>(row, dim);
    for (int stride = 4; stride < block; stride *= 2) Butterfly(row, dim, stride);
    for (int i = 0; i < dim; ++i) row[i] *= scale;
  }
}

}  // namespace kvist
