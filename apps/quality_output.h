// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include "engine/quality.h"
#include "record.h"

namespace kvist {

// What `kvist eval -f` prints: a table with a line a form, or one record a metric and form. params: what was held fixed
// for all forms.
void WriteQualityTable(const QualityReport& report, const QualityOptions& options, Output& out);
void WriteQualityRecords(const QualityReport& report, const Json& params, Output& out);

}  // namespace kvist
