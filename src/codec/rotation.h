// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

namespace kvist {

// Multiplies each row of `dim` floats by an orthonormal Hadamard matrix, in place: spreads an outlier over all channels
// and keeps dot products. It is its own inverse. The matrix is Sylvester's, of the largest power of two that divides
// dim, repeated along the diagonal (64: one of 64; 80: five of 16). O(dim log dim) a row.
void RotateRows(float* rows, int num_rows, int dim);

}  // namespace kvist
