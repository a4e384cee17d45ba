#pragma once
// Runs a server's bytes through a Session in pieces and writes down what comes of it.

#include <string>
#include <vector>

#include "tests/conformance/vector_file.hpp"

namespace fulmar::mqtt {

// What a session told and sent.
struct Transcript {
  std::vector<std::string> events;
  std::string sent;  // hexadecimal
  bool closes = false;

  bool operator==(const Transcript&) const = default;
};
std::ostream& operator<<(std::ostream& out, const Transcript& transcript);

// How the server's bytes arrive: in pieces of `size` bytes; or, with `split_at`, in one piece per step but for the byte
// before which the stream is split in two.
struct Pieces {
  std::size_t size = ~std::size_t{0};
  std::size_t split_at = 0;
};

Transcript run(const Conversation& conversation, ProtocolVersion version, Pieces pieces);

// The server's bytes of all steps.
std::size_t server_bytes(const Conversation& conversation);

}  // namespace fulmar::mqtt
