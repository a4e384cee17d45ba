#include "cli/link.hpp"

#include <unistd.h>

#include <cstdio>
#include <random>

#include "cli/exit_code.hpp"

namespace fulmar::cli {
namespace {

std::string with_remedy(const StateChange& change) {
  return change.reason + (change.reason_code ? "" : " — is a broker listening there? (-h, -p or -L)");
}

void print_log(LogLevel level, std::string_view component, std::string_view text) {
  constexpr std::string_view names[] = {"debug", "info", "warning", "error"};
  std::string line{names[static_cast<std::size_t>(level)]};
  line.append(" ").append(component).append(": ").append(text).append("\n");
  [[maybe_unused]] const auto written = write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace

Link::Link(ClientConfig config, Events& events, bool debug)
    : events_(events), client_(std::make_unique<Client>(std::move(config))) {
  client_->on_state_change([this, debug](const StateChange& change) {
    if (debug) print_log(LogLevel::debug, to_string(change.state), change.reason);
    changed(change);
  });
  if (debug) client_->set_log_sink(print_log);
}

void Link::changed(const StateChange& change) {
  {
    const std::lock_guard lock(mutex_);
    if (closing_) return;
    const bool was_connected = std::exchange(status_.connected, change.state == ConnectionState::connected);
    if (status_.connected) {
      status_.ever_connected = true;
    } else if (was_connected) {
      ++status_.losses;
      status_.last_loss = change.reason;
    } else if (change.retry_in.count() > 0 && (!status_.ever_connected || change.reason_code)) {
      // A delay before the next attempt: this one has failed.
      status_.failure = Failure{change.reason_code.value_or(exit_failure), with_remedy(change),
                                change.reason_code.has_value()};
    }
  }
  events_.ring();
}

Link::Status Link::status() const {
  const std::lock_guard lock(mutex_);
  return status_;
}

ShutdownReport Link::close(std::chrono::milliseconds deadline) {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  events_.release_signals();
  return client_->shutdown(deadline);
}

std::unique_ptr<Link> open_link(Command command, ClientConfig config, const CommonOptions& options,
                                Events& events) {
  if (const auto problems = config.problems(); !problems.empty()) {
    Report::usage(name_of(command), problems.front());
    return nullptr;
  }
  return std::make_unique<Link>(std::move(config), events, options.debug);
}

std::string random_client_id() {
  std::random_device random;
  char id[32];
  std::snprintf(id, sizeof id, "fulmar-%08x%08x", random(), random());
  return id;
}

}  // namespace fulmar::cli
