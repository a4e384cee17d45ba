#pragma once
// World: the fixture of the tests with other people's servers. It skips the test when the server is not installed, and
// makes names that no other test uses: the tests of a program share the server.

#include <gtest/gtest.h>

#include <string>

#include "tests/integration/inbox.hpp"
#include "tests/interop/server.hpp"

namespace fulmar::test {

class World : public testing::Test {
 protected:
  using Kind = Server::Kind;

  void SetUp() override {
    if (const auto why = missing(kind())) GTEST_SKIP() << *why;
    server_ = &shared_server(kind());
  }
  virtual Kind kind() const = 0;
  Server& server() const { return *server_; }
  Server::Traits server_traits() const { return traits(kind()); }

  static std::string unique(const std::string& name) {
    static int last = 0;
    return name + std::to_string(++last);
  }
  // A client that asks for `version`.
  ClientConfig config(ProtocolVersion version, const std::string& id = unique("client")) const {
    auto made = config_for(server().url(), id, version);
    made.connect_timeout = std::chrono::seconds(20);
    return made;
  }

 private:
  Server* server_ = nullptr;
};

// The reasons a client gives for being connected, in order: "connected to ... (MQTT 3.1.1, session resumed)".
inline Collected<std::string> greetings_of(Client& client) {
  Collected<std::string> greetings;
  client.on_state_change([greetings](const StateChange& change) {
    if (change.state == ConnectionState::connected) greetings.add(change.reason);
  });
  return greetings;
}

// With each server, asking for each version.
class EachVersion : public World,
                    public testing::WithParamInterface<std::tuple<Server::Kind, ProtocolVersion>> {
 protected:
  Kind kind() const override { return std::get<0>(GetParam()); }
  ProtocolVersion asked() const { return std::get<1>(GetParam()); }
  // What asking for it comes to.
  ProtocolVersion spoken() const { return std::min(asked(), server_traits().version); }
  ClientConfig config(const std::string& id = unique("client")) const { return World::config(asked(), id); }
};

inline auto each_kind() {
  return testing::Values(Server::Kind::mosquitto, Server::Kind::nats, Server::Kind::rabbitmq);
}
inline auto each_kind_and_version() {
  return testing::Combine(each_kind(), testing::Values(ProtocolVersion::v5, ProtocolVersion::v3_1_1));
}
inline std::string name_of(Server::Kind kind, ProtocolVersion version) {
  return std::string(to_string(kind)) +
         (version == ProtocolVersion::v5 ? "_asked_for_v5" : "_asked_for_v3_1_1");
}
inline std::string each_version_name(
    const testing::TestParamInfo<std::tuple<Server::Kind, ProtocolVersion>>& test) {
  return name_of(std::get<0>(test.param), std::get<1>(test.param));
}

}  // namespace fulmar::test
