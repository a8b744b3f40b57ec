// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "kvist/error.h"
#include "model/attention_contest.h"

namespace kvist {

struct TorchPython {
  std::string python;         // an interpreter that has torch, by path or by name
  std::string worker_script;  // where python/kvist/sdpa_worker.py is
};

// The attention of a task by torch's scaled_dot_product_attention (enable_gqa), in a process of its own that the
// contestant owns: timed in there, and asleep between runs. Shapes are those of the task; the numbers in keys, values
// and queries are torch's own.
class TorchAttention {
 public:
  // type: "f32", "bf16" or "f16". Starts Python, which takes seconds. kInvalidArgument names the types; kUnsupported
  // when that Python can't be run or has no torch that can do it.
  static Result<std::unique_ptr<TorchAttention>> Open(const TorchPython& torch, const AttentionTask& task,
                                                      std::string_view type);
  ~TorchAttention();

  Result<double> RunOnce();                                // milliseconds for all layers; kCancelled after Ctrl-C
  size_t num_bytes_read() const { return num_kv_bytes_; }  // as AttentionContestant's

 private:
  class Worker;
  TorchAttention(std::unique_ptr<Worker> worker, size_t num_kv_bytes);

  std::unique_ptr<Worker> worker_;
  size_t num_kv_bytes_;
};

// Bytes of the keys and values that Open takes. kInvalidArgument names the types.
Result<size_t> TorchKvBytes(const AttentionTask& task, std::string_view type);

}  // namespace kvist
