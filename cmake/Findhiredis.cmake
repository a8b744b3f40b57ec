# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
# Finds hiredis, whose older versions come without CMake files. Gives the target hiredis::hiredis, and says with
# hiredis_HAS_SSL whether it can do TLS (version 1.0 on).
find_path(hiredis_INCLUDE_DIR hiredis/hiredis.h)
find_library(hiredis_LIBRARY hiredis)
find_library(hiredis_SSL_LIBRARY hiredis_ssl)
mark_as_advanced(hiredis_INCLUDE_DIR hiredis_LIBRARY hiredis_SSL_LIBRARY)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(hiredis REQUIRED_VARS hiredis_LIBRARY hiredis_INCLUDE_DIR)
if(hiredis_FOUND AND NOT TARGET hiredis::hiredis)
  add_library(hiredis::hiredis UNKNOWN IMPORTED)
  set_target_properties(hiredis::hiredis PROPERTIES
    IMPORTED_LOCATION "${hiredis_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${hiredis_INCLUDE_DIR}")
  set(hiredis_HAS_SSL OFF)
  if(hiredis_SSL_LIBRARY AND EXISTS "${hiredis_INCLUDE_DIR}/hiredis/hiredis_ssl.h")
    set(hiredis_HAS_SSL ON)
    set_target_properties(hiredis::hiredis PROPERTIES INTERFACE_LINK_LIBRARIES "${hiredis_SSL_LIBRARY};ssl;crypto")
  endif()
endif()
