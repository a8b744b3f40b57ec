# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
# Installs the library with a CMake package (find_package(kvist) gives kvist::kvist), and the program with its data.
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

if(TARGET kvist_program)
  set(scripts models.py report.py report_data.py report_drawing.py report_figures.py report_input.py
              report_line_figures.py report_metrics.py report_page.py report_quality.py report_quality_figures.py
              report_quality_tables.py report_series.py report_text.py sdpa_worker.py)
  install(TARGETS kvist_program)
  list(TRANSFORM scripts PREPEND python/kvist/ OUTPUT_VARIABLE script_files)
  install(FILES ${script_files} DESTINATION "${CMAKE_INSTALL_DATADIR}/kvist")
endif()
