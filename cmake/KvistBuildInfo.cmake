# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
# Gives the target kvist_build_info: a header "build_info.h" with KVIST_VERSION and KVIST_COMMIT, for the records that
# say what was measured. It is looked at in every build and written only when it changes, so a new commit compiles
# again only the files that include it.
set(KVIST_GENERATED_DIR "${PROJECT_BINARY_DIR}/generated")
set(write_build_info ${CMAKE_COMMAND} -DVERSION=${PROJECT_VERSION} -DSOURCE_DIR=${PROJECT_SOURCE_DIR}
    -DOUTPUT=${KVIST_GENERATED_DIR}/build_info.h -P ${PROJECT_SOURCE_DIR}/cmake/write_build_info.cmake)
execute_process(COMMAND ${write_build_info})  # also now, so that an editor finds it before the first build
add_custom_target(kvist_write_build_info COMMAND ${write_build_info} COMMENT "Looking at the commit" VERBATIM
                  BYPRODUCTS ${KVIST_GENERATED_DIR}/build_info.h)
add_library(kvist_build_info INTERFACE)
target_include_directories(kvist_build_info INTERFACE "${KVIST_GENERATED_DIR}")
add_dependencies(kvist_build_info kvist_write_build_info)
