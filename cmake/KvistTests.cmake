# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
# The tests, as ctest sees them. Labels: unit, property, chat_class, engine, lint, python, program, install, torture.
find_package(doctest CONFIG REQUIRED)
find_package(Python3 REQUIRED COMPONENTS Interpreter)

add_library(kvist_doctest_main OBJECT cmake/doctest_main.cc)
target_link_libraries(kvist_doctest_main PUBLIC doctest::doctest)
target_compile_features(kvist_doctest_main PUBLIC cxx_std_23)
if(CMAKE_CROSSCOMPILING_EMULATOR MATCHES "qemu-")
  target_sources(kvist_doctest_main PRIVATE cmake/emulated_machine.cc)
endif()

# A test program. library: what it links; the rest: its sources (there may be none yet).
function(kvist_add_test_program name library)
  add_executable(${name} ${ARGN})
  kvist_target_defaults(${name})
  kvist_compile_quickly(${name})
  kvist_compile_together(${name})
  target_include_directories(${name} PRIVATE "${PROJECT_SOURCE_DIR}")
  target_compile_definitions(${name} PRIVATE KVIST_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  target_link_libraries(${name} PRIVATE ${library} kvist_doctest_main xxHash::xxhash)
endfunction()
function(kvist_add_test name label)
  add_test(NAME ${name} COMMAND ${ARGN})
  set_tests_properties(${name} PROPERTIES LABELS ${label} TIMEOUT 900)
endfunction()
file(GLOB conformance_tests CONFIGURE_DEPENDS tests/conformance/*.cc)
file(GLOB property_tests CONFIGURE_DEPENDS tests/property/*.cc)
kvist_add_test_program(kvist_unit_test kvist ${library_tests} ${conformance_tests})
kvist_add_test_program(kvist_property_test kvist ${property_tests})
kvist_add_test(property property kvist_property_test)
# The thread sanitizer makes tests 20 to 30 times as slow; it looks at those in which threads meet, or which are quick.
set(unit_tests kvist_unit_test)
if(KVIST_SANITIZE STREQUAL "thread")
  set(slow_tests "attend: after*" "attend: prefill*" "cache: static sequences*" "kernels:*" "moved:*" "*KV size*"
                 "page selection: a decode*" "page selection: after*" "page selection: forks*"
                 "page selection: quantised*" "quantised tile:*" "sealing: a long*" "sealing: a number*"
                 "sealing: a query*" "sealing: outputs*" "sealing: the bits*" "sequence: spare*"
                 "spill: a sequence several*" "spill: blocks that were*")
  list(JOIN slow_tests "," slow_tests)
  list(APPEND unit_tests "--test-case-exclude=${slow_tests}")
endif()
# Two parts that take about as long, side by side.
kvist_add_test(unit unit ${unit_tests} --last=100)
kvist_add_test(unit_rest unit ${unit_tests} --first=101)

# Kills processes that write to a store, and looks at what is left of it.
add_executable(kvist_torture_store tests/torture/torture_store.cc)
kvist_target_defaults(kvist_torture_store)
target_include_directories(kvist_torture_store PRIVATE "${PROJECT_SOURCE_DIR}")
target_link_libraries(kvist_torture_store PRIVATE kvist xxHash::xxhash)
kvist_add_test(torture_store torture kvist_torture_store --rounds 200)

# Of a build for another machine (cmake/aarch64.cmake), in its emulator: the unit tests on each instruction set, without
# those that take more than 20 seconds there because they attend to long texts again and again.
if(CMAKE_CROSSCOMPILING_EMULATOR MATCHES "qemu-aarch64")
  set(slow_tests "attend: after removals*" "attend: the bits don't depend*" "sealing: a query that saw the wrong form*"
                 "sealing: after truncating*" "sealing: outputs are those*" "sealing: the bits don't depend*"
                 "sequence: spare blocks of one group*")
  list(JOIN slow_tests "," slow_tests)
  function(kvist_add_emulated_test isa cpu)
    add_test(NAME unit_${isa} COMMAND kvist_unit_test "--test-case-exclude=${slow_tests}")
    set_tests_properties(unit_${isa} PROPERTIES LABELS emulated TIMEOUT 900
                                                ENVIRONMENT "KVIST_ISA=${isa};QEMU_CPU=${cpu}")
  endfunction()
  kvist_add_emulated_test(neon cortex-a57)
  kvist_add_emulated_test(neon-dotprod max)
endif()

if(KVIST_BUILD_ENGINE)
  file(GLOB golden_tests CONFIGURE_DEPENDS tests/golden/*.cc)
  file(GLOB bench_tests CONFIGURE_DEPENDS bench/*/*_test.cc)
  kvist_add_test_program(kvist_engine_test kvist_bench ${engine_tests} ${golden_tests} ${bench_tests})
  kvist_add_test(engine engine kvist_engine_test)
  # ggml's threads wait for each other by spinning: two programs that use all cores at once take many times as long as
  # one after the other.
  set_tests_properties(engine PROPERTIES RUN_SERIAL ON)
  # The classifier of conversations on labelled ones (tests/data/chats): a test, and a program that prints its scores
  # and the features that tools/fit_chat_classifier.py fits it to.
  kvist_add_test_program(kvist_chat_class_test kvist tests/chats/chat_class_accuracy_test.cc
                         tests/chats/labelled_chats.cc)
  kvist_add_test(chat_class chat_class kvist_chat_class_test)
  add_executable(chat_features EXCLUDE_FROM_ALL tests/chats/chat_features.cc tests/chats/labelled_chats.cc)
  kvist_target_defaults(chat_features)
  target_include_directories(chat_features PRIVATE "${PROJECT_SOURCE_DIR}")
  target_link_libraries(chat_features PRIVATE kvist)
  foreach(target kvist_chat_class_test chat_features)
    target_link_libraries(${target} PRIVATE nlohmann_json::nlohmann_json)
  endforeach()
endif()

# Tests find their models where the program would; ctest reads this file when it starts, so the environment counts.
set(test_environment "${PROJECT_BINARY_DIR}/test_environment.cmake")
configure_file(cmake/test_environment.cmake "${test_environment}" COPYONLY)
set_property(DIRECTORY "${PROJECT_SOURCE_DIR}" APPEND PROPERTY TEST_INCLUDE_FILES "${test_environment}")

function(kvist_add_script_test name label)
  add_test(NAME ${name} COMMAND ${ARGN} WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}")
  set_tests_properties(${name} PROPERTIES LABELS ${label} TIMEOUT 300)
endfunction()

kvist_add_script_test(floors lint Python3::Interpreter tools/check_floors.py)
kvist_add_script_test(floors_self_test lint Python3::Interpreter tools/check_floors.py --self-test)
kvist_add_script_test(python_models python Python3::Interpreter tests/python/test_models.py)
kvist_add_script_test(python_sdpa_worker python Python3::Interpreter tests/python/test_sdpa_worker.py)
kvist_add_script_test(python_peers python Python3::Interpreter bench/peers/test_peers.py)
# matplotlib is in .venv; where another ggml is used there is no .venv, and what draws is reported as skipped if the
# Python of the system has no matplotlib either.
set(report_python "${PROJECT_SOURCE_DIR}/.venv/bin/python")
if(NOT EXISTS "${report_python}")
  set(report_python Python3::Interpreter)
endif()
kvist_add_script_test(python_report python ${report_python} tests/python/test_report.py)
kvist_add_script_test(python_report_quality python ${report_python} tests/python/test_report_quality.py)
set_tests_properties(python_report python_report_quality PROPERTIES SKIP_RETURN_CODE 77)
if(TARGET kvist_program)
  # Two halves that take about as long, with one thread of the model each.
  kvist_add_script_test(program program Python3::Interpreter tests/program/test_program.py
                        $<TARGET_FILE:kvist_program> WithoutModel Chat SchemaChecker)
  kvist_add_script_test(program_with_model program Python3::Interpreter tests/program/test_program.py
                        $<TARGET_FILE:kvist_program> WithModel)
  kvist_add_script_test(program_sessions program Python3::Interpreter tests/program/test_sessions.py
                        $<TARGET_FILE:kvist_program>)
endif()
if(NOT KVIST_SANITIZE)  # an installed library with a sanitizer in it is of no use to anybody
  kvist_add_script_test(install install bash tests/install/run.sh "${PROJECT_BINARY_DIR}" "${CMAKE_COMMAND}")
endif()
