#include "net/endpoint.hpp"

#include <boost/url.hpp>
#include <boost/url/grammar/ci_string.hpp>

namespace fulmar::net {
namespace {

std::unexpected<Error> bad_url(std::string_view url, const std::string& what) {
  return fail(Errc::invalid_url, "invalid URL \"" + redacted(url) + "\": " + what);
}

}  // namespace

std::string Endpoint::name() const {
  const bool v6 = host.find(':') != std::string::npos;
  return (v6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
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
  if (text.empty()) return bad_url(text, "it is empty; expected mqtt://host[:port]");
  if (text.find("://") == std::string_view::npos) {
    return bad_url(text, "the scheme is missing; expected mqtt://host[:port]");
  }
  const auto parsed = boost::urls::parse_uri(text);
  if (!parsed || (!parsed->encoded_path().empty() && !parsed->encoded_path().starts_with('/')))
    return bad_url(text, "it is not well formed; percent-encode special characters in user and password");
  const auto& url = *parsed;
  if (!boost::urls::grammar::ci_is_equal(url.scheme(), "mqtt")) {
    return bad_url(text, "the scheme \"" + std::string(url.scheme()) + "\" is not supported; expected mqtt");
  }
  if (!url.encoded_path().empty() && url.encoded_path() != "/") {
    return bad_url(text, "a path has no meaning here; remove \"" + std::string(url.encoded_path()) + "\"");
  }
  if (url.has_query() || url.has_fragment()) return bad_url(text, "a query or fragment has no meaning here");

  Endpoint endpoint;
  endpoint.host =
      url.host_type() == boost::urls::host_type::ipv6 ? std::string(url.host_address()) : url.host();
  if (endpoint.host.empty()) endpoint.host = "localhost";
  if (url.has_port() && !url.port().empty()) {
    const auto digits = url.port();
    unsigned long port = 0;
    for (const char digit : digits) {
      port = port * 10 + static_cast<unsigned long>(digit - '0');
      if (port > 65'535) break;
    }
    if (port == 0 || port > 65'535) {
      return bad_url(text, "the port " + std::string(digits) + " is out of range; expected 1 to 65535");
    }
    endpoint.port = static_cast<std::uint16_t>(port);
  }
  if (url.has_userinfo()) {
    endpoint.username = url.user();
    if (url.has_password()) endpoint.password = url.password();
  }
  return endpoint;
}

}  // namespace fulmar::net
