# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
# How a target of this project is made: its sources by module, its warnings, its sanitizers.

# The sources of src/<module>/ for each module, tests (*_test.cc) apart. A library without sources is an error to
# CMake, so a set of modules that has none yet gets an empty one.
function(kvist_module_sources sources_out tests_out)
  set(sources "")
  foreach(module IN LISTS ARGN)
    file(GLOB found CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/src/${module}/*.cc")
    list(APPEND sources ${found})
  endforeach()
  set(tests ${sources})
  list(FILTER sources EXCLUDE REGEX "_test\\.cc$")
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
  if(NOT sources)
    set(sources "${PROJECT_SOURCE_DIR}/cmake/empty.cc")
  endif()
  set(${sources_out} ${sources} PARENT_SCOPE)
  set(${tests_out} ${tests} PARENT_SCOPE)
endfunction()

# Internal headers are included as "module/header.h" by everything that is built here, and by nobody else.
function(kvist_target_defaults target)
  target_include_directories(${target} PRIVATE "${PROJECT_SOURCE_DIR}/src")
  # gcc 12 at -O3 sees overflows in std::vector::push_back and std::string that can't happen; the address sanitizer
  # sees the real ones.
  # A result must not depend on which multiplications and additions the compiler found worth fusing in which copy of a
  # function: where fusing is wanted, it is written.
  target_compile_options(${target} PRIVATE -ffp-contract=off -Wall -Wextra
    $<$<CXX_COMPILER_ID:GNU>:-Wno-stringop-overflow -Wno-stringop-overread -Wno-restrict>)
  if(KVIST_WERROR)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
  if(KVIST_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${KVIST_SANITIZE} -fno-sanitize-recover=all)
    target_link_options(${target} PUBLIC -fsanitize=${KVIST_SANITIZE})
  endif()
endfunction()

# For sources whose own speed nobody waits for: the program's command lines (CLI11 is all templates) and tests. Half the
# time of compiling them goes into optimising.
function(kvist_compile_quickly)
  set_property(SOURCE ${ARGN} APPEND PROPERTY COMPILE_OPTIONS $<$<CONFIG:Release,RelWithDebInfo>:-O1$<SEMICOLON>-g1>)
endfunction()
