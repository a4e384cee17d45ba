#pragma once
// SubscriptionRequests: what the user wants subscribed, and how far the server of this connection knows. It asks in as few
// packets as fit, asks again what was not answered when a link was lost and everything when the server lost the session, and
// tells each answer.
//
// Filters that share a subscription identifier share packets; every other filter has a packet of its own, since the
// identifier belongs to the packet [MQTT-3.8.2.1.2].
//
// Not thread-safe: owned by the connection, on the I/O thread. Answers are told on the dispatch lane.

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <boost/container/deque.hpp>

#include "client/dispatcher.hpp"
#include "fulmar/message.hpp"
#include "fulmar/mqtt/session.hpp"

namespace fulmar {

class SubscriptionRequests {
 public:
  SubscriptionRequests(mqtt::Session& session, Dispatcher& dispatcher)
      : session_(session), dispatcher_(dispatcher) {}

  // What is asked of the server for a filter.
  struct Terms {
    std::uint64_t id = 0;          // of the table's entry, which is told the answer
    std::uint32_t identifier = 0;  // subscription identifier, for servers that know it
    QoS qos = QoS::at_most_once;
    bool no_local = false;
    bool retain_as_published = false;
    RetainHandling retain_handling = RetainHandling::send;
  };

  // The same filter again replaces the terms and asks anew.
  void want(std::string filter, const Terms& terms);
  void forget(const std::string& filter);

  void link_lost();
  void connected(bool session_present, std::uint32_t server_packet_max, bool identifiers_available);
  // Hands what waits to the session; while connected.
  void send();
  void answered(const mqtt::SubscriptionAcknowledged& answer);

 private:
  struct Filter {
    Terms terms;
    bool wanted = false;
    bool unsubscribe = false;  // the server is to be told first that it is not wanted (any more)
    bool answered = false;     // on this session of the server's
    bool waits = false;        // in waiting_
  };
  using Filters = std::map<std::string, Filter, std::less<>>;
  struct Asked {
    std::string filter;
    std::uint64_t id = 0;
  };

  void wait(Filters::value_type& filter);
  std::uint32_t identifier_of(const Filter& filter) const;
  mqtt::SubscriptionRequest request_for(const Filters::value_type& filter) const;
  mqtt::ReasonCode refusal(const Filters::value_type& filter) const;
  std::size_t count_that_fits() const;
  bool send_unsubscribe(std::size_t count);
  bool send_subscribe(std::size_t count);
  void tell(const Asked& asked, mqtt::ReasonCode reason);

  mqtt::Session& session_;
  Dispatcher& dispatcher_;
  Filters filters_;
  std::size_t unwanted_ = 0;                               // of them
  boost::container::deque<Filters::value_type*> waiting_;  // for a packet; each once
  std::map<std::uint64_t, std::vector<Asked>> sent_;       // by token, in the order of the packet
  std::uint64_t last_token_ = 0;
  std::uint32_t packet_max_ = 0xffffffff;
  bool identifiers_available_ = false;
  bool connected_ = false;
};

}  // namespace fulmar
