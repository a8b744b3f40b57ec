# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
# Finds ggml: the user's own (GGML_DIR) first, then the one that scripts/setup.sh put into .venv, then the system's.
# GGML_DIR may be an install prefix or the folder of ggml's CMake files. Gives the target ggml::ggml.

if(GGML_DIR)
  file(GLOB ggml_places "${GGML_DIR}" "${GGML_DIR}/lib*/cmake/ggml" "${GGML_DIR}/lib/*/cmake/ggml")
else()
  file(GLOB ggml_places "${PROJECT_SOURCE_DIR}/.venv/lib/python*/site-packages/libggml/lib*/cmake/ggml")
endif()

set(ggml_found_dir "")
foreach(place IN LISTS ggml_places)
  if(EXISTS "${place}/ggml-config.cmake" OR EXISTS "${place}/ggmlConfig.cmake")
    set(ggml_found_dir "${place}")
    break()
  endif()
endforeach()

if(GGML_DIR AND NOT ggml_found_dir)
  message(FATAL_ERROR "No ggml at GGML_DIR=${GGML_DIR}: there is no ggml-config.cmake there or in lib/cmake/ggml below "
                      "it. Give the prefix that ggml was installed to, or leave GGML_DIR out to use the one in .venv.")
endif()
if(ggml_found_dir)
  set(ggml_DIR "${ggml_found_dir}")  # a plain variable: it wins over what an earlier configuration cached
endif()
find_package(ggml CONFIG QUIET)
if(NOT TARGET ggml::ggml)
  message(FATAL_ERROR "ggml was not found. Run `make build`, which fetches it into .venv, or give your own with "
                      "-DGGML_DIR=<prefix>, or build only the library with -DKVIST_BUILD_ENGINE=OFF.")
endif()
message(STATUS "ggml ${GGML_VERSION} from ${ggml_DIR}")

# One in .venv goes with the sources; an installed program needs its libraries beside it. Under the names by which they
# are loaded (libggml.so.0).
cmake_path(IS_PREFIX PROJECT_SOURCE_DIR "${ggml_DIR}" NORMALIZE KVIST_GGML_IS_OURS)
if(KVIST_GGML_IS_OURS)
  file(GLOB KVIST_GGML_LIBRARIES "${ggml_DIR}/../../libggml*.so.[0-9]")
  if(NOT KVIST_GGML_LIBRARIES)  # one of another making: found by its path
    set(KVIST_GGML_IS_OURS OFF)
  endif()
endif()
