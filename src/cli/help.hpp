#pragma once
// The texts of `fulmar --help`, `fulmar pub --help` and of the other commands, and `fulmar --version`.
// Thread-safety: pure functions.

#include <string>

#include "cli/options.hpp"

namespace fulmar::cli {

std::string help();
std::string help(Command command);
std::string version();

}  // namespace fulmar::cli
