// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "model/ggml_info.h"

#include <ggml.h>

namespace kvist {

const char* GgmlVersion() {
  return ggml_version();
}

const char* TensorTypeName(uint32_t ggml_type) {
  return ggml_type_name(static_cast<enum ggml_type>(ggml_type));
}

}  // namespace kvist
