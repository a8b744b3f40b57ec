// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "kvist/cache.h"
#include "kvist/error.h"

namespace kvist {

// Which layers of the step under way have got their keys and values: a step that lacks some must not be committed,
// because others would be given whatever its blocks held before.
class StepCalls {
 public:
  explicit StepCalls(size_t num_layers) : layers_(num_layers) {}

  void Begin() {
    for (Layer& layer : layers_) {
      layer.num_appends.store(0, std::memory_order_relaxed);
      layer.sum_of_workers.store(0, std::memory_order_relaxed);
      layer.is_attended_early.store(false, std::memory_order_relaxed);
    }
  }

  // By each worker of a call. Whoever makes the calls lets one end before the next begins, so nothing else is ordered.
  void NoteAppend(int layer, Worker worker) {
    Layer& of_layer = layers_[size_t(layer)];
    of_layer.num_workers.store(worker.count, std::memory_order_relaxed);
    of_layer.sum_of_workers.fetch_add(worker.index + 1, std::memory_order_relaxed);
    of_layer.num_appends.fetch_add(1, std::memory_order_relaxed);
  }
  void NoteAttend(int layer) {
    Layer& of_layer = layers_[size_t(layer)];
    if (!of_layer.is_appended()) of_layer.is_attended_early.store(true, std::memory_order_relaxed);
  }

  Status Check() const {
    for (size_t i = 0; i < layers_.size(); ++i) {
      const Layer& layer = layers_[i];
      if (layer.is_appended() && !layer.is_attended_early.load(std::memory_order_relaxed)) continue;
      const int num_appends = layer.num_appends.load(std::memory_order_relaxed);
      std::string what = "no keys and values were appended to layer " + std::to_string(i);
      if (layer.is_appended()) {
        what = "layer " + std::to_string(i) + " was attended to before its keys and values were appended";
      } else if (num_appends > 0) {
        what = "not all of " + std::to_string(layer.num_workers.load()) + " workers appended to layer " +
               std::to_string(i) + " (" + std::to_string(num_appends) + " calls)";
      }
      return Fail(ErrorCode::kFailedPrecondition, "a step that lacks something can't be committed: " + what +
                                                      "; prepare it again, and for each layer Append, then Attend");
    }
    return {};
  }

 private:
  struct Layer {
    std::atomic<int> num_appends{0};         // calls, one a worker
    std::atomic<int64_t> sum_of_workers{0};  // of their indices from 1 on: one that came twice stands for no other
    std::atomic<int> num_workers{1};
    std::atomic<bool> is_attended_early{false};
    bool is_appended() const {
      const int64_t num = num_appends.load(std::memory_order_relaxed), of = num_workers.load(std::memory_order_relaxed);
      return num > 0 && num % of == 0 && sum_of_workers.load(std::memory_order_relaxed) * 2 == num * (of + 1);
    }
  };
  std::vector<Layer> layers_;
};

}  // namespace kvist
