// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "bench/micro/roofline.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <barrier>
#include <chrono>
#include <cstring>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "base/address_range.h"
#include "base/round_up.h"
#include "bench/micro/free_memory.h"
#include "bench/micro/roofline_loops.h"
#include "kernels/kernels.h"

namespace kvist {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kTurnsPerRound = 1 << 20;  // milliseconds: threads take up to 0.1 ms to wake

// Runs work(thread) on threads of their own and waits for them.
void RunOnAll(int num_threads, const std::function<void(int thread)>& work) {
  std::vector<std::jthread> threads;
  for (int i = 0; i < num_threads; ++i) threads.emplace_back(work, i);
}

// The least time in which all threads have done their work once, in rounds for so long, two at least.
double BestSeconds(int num_threads, double for_seconds, const std::function<void(int thread)>& work) {
  int num_rounds = -1;  // all threads have to be there before the first
  double best_seconds = std::numeric_limits<double>::infinity(), all_seconds = 0;
  Clock::time_point round_start;
  bool go_on = true;
  std::barrier round(num_threads, [&]() noexcept {
    const Clock::time_point now = Clock::now();
    if (++num_rounds > 0) {
      const double seconds = std::chrono::duration<double>(now - round_start).count();
      best_seconds = std::min(best_seconds, seconds);
      all_seconds += seconds;
      go_on = num_rounds < 2 || all_seconds < for_seconds;
    }
    round_start = now;
  });
  RunOnAll(num_threads, [&](int thread) {
    for (round.arrive_and_wait(); go_on; round.arrive_and_wait()) work(thread);
  });
  return best_seconds;
}

size_t DefaultBufferBytes() {
  size_t bytes = size_t{1} << 30;
#if defined(_SC_LEVEL3_CACHE_SIZE)
  bytes = std::max(bytes, 4 * size_t(std::max(0L, sysconf(_SC_LEVEL3_CACHE_SIZE))));
#endif
  return std::min(bytes, FreeMemoryBytes() / 2);
}

// Results of the loops go here, so that nobody can leave them out.
std::atomic<uint32_t> sink;

Result<double> ReadBytesPerSecond(const RooflineLoops& loops, int num_threads, const RooflineOptions& options) {
  const size_t wanted_bytes = options.buffer_bytes != 0 ? options.buffer_bytes : DefaultBufferBytes();
  const size_t part_bytes = RoundUp(wanted_bytes / size_t(num_threads), std::max(kReadUnitBytes, PageBytes()));
  const size_t buffer_bytes = part_bytes * size_t(num_threads);
  KVIST_TRY(AddressRange buffer, AddressRange::Reserve(buffer_bytes));
  KVIST_TRY_VOID(buffer.Commit(0, buffer_bytes));
  buffer.UseHugePages(true, 0, buffer_bytes);
  auto part = [&](int thread) { return buffer.data() + size_t(thread) * part_bytes; };
  // Pages that were never written all read the same page of zeros, out of a cache.
  RunOnAll(num_threads, [&](int thread) { std::memset(part(thread), 1, part_bytes); });
  double best_seconds = std::numeric_limits<double>::infinity();
  for (const int num_streams : kReadStreams) {
    best_seconds = std::min(best_seconds, BestSeconds(num_threads, options.seconds_of_each, [&](int thread) {
                              sink.store(loops.read(part(thread), part_bytes, num_streams));
                            }));
  }
  return double(buffer_bytes) / best_seconds;
}

double FloatOpsPerSecond(const RooflineLoops& loops, int num_threads, const RooflineOptions& options) {
  alignas(64) float operands[kOperandBytes / sizeof(float)];
  std::ranges::fill(operands, 1.0f);
  const double seconds = BestSeconds(num_threads, options.seconds_of_each, [&](int) {
    sink.store(uint32_t(loops.multiply_floats(reinterpret_cast<const std::byte*>(operands), kTurnsPerRound)));
  });
  return double(loops.float_ops_per_turn) * kTurnsPerRound * num_threads / seconds;
}

double IntOpsPerSecond(const RooflineLoops& loops, int num_threads, const RooflineOptions& options) {
  alignas(64) std::byte operands[kOperandBytes];
  std::ranges::fill(operands, std::byte{1});
  const double seconds = BestSeconds(num_threads, options.seconds_of_each,
                                     [&](int) { sink.store(uint32_t(loops.multiply_ints(operands, kTurnsPerRound))); });
  return double(loops.int_ops_per_turn) * kTurnsPerRound * num_threads / seconds;
}

}  // namespace

RooflineTime LeastTime(const Roofline& roofline, const RooflineWork& work) {
  const double read_seconds = work.read_bytes / roofline.read_bytes_per_s;
  const double compute_seconds = work.float_ops / roofline.float_ops_per_s + work.int_ops / roofline.int_ops_per_s;
  return {std::max(read_seconds, compute_seconds), read_seconds >= compute_seconds};
}

Result<Roofline> MeasureRoofline(int num_threads, const RooflineOptions& options) {
  KVIST_CHECK(num_threads > 0);
  KVIST_TRY(const Kernels* kernels, ChooseKernels());
  const RooflineLoops* loops = FindRooflineLoops(kernels->name);
  if (loops == nullptr) {
    return Fail(ErrorCode::kUnsupported, "no loops measure the roofline of the instruction set " +
                                             std::string(kernels->name) + "; choose another one with KVIST_ISA");
  }
  KVIST_TRY(const double read_bytes_per_s, ReadBytesPerSecond(*loops, num_threads, options));
  return Roofline{read_bytes_per_s, FloatOpsPerSecond(*loops, num_threads, options),
                  IntOpsPerSecond(*loops, num_threads, options)};
}

}  // namespace kvist
