#pragma once
// `fulmar sub`: subscribes and prints messages until -C, -W, -E, a signal, a refusal or a closed stdout ends
// it. It reconnects by itself.

#include "cli/options.hpp"

namespace fulmar::cli {

// The exit code.
int run_sub(const SubOptions& options);

}  // namespace fulmar::cli
