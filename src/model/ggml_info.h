// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstdint>

namespace kvist {

const char* GgmlVersion();                       // of the library that runs, "0.9.4"
const char* TensorTypeName(uint32_t ggml_type);  // "q4_1"; of a GgufTensor, hence known

}  // namespace kvist
