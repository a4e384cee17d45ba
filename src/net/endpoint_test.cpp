#include "net/endpoint.hpp"

#include <gtest/gtest.h>

namespace fulmar::net {
namespace {

TEST(Endpoint, has_the_fields_defaults) {
  const auto endpoint = parse_url("mqtt://broker.example");
  ASSERT_TRUE(endpoint);
  EXPECT_EQ(endpoint->host, "broker.example");
  EXPECT_EQ(endpoint->port, 1883);
  EXPECT_FALSE(endpoint->username);
  EXPECT_EQ(parse_url("mqtt://")->host, "localhost");
  EXPECT_EQ(parse_url("mqtt://:1884")->name(), "localhost:1884");
  EXPECT_TRUE(parse_url("MQTT://h/"));
}

TEST(Endpoint, decodes_user_and_password) {
  const auto endpoint = parse_url("mqtt://us%40er:p%3A%2F%20w@127.0.0.1:2000");
  ASSERT_TRUE(endpoint);
  EXPECT_EQ(endpoint->username, "us@er");
  EXPECT_EQ(endpoint->password, "p:/ w");
  EXPECT_EQ(endpoint->name(), "127.0.0.1:2000");
  EXPECT_FALSE(parse_url("mqtt://user@h")->password);
  EXPECT_EQ(parse_url("mqtt://user:@h")->password, "");
}

TEST(Endpoint, takes_ipv6_in_brackets) {
  const auto endpoint = parse_url("mqtt://[::1]:1884");
  ASSERT_TRUE(endpoint);
  EXPECT_EQ(endpoint->host, "::1");
  EXPECT_EQ(endpoint->name(), "[::1]:1884");
}

TEST(Endpoint, knows_every_scheme) {
  struct Row {
    std::string_view url;
    Scheme scheme;
    std::string_view host;
    int port;
    std::string_view path;
    std::string_view name;
  };
  const Row rows[] = {
      {"mqtt://h", Scheme::mqtt, "h", 1883, "", "h:1883"},
      {"mqtts://h", Scheme::mqtts, "h", 8883, "", "mqtts://h:8883"},
      {"MQTTS://h:1/", Scheme::mqtts, "h", 1, "", "mqtts://h:1"},
      {"mqtts://user:secret@[::1]", Scheme::mqtts, "::1", 8883, "", "mqtts://[::1]:8883"},
      {"ws://h", Scheme::ws, "h", 80, "/mqtt", "ws://h:80/mqtt"},
      {"ws://h/", Scheme::ws, "h", 80, "/mqtt", "ws://h:80/mqtt"},
      {"ws://h:8080/a/b%20c", Scheme::ws, "h", 8080, "/a/b%20c", "ws://h:8080/a/b%20c"},
      {"wss://", Scheme::wss, "localhost", 443, "/mqtt", "wss://localhost:443/mqtt"},
      {"wss://[fe80::1]:9/x", Scheme::wss, "fe80::1", 9, "/x", "wss://[fe80::1]:9/x"},
      {"unix:///run/mqtt.sock", Scheme::unix_socket, "", 0, "/run/mqtt.sock", "unix:///run/mqtt.sock"},
      {"unix:///a%20b", Scheme::unix_socket, "", 0, "/a b", "unix:///a b"},
      {"unix://user:secret@/run/s", Scheme::unix_socket, "", 0, "/run/s", "unix:///run/s"},
  };
  for (const auto& row : rows) {
    const auto endpoint = parse_url(row.url);
    ASSERT_TRUE(endpoint) << row.url << ": " << endpoint.error().message;
    EXPECT_EQ(endpoint->scheme, row.scheme) << row.url;
    EXPECT_EQ(endpoint->host, row.host) << row.url;
    EXPECT_EQ(endpoint->port, row.port) << row.url;
    EXPECT_EQ(endpoint->path, row.path) << row.url;
    EXPECT_EQ(endpoint->name(), row.name) << row.url;
  }
  EXPECT_EQ(parse_url("unix://user:secret@/run/s")->password, "secret");
}

TEST(Endpoint, refuses_with_what_is_wrong_and_what_to_do) {
  const auto message = [](std::string_view url) {
    const auto result = parse_url(url);
    EXPECT_FALSE(result) << url;
    if (result) return std::string();
    EXPECT_EQ(result.error().code, Errc::invalid_url);
    return result.error().message;
  };
  EXPECT_NE(message("").find("empty"), std::string::npos);
  EXPECT_NE(message("localhost:1883").find("scheme is missing"), std::string::npos);
  EXPECT_NE(message("http://h").find("\"http\" is not supported"), std::string::npos);
  EXPECT_NE(message("mqtt://h:65536").find("65536 is out of range"), std::string::npos);
  EXPECT_NE(message("mqtt://h:0").find("out of range"), std::string::npos);
  EXPECT_NE(message("mqtt://h:99999999999999999999").find("out of range"), std::string::npos);
  EXPECT_NE(message("mqtt://h:12x").find("not well formed"), std::string::npos) << message("mqtt://h:12x");
  EXPECT_NE(message("mqtt://h/topic").find("/topic"), std::string::npos);
  EXPECT_NE(message("mqtt://h?x=1").find("query"), std::string::npos);
  EXPECT_NE(message("ws://h/mqtt?token=1").find("query"), std::string::npos);
  EXPECT_NE(message("wss://h/#x").find("fragment"), std::string::npos);
  EXPECT_NE(message("mqtts://h/topic").find("/topic"), std::string::npos);
  EXPECT_NE(message("unix://run/s").find("three slashes"), std::string::npos);
  EXPECT_NE(message("unix://").find("path of the socket is missing"), std::string::npos);
  EXPECT_NE(message("unix:///").find("path of the socket is missing"), std::string::npos);
  EXPECT_NE(message("unix:///a%00b").find("path of the socket"), std::string::npos);
  EXPECT_NE(message("unix:///" + std::string(200, 'x')).find("201 bytes"), std::string::npos);
  EXPECT_NE(message("mqtt://a%00b").find("NUL"), std::string::npos);
}

TEST(Endpoint, never_shows_a_password) {
  EXPECT_EQ(redacted("mqtt://user:secret@h:1/"), "mqtt://user:***@h:1/");
  EXPECT_EQ(redacted("mqtt://user@h:1"), "mqtt://user@h:1");
  EXPECT_EQ(redacted("mqtt://h:1"), "mqtt://h:1");
  EXPECT_EQ(parse_url("mqtt://user:se@cret@h:0").error().message.find("cret"), std::string::npos);
}

}  // namespace
}  // namespace fulmar::net
