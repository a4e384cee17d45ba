#pragma once
// Report: what all suites measured, as one page with tables, goals and charts.
//
// Thread-safety: plain functions of plain values.

#include <filesystem>
#include <span>
#include <string>

#include "fulmar/result.hpp"
#include "results.hpp"

namespace fulmar::bench {

// A table in Markdown: medians, and in the last line how many times better ours is than the best of the others, figure by
// figure.
std::string markdown_table(std::span<const Row> rows, std::span<const Column> columns);

// Reads every suite's figures from `figures` and writes report.md, the charts and a copy of the figures into `folder`.
// Errors: io_error when there is not one suite, or a file cannot be written.
Result<void> write_report(const std::filesystem::path& figures, const std::filesystem::path& folder);

}  // namespace fulmar::bench
