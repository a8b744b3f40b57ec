# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
# Finds libsodium, which comes without CMake files. Gives the target sodium::sodium.
find_path(sodium_INCLUDE_DIR sodium/crypto_generichash_blake2b.h)
find_library(sodium_LIBRARY sodium)
mark_as_advanced(sodium_INCLUDE_DIR sodium_LIBRARY)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(sodium
  REQUIRED_VARS sodium_LIBRARY sodium_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "install libsodium-dev, or run scripts/setup.sh in the Kvist sources")
if(sodium_FOUND AND NOT TARGET sodium::sodium)
  add_library(sodium::sodium UNKNOWN IMPORTED)
  set_target_properties(sodium::sodium PROPERTIES
    IMPORTED_LOCATION "${sodium_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${sodium_INCLUDE_DIR}")
endif()
