# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
# Usage: cmake -DVERSION= -DSOURCE_DIR= -DOUTPUT= -P write_build_info.cmake
cmake_minimum_required(VERSION 3.25)
set(commit "unknown")
execute_process(COMMAND git -C "${SOURCE_DIR}" describe --always --dirty --abbrev=12 --exclude=*
                OUTPUT_VARIABLE described OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE failed ERROR_QUIET)
if(failed EQUAL 0)
  set(commit "${described}")
endif()
file(CONFIGURE OUTPUT "${OUTPUT}" @ONLY CONTENT "#pragma once
#define KVIST_VERSION \"@VERSION@\"
#define KVIST_COMMIT \"@commit@\"
")
