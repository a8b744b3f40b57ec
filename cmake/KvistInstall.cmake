# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
# Installs the library with a CMake package (find_package(kvist) gives kvist::kvist) and a file for pkg-config, and the
# program with its data and, where it was built with the ggml in .venv, with that.
include(CMakePackageConfigHelpers)
set(KVIST_PACKAGE_DIR "${CMAKE_INSTALL_LIBDIR}/cmake/kvist")

install(TARGETS kvist EXPORT kvistTargets)
install(DIRECTORY include/kvist DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}" FILES_MATCHING PATTERN "*.h")
install(EXPORT kvistTargets NAMESPACE kvist:: DESTINATION "${KVIST_PACKAGE_DIR}")
configure_package_config_file(cmake/kvistConfig.cmake.in "${PROJECT_BINARY_DIR}/kvistConfig.cmake"
                              INSTALL_DESTINATION "${KVIST_PACKAGE_DIR}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/kvistConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/kvistConfig.cmake" "${PROJECT_BINARY_DIR}/kvistConfigVersion.cmake"
              cmake/FindxxHash.cmake cmake/Findsodium.cmake cmake/Findhiredis.cmake
        DESTINATION "${KVIST_PACKAGE_DIR}")

# A static libkvist leaves what it uses to whoever links it.
set(KVIST_PC_USED "-lxxhash -lsodium -pthread")
if(hiredis_FOUND)
  string(PREPEND KVIST_PC_USED "$<$<BOOL:${hiredis_HAS_SSL}>:-lhiredis_ssl -lssl -lcrypto >-lhiredis ")
endif()
set(KVIST_PC_PUBLIC_LIBS "$<$<NOT:$<BOOL:${BUILD_SHARED_LIBS}>>:${KVIST_PC_USED}>")
set(KVIST_PC_PRIVATE_LIBS "$<$<BOOL:${BUILD_SHARED_LIBS}>:${KVIST_PC_USED}>")
cmake_path(RELATIVE_PATH CMAKE_INSTALL_PREFIX BASE_DIRECTORY "${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig"
           OUTPUT_VARIABLE KVIST_PC_PREFIX)
configure_file(cmake/kvist.pc.in "${PROJECT_BINARY_DIR}/kvist.pc.in" @ONLY)
file(GENERATE OUTPUT "${PROJECT_BINARY_DIR}/kvist.pc" INPUT "${PROJECT_BINARY_DIR}/kvist.pc.in")
install(FILES "${PROJECT_BINARY_DIR}/kvist.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")

if(TARGET kvist_program)
  set(scripts models.py report.py report_data.py report_drawing.py report_figures.py report_input.py
              report_line_figures.py report_metrics.py report_page.py report_quality.py report_quality_figures.py
              report_quality_tables.py report_series.py report_text.py sdpa_worker.py)
  install(TARGETS kvist_program)
  if(KVIST_GGML_IS_OURS)
    install(FILES ${KVIST_GGML_LIBRARIES} DESTINATION "${CMAKE_INSTALL_LIBDIR}/kvist")
  endif()
  list(TRANSFORM scripts PREPEND python/kvist/ OUTPUT_VARIABLE script_files)
  install(FILES ${script_files} DESTINATION "${CMAKE_INSTALL_DATADIR}/kvist")
endif()
