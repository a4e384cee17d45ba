#pragma once
// Endpoint: where a broker is and who we are there, from a URL.
// Thread-safety: plain values.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "fulmar/result.hpp"

namespace fulmar::net {

struct Endpoint {
  std::string host;  // a name or an address, IPv6 without its brackets
  std::uint16_t port = 1883;
  std::optional<std::string> username;  // percent-decoded
  std::optional<std::string> password;

  // "host:port", IPv6 in brackets; never the user or the password.
  std::string name() const;
};

// mqtt://[user[:password]@][host][:port], the port 1883 and the host localhost by default. The error repeats the URL with
// its password hidden and says what is wrong and what is expected.
Result<Endpoint> parse_url(std::string_view url);

// The URL as it may be shown: the password replaced by ***.
std::string redacted(std::string_view url);

}  // namespace fulmar::net
