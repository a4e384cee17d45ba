#include "net/endpoint.hpp"

#include <sys/un.h>

#include <algorithm>
#include <array>

#include <boost/url.hpp>
#include <boost/url/grammar/ci_string.hpp>

namespace fulmar::net {
namespace {

struct SchemeRow {
  Scheme scheme;
  std::string_view name;
  std::uint16_t port;
};
constexpr std::array<SchemeRow, 5> schemes{{{Scheme::mqtt, "mqtt", 1883},
                                            {Scheme::mqtts, "mqtts", 8883},
                                            {Scheme::ws, "ws", 80},
                                            {Scheme::wss, "wss", 443},
                                            {Scheme::unix_socket, "unix", 0}}};
constexpr std::string_view expected = "expected mqtt://host[:port], mqtts://, ws://, wss:// or unix:///path";
constexpr std::size_t socket_path_max = sizeof(sockaddr_un::sun_path) - 1;

std::unexpected<Error> bad_url(std::string_view url, const std::string& what) {
  return fail(Errc::invalid_url, "invalid URL \"" + redacted(url) + "\": " + what);
}

// 0: out of range.
std::uint16_t port_of(std::string_view digits) {
  unsigned long port = 0;
  for (const char digit : digits) {
    port = port * 10 + static_cast<unsigned long>(digit - '0');
    if (port > 65'535) return 0;
  }
  return static_cast<std::uint16_t>(port);
}

}  // namespace

std::string_view to_string(Scheme scheme) {
  return std::ranges::find(schemes, scheme, &SchemeRow::scheme)->name;
}

std::string Endpoint::name() const {
  const auto& row = *std::ranges::find(schemes, scheme, &SchemeRow::scheme);
  const std::string prefix = std::string(row.name) + "://";
  if (is_local()) return prefix + path;
  const bool v6 = host.find(':') != std::string::npos;
  const std::string place = (v6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
  if (scheme == Scheme::mqtt) return place;
  return prefix + place + path;
}

std::string redacted(std::string_view url) {
  const auto scheme_end = url.find("://");
  if (scheme_end == std::string_view::npos) return std::string(url);
  const auto user = scheme_end + 3;
  const auto authority_end = std::min(url.find_first_of("/?#", user), url.size());
  const auto at = url.substr(0, authority_end).rfind('@');
  const auto colon = url.find(':', user);
  if (at == std::string_view::npos || colon == std::string_view::npos || colon > at) return std::string(url);
  return std::string(url.substr(0, colon + 1)) + "***" + std::string(url.substr(at));
}

Result<Endpoint> parse_url(std::string_view text) {
  if (text.empty()) return bad_url(text, "it is empty; " + std::string(expected));
  if (text.find("://") == std::string_view::npos) {
    return bad_url(text, "the scheme is missing; " + std::string(expected));
  }
  const auto parsed = boost::urls::parse_uri(text);
  if (!parsed || (!parsed->encoded_path().empty() && !parsed->encoded_path().starts_with('/')))
    return bad_url(text, "it is not well formed; percent-encode special characters in user and password");
  const auto& url = *parsed;
  const auto row = std::ranges::find_if(schemes, [&](const SchemeRow& one) {
    return boost::urls::grammar::ci_is_equal(url.scheme(), one.name);
  });
  if (row == schemes.end()) {
    return bad_url(
        text, "the scheme \"" + std::string(url.scheme()) + "\" is not supported; " + std::string(expected));
  }
  if (url.has_query() || url.has_fragment()) {
    return bad_url(
        text, "a query or fragment has no meaning here; write ? as %3F and # as %23 where they are meant");
  }

  Endpoint endpoint;
  endpoint.scheme = row->scheme;
  endpoint.port = row->port;
  if (url.has_userinfo()) {
    endpoint.username = url.user();
    if (url.has_password()) endpoint.password = url.password();
  }
  const std::string_view path = url.encoded_path();
  if (endpoint.is_local()) {
    if (!url.encoded_host().empty() || url.has_port()) {
      return bad_url(text, "a Unix socket has no host or port; expected unix:///path, with three slashes");
    }
    endpoint.path = url.path();
    if (endpoint.path.size() < 2 || endpoint.path.contains('\0')) {
      return bad_url(text, "the path of the socket is missing; expected unix:///path");
    }
    if (endpoint.path.size() > socket_path_max) {
      return bad_url(text, "the path has " + std::to_string(endpoint.path.size()) +
                               " bytes; a Unix socket's has at most " + std::to_string(socket_path_max));
    }
    return endpoint;
  }
  if (endpoint.is_websocket()) {
    endpoint.path = path.size() > 1 ? std::string(path) : "/mqtt";
  } else if (path.size() > 1) {
    return bad_url(text, "a path has no meaning here; remove \"" + std::string(path) + "\"");
  }
  endpoint.host =
      url.host_type() == boost::urls::host_type::ipv6 ? std::string(url.host_address()) : url.host();
  if (endpoint.host.empty()) endpoint.host = "localhost";
  if (endpoint.host.contains('\0')) return bad_url(text, "the host contains a NUL character");
  if (url.has_port() && !url.port().empty()) {
    endpoint.port = port_of(url.port());
    if (endpoint.port == 0) {
      return bad_url(text, "the port " + std::string(url.port()) + " is out of range; expected 1 to 65535");
    }
  }
  return endpoint;
}

}  // namespace fulmar::net
