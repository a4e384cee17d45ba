#pragma once
// `fulmar pub`: publishes and ends when the server has acknowledged everything (QoS 0: when it is sent).

#include "cli/options.hpp"

namespace fulmar::cli {

// The exit code. Ends by the signal itself when SIGINT or SIGTERM comes.
int run_pub(const PubOptions& options);

}  // namespace fulmar::cli
