# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
# Read by ctest when it starts. The folder of models, by the rule of python/kvist/models.py.
if(NOT DEFINED ENV{KVIST_MODELS_DIR} OR "$ENV{KVIST_MODELS_DIR}" STREQUAL "")
  if(NOT "$ENV{XDG_DATA_HOME}" STREQUAL "")
    set(ENV{KVIST_MODELS_DIR} "$ENV{XDG_DATA_HOME}/kvist/models")
  else()
    set(ENV{KVIST_MODELS_DIR} "$ENV{HOME}/.local/share/kvist/models")
  endif()
endif()
