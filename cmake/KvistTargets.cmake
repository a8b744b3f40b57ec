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

# For a target whose own speed nobody waits for: the program's command lines (CLI11 is all templates) and tests. Half the
# time of compiling them goes into optimising.
function(kvist_compile_quickly target)
  target_compile_options(${target} PRIVATE $<$<CONFIG:Release,RelWithDebInfo>:-O1$<SEMICOLON>-g1>)
  if(KVIST_SANITIZE)
    target_compile_options(${target} PRIVATE -O0)
  endif()
endfunction()

# Files of one folder are compiled some at a time: most of what a file takes is reading headers. What they declare in
# anonymous namespaces must have different names then; tests are each in a namespace of their own. Not those of kernels
# and micro-benchmarks: they open instruction sets.
function(kvist_compile_together target)
  if(NOT KVIST_UNITY)
    return()
  endif()
  set(most_files 12)
  get_target_property(sources ${target} SOURCES)
  foreach(source IN LISTS sources)
    get_filename_component(folder "${source}" DIRECTORY)
    get_filename_component(folder "${folder}" NAME)
    if(source MATCHES "/(kernels|micro)/" AND NOT source MATCHES "_test\\.cc$")
      continue()
    endif()
    math(EXPR num_${folder} "0${num_${folder}} + 1")
    math(EXPR part "(${num_${folder}} - 1) / ${most_files}")
    set_source_files_properties("${source}" PROPERTIES UNITY_GROUP "${folder}_${part}")
  endforeach()
  set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
endfunction()
