// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

namespace kvist {

// Cores this process may use: those it is allowed to run on, two threads of one core counted once, and no more than
// the processor time its control group is given.
int NumAvailableCores();

}  // namespace kvist
