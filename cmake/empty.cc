// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
// Stands in for a library that has no sources yet: CMake refuses a library without any.
