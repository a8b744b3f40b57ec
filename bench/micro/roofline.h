// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstddef>

#include "kvist/error.h"

namespace kvist {

// The most that a machine does with so many threads: the roof over everything that runs on as many.
struct Roofline {
  double read_bytes_per_s = 0;  // from memory, not from caches
  double float_ops_per_s = 0;   // in f32; a multiplication and its addition are two
  double int_ops_per_s = 0;     // products of bytes, added in int32
};

// What a task can't do without.
struct RooflineWork {
  double read_bytes = 0;
  double float_ops = 0;
  double int_ops = 0;
};

// The least time that a task can take under a roof, and what it is that takes it. Something else than the roof was
// measured for may take less: keys and values that a cache still holds are read faster, and other instruction sets than
// our kernels' compute faster.
struct RooflineTime {
  double seconds = 0;
  bool is_bound_by_memory = false;  // else by computing
};
RooflineTime LeastTime(const Roofline& roofline, const RooflineWork& work);

struct RooflineOptions {
  size_t buffer_bytes = 0;       // read at a time; 0: 1 GiB or four times the last-level cache, if half of what is free
                                 // is not less
  double seconds_of_each = 0.1;  // for each way to read, and to compute
};

// Measures the instruction set that our kernels use (ChooseKernels), on num_threads threads of its own, wherever the
// system lets them run. The best of several rounds counts: machines are shared. Takes one to two seconds.
// kOutOfMemory when there is no memory to read; kUnsupported for an instruction set without loops.
Result<Roofline> MeasureRoofline(int num_threads, const RooflineOptions& options = {});

}  // namespace kvist
