#pragma once
// How the commands of `fulmar queue` open their queue, and how they tell what went wrong.
// Thread-safety: pure functions, besides what they open and write.

#include <span>
#include <string>
#include <string_view>

#include "cli/queue_options.hpp"
#include "fulmar/queue.hpp"

namespace fulmar::cli {

enum class QueueUse : std::uint8_t {
  look,    // changes nothing, and works where this user may not write
  change,  // the store has to be there
  fill,    // makes the store when it is missing
};
Result<Queue> open_queue(const QueueCommandOptions& options, QueueUse use);
// Another store than that of the options: for migrate.
Result<Queue> open_queue(const QueueCommandOptions& options, QueueUse use, const std::string& url);

// The URL without its password, for messages.
std::string shown_url(std::string_view url);

int exit_code_of(Errc code);
// Says it on stderr; the exit code.
int failed(const Error& error);
// The same for each that a batch refused; the exit code of the first, or success.
int failed(std::span<const queue::Refusal> refusals);

}  // namespace fulmar::cli
