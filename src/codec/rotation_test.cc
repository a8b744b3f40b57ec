// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "codec/rotation.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <random>
#include <vector>

namespace kvist::rotation_test {
namespace {

constexpr int kDims[] = {8, 24, 64, 72, 80, 96, 128, 256, 512};

std::vector<float> RandomRows(int num_rows, int dim) {
  std::mt19937 random(11);
  std::normal_distribution<float> normal(0, 3.0f);
  std::vector<float> rows(size_t(num_rows * dim));
  for (float& x : rows) x = normal(random);
  return rows;
}

// The largest power of two that divides dim.
int BlockOf(int dim) {
  int block = 1;
  while (dim % (2 * block) == 0) block *= 2;
  return block;
}

// The matrix by its definition: Sylvester's has -1 where the indices share an odd number of bits.
double Entry(int dim, int row, int column) {
  const int block = BlockOf(dim);
  if (row / block != column / block) return 0;
  const bool odd = std::popcount(unsigned(row % block & column % block)) % 2 != 0;
  return (odd ? -1 : 1) / std::sqrt(double(block));
}

double Norm(const float* row, int dim) {
  double square_sum = 0;
  for (int c = 0; c < dim; ++c) square_sum += double(row[c]) * double(row[c]);
  return std::sqrt(square_sum);
}

double Distance(const float* a, const float* b, int dim) {
  std::vector<float> difference(size_t(dim), 0.0f);
  for (int c = 0; c < dim; ++c) difference[size_t(c)] = a[c] - b[c];
  return Norm(difference.data(), dim);
}

TEST_CASE("rotation: it is Sylvester's matrix, repeated along the diagonal, on each row alone") {
  constexpr int kRows = 3;
  for (const int dim : kDims) {
    CAPTURE(dim);
    const std::vector<float> rows = RandomRows(kRows + 1, dim);
    std::vector<float> rotated = rows;
    RotateRows(rotated.data(), kRows, dim);
    double worst = 0;
    for (int r = 0; r < kRows; ++r) {
      const float* row = rows.data() + r * dim;
      for (int i = 0; i < dim; ++i) {
        double wanted = 0;
        for (int j = 0; j < dim; ++j) wanted += Entry(dim, i, j) * double(row[j]);
        worst = std::max(worst, std::fabs(double(rotated[size_t(r * dim + i)]) - wanted) / Norm(row, dim));
      }
    }
    CHECK(worst < 2e-7);
    CHECK(worst > 1e-10);  // floats can't be better: the reference would be comparing itself
    CHECK(std::equal(rows.begin() + kRows * dim, rows.end(), rotated.begin() + kRows * dim));
  }
}

TEST_CASE("rotation: it is its own inverse and keeps norms and dot products") {
  for (const int dim : kDims) {
    CAPTURE(dim);
    const std::vector<float> rows = RandomRows(20, dim);
    std::vector<float> rotated = rows;
    RotateRows(rotated.data(), 20, dim);
    std::vector<float> back = rotated;
    RotateRows(back.data(), 20, dim);
    for (int r = 0; r < 20; ++r) {
      const float *row = rows.data() + r * dim, *next = rows.data() + (r + 1) % 20 * dim;
      const float *row_rotated = rotated.data() + r * dim, *next_rotated = rotated.data() + (r + 1) % 20 * dim;
      const double norm = Norm(row, dim);
      CHECK(Distance(back.data() + r * dim, row, dim) < 5e-7 * norm);
      CHECK(Norm(row_rotated, dim) == doctest::Approx(norm).epsilon(5e-7));
      CHECK(Distance(row_rotated, row, dim) > 0.5 * norm);
      double dot = 0, dot_rotated = 0;
      for (int c = 0; c < dim; ++c) {
        dot += double(row[c]) * double(next[c]);
        dot_rotated += double(row_rotated[c]) * double(next_rotated[c]);
      }
      CHECK(std::fabs(dot_rotated - dot) < 5e-7 * norm * Norm(next, dim));
    }
  }
}

TEST_CASE("rotation: an outlier is spread evenly over its block, and over nothing else") {
  for (const int dim : kDims) {
    CAPTURE(dim);
    const int block = BlockOf(dim);
    for (int channel = 0; channel < dim; channel += 7) {
      std::vector<float> row(size_t(dim), 0.0f);
      row[size_t(channel)] = 1000.0f;
      RotateRows(row.data(), 1, dim);
      bool even = true;
      for (int c = 0; c < dim; ++c) {
        const float wanted = c / block == channel / block ? 1000.0f / std::sqrt(float(block)) : 0.0f;
        even &= std::fabs(std::fabs(row[size_t(c)]) - wanted) <= 1e-6f * wanted;
      }
      CHECK(even);
    }
  }
}

// Where the square root is a power of two nothing is rounded.
TEST_CASE("rotation: whole numbers come back exactly from blocks of 16, 64 and 256") {
  for (const int dim : {16, 64, 80, 256}) {
    CAPTURE(dim);
    std::vector<float> row(size_t(dim), 0.0f);
    for (int c = 0; c < dim; ++c) row[size_t(c)] = float(c * c % 127 - 60);
    const std::vector<float> before = row;
    RotateRows(row.data(), 1, dim);
    CHECK(row != before);
    RotateRows(row.data(), 1, dim);
    CHECK(row == before);
  }
}

}  // namespace
}  // namespace kvist::rotation_test
