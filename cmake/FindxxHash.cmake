# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
# Finds xxHash, which Debian ships without CMake files. Gives the target xxHash::xxhash. With xxHash_HEADER_ONLY, which
# a toolchain file sets whose machine's libraries are not here, the functions come from the header.
find_path(xxHash_INCLUDE_DIR xxhash.h)
set(xxHash_needed xxHash_INCLUDE_DIR)
if(NOT xxHash_HEADER_ONLY)
  find_library(xxHash_LIBRARY xxhash)
  list(PREPEND xxHash_needed xxHash_LIBRARY)
endif()
mark_as_advanced(xxHash_INCLUDE_DIR xxHash_LIBRARY)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(xxHash
  REQUIRED_VARS ${xxHash_needed}
  REASON_FAILURE_MESSAGE "install libxxhash-dev, or run scripts/setup.sh in the Kvist sources")
if(xxHash_FOUND AND xxHash_HEADER_ONLY AND NOT TARGET xxHash::xxhash)
  add_library(xxHash::xxhash INTERFACE IMPORTED)
  set_target_properties(xxHash::xxhash PROPERTIES
    INTERFACE_COMPILE_DEFINITIONS XXH_INLINE_ALL
    INTERFACE_INCLUDE_DIRECTORIES "${xxHash_INCLUDE_DIR}")
elseif(xxHash_FOUND AND NOT TARGET xxHash::xxhash)
  add_library(xxHash::xxhash UNKNOWN IMPORTED)
  set_target_properties(xxHash::xxhash PROPERTIES
    IMPORTED_LOCATION "${xxHash_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${xxHash_INCLUDE_DIR}")
endif()
