# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
# Builds libkvist and its tests for 64-bit ARM on another machine, with Debian's g++-aarch64-linux-gnu; the tests run in
# qemu-user. Without the engine: there is no ggml for that machine here.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
# It emulates the CPU that QEMU_CPU names in the environment, else the best it knows.
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L /usr/aarch64-linux-gnu)
# doctest and xxHash are those of this machine: their headers are the same everywhere.
set(xxHash_HEADER_ONLY ON)
