#pragma once
// Endpoint: where a broker is, how to get there and who we are there, from a URL.
// Thread-safety: plain values.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "fulmar/result.hpp"

namespace fulmar::net {

enum class Scheme : std::uint8_t { mqtt, mqtts, ws, wss, unix_socket };
std::string_view to_string(Scheme scheme);  // as in a URL

struct Endpoint {
  Scheme scheme = Scheme::mqtt;
  std::string host;           // a name or an address, IPv6 without its brackets; empty for a Unix socket
  std::uint16_t port = 1883;  // 0 for a Unix socket
  std::string path;           // of the WebSocket handshake, as it is sent; of the Unix socket's file
  std::optional<std::string> username;  // percent-decoded
  std::optional<std::string> password;

  bool is_local() const { return scheme == Scheme::unix_socket; }  // nothing to look up
  bool is_secure() const { return scheme == Scheme::mqtts || scheme == Scheme::wss; }
  bool is_websocket() const { return scheme == Scheme::ws || scheme == Scheme::wss; }

  // For messages: "host:port", IPv6 in brackets; "mqtts://host:port", "ws://host:port/mqtt", "unix:///path". Never the
  // user or the password.
  std::string name() const;
};

//   mqtt://[user[:password]@][host][:port]           port 1883, mqtts 8883; host localhost
//   ws://[user[:password]@][host][:port][/path]      port 80, wss 443; path /mqtt
//   unix://[user[:password]@]/path/of/socket         percent-decoded
// A query or a fragment is refused. The error repeats the URL with its password hidden and says what is wrong and what is
// expected.
Result<Endpoint> parse_url(std::string_view url);

// The URL as it may be shown: the password replaced by ***.
std::string redacted(std::string_view url);

}  // namespace fulmar::net
