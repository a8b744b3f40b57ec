// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <ggml-cpu.h>

#include <memory>

namespace kvist {

struct ThreadPoolDeleter {
  void operator()(ggml_threadpool* pool) const { ggml_threadpool_free(pool); }
};
using ThreadPool = std::unique_ptr<ggml_threadpool, ThreadPoolDeleter>;  // ggml's, ended when it goes

}  // namespace kvist
