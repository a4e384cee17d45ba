#pragma once
// SubscriptionRequests: what the user wants subscribed, and how far the server of this connection knows. It asks in as few
// packets as fit, asks again what was not answered when a link was lost and everything when the server lost the session, and
// tells each answer.
//
// Not thread-safe: owned by the connection, on the I/O thread. Answers run on the dispatch thread.

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "client/dispatcher.hpp"
#include "fulmar/client.hpp"
#include "fulmar/mqtt/session.hpp"

namespace fulmar {

class SubscriptionRequests {
 public:
  SubscriptionRequests(mqtt::Session& session, Dispatcher& dispatcher)
      : session_(session), dispatcher_(dispatcher) {}

  // The same filter again replaces the options and asks anew.
  void want(std::string filter, const SubscribeOptions& options, Client::GrantedHandler granted);
  void forget(const std::string& filter);

  void link_lost();
  void connected(bool session_present, std::uint32_t server_packet_max);
  // Hands what waits to the session; while connected.
  void send();
  void answered(const mqtt::SubscriptionAcknowledged& answer);

 private:
  struct Wanted {
    SubscribeOptions options;
    std::shared_ptr<Client::GrantedHandler> granted;
    bool answered = false;  // on this session of the server's
  };
  struct Request {  // one filter of a SUBSCRIBE or UNSUBSCRIBE to be sent
    bool unsubscribe = false;
    std::string filter;
  };

  mqtt::SubscriptionRequest request_for(std::string_view filter) const;
  mqtt::ReasonCode refusal(const std::string& filter) const;
  std::size_t count_that_fits() const;
  void tell(const std::string& filter, mqtt::ReasonCode reason);

  mqtt::Session& session_;
  Dispatcher& dispatcher_;
  std::map<std::string, Wanted, std::less<>> wanted_;
  std::deque<Request> waiting_;
  std::map<std::uint64_t, std::vector<std::string>> sent_;  // by token, in the order of the packet
  std::uint64_t last_token_ = 0;
  std::uint32_t packet_max_ = 0xffffffff;
  bool connected_ = false;
};

}  // namespace fulmar
