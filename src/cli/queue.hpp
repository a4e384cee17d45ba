#pragma once
// `fulmar queue`: the durable work queue, for people and for scripts.
// Errors: told on stderr; the returned exit code is one of exit_code.hpp.

#include <span>
#include <string_view>

namespace fulmar::cli {

// The words after "queue".
int run_queue(std::span<const std::string_view> words);

}  // namespace fulmar::cli
