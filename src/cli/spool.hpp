#pragma once
// `fulmar spool`: what waits on disk, for people and for programs.
// Errors: told on stderr; the returned exit code is one of exit_code.hpp.

#include <span>
#include <string_view>

namespace fulmar::cli {

// The words after "spool".
int run_spool(std::span<const std::string_view> words);

}  // namespace fulmar::cli
