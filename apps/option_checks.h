// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstddef>
#include <string>

namespace kvist {

// Checks of option values for CLI11: "" when the text is fine, else what is wrong with it.
std::string CheckBytes(const std::string& text);
std::string CheckCount(const std::string& text);  // a whole number from 1 to a million
std::string CheckCodec(const std::string& text);
std::string CheckCountOrZero(const std::string& text);
std::string CheckForm(const std::string& text);
std::string CheckGrowth(const std::string& text);
std::string CheckRetain(const std::string& text);  // as --retain of generate and chat
std::string CheckStream(const std::string& text);
std::string CheckNotEmpty(const std::string& text);
std::string CheckPhase(const std::string& text);
std::string CheckSequences(const std::string& text);  // as many as one step of a model takes
std::string CheckThreads(const std::string& text);
std::string CheckTier(const std::string& text);
std::string CheckWeights(const std::string& text);

std::string RetentionPolicyNames();  // "full, window, ...", for help

// "512M", "1.5GiB", "1048576": powers of 1024. 0 when it isn't a positive number of bytes.
size_t ParseBytes(const std::string& text);

}  // namespace kvist
