#pragma once
// Errors as values: every function that can fail returns Result<T>.
// Nothing in the public interface throws, except constructors that are given an invalid configuration.
//
// Thread-safety: plain values.

#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace fulmar {

enum class Errc : std::uint8_t {
  invalid_url,
  invalid_config,
  invalid_topic,
  invalid_envelope,
  payload_too_large,
  not_supported_by_server,
  outbox_full,
  connection_failed,
  connection_refused,
  refused,  // the server refused this request, with a reason code
  protocol_violation,
  timeout,
  cancelled,
  shutting_down,
  handler_failed,  // a handler threw, or a responder answered with an error
  io_error,        // a file could not be read or written
  invalid_item,    // a work item or its queue's name, options or file content is not as it has to be
  not_found,
  already_exists,
  illegal_transition,  // the work item is in a state that does not allow it
  lease_lost,          // the work item is not leased under this token any more
  queue_full,
  damaged,       // a stored file is not readable as what it should be
  incompatible,  // a stored file was written by a newer version
};

std::string_view to_string(Errc code);

// What went wrong: `message` says what, with which value, and what to do; `reason_code` is the MQTT reason code
// (5.0) or CONNACK return code (3.1.1) where a server gave one.
struct Error {
  Errc code{};
  std::string message{};
  std::optional<std::uint8_t> reason_code{};
};

template <typename T>
using Result = std::expected<T, Error>;

// Cold: the paths that end in it are laid out away from those that succeed.
[[gnu::cold]] inline std::unexpected<Error> fail(Errc code, std::string message) {
  return std::unexpected(Error{code, std::move(message), std::nullopt});
}

}  // namespace fulmar
