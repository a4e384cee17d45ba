#include "fulmar/result.hpp"

namespace fulmar {

std::string_view to_string(Errc code) {
  switch (code) {
    case Errc::invalid_url: return "invalid URL";
    case Errc::invalid_config: return "invalid configuration";
    case Errc::invalid_topic: return "invalid topic";
    case Errc::invalid_envelope: return "invalid envelope";
    case Errc::payload_too_large: return "payload too large";
    case Errc::not_supported_by_server: return "not supported by server";
    case Errc::outbox_full: return "outbox full";
    case Errc::connection_failed: return "connection failed";
    case Errc::connection_refused: return "connection refused by the server";
    case Errc::refused: return "refused by the server";
    case Errc::protocol_violation: return "protocol violation";
    case Errc::timeout: return "timeout";
    case Errc::cancelled: return "cancelled";
    case Errc::shutting_down: return "shutting down";
    case Errc::handler_failed: return "handler failed";
    case Errc::io_error: return "input/output error";
    case Errc::invalid_item: return "invalid item";
    case Errc::not_found: return "not found";
    case Errc::already_exists: return "already exists";
    case Errc::illegal_transition: return "illegal transition";
    case Errc::lease_lost: return "lease lost";
    case Errc::queue_full: return "queue full";
    case Errc::damaged: return "damaged";
    case Errc::incompatible: return "incompatible version";
  }
  return "unknown error";
}

}  // namespace fulmar
