#pragma once
// ServerModel: an MQTT server in a simulated world. It reads with the server's side of the codec, keeps the session state
// that the standard wants kept, delivers what it gets exactly once where that can be, and publishes to the client on its
// own. It is as unpleasant as its Habits say: late, out of order, refusing, forgetful, with other limits on each
// connection, and now and then it breaks the rules; then it says so in the packet's Tag.

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "client_rules.hpp"
#include "journal.hpp"
#include "messages.hpp"
#include "network.hpp"
#include "random.hpp"

namespace fulmar::simulation {

// Chances are per 10,000 occasions.
struct Habits {
  unsigned out_of_order = 0;  // answers leave in any order
  unsigned answer_error = 0;  // with a reason code >= 0x80
  unsigned answer_twice = 0;
  unsigned answer_never = 0;       // until the next connection
  unsigned answer_unknown = 0;     // an acknowledgement of nothing
  unsigned answer_wrong_kind = 0;  // an acknowledgement of another kind under a live identifier
  unsigned break_rules = 0;
  unsigned repeat_publish = 0;  // a QoS 2 PUBLISH again on the same connection
  unsigned exceed_receive_maximum = 0;
  unsigned refuse = 0;          // CONNACK with a refusal
  unsigned lose_session = 0;    // at CONNECT
  unsigned forget_at_end = 0;   // at the end of a connection
  unsigned shrink = 0;          // smaller limits
  unsigned silent_connect = 0;  // no CONNACK at all
  bool answers_ping = true;
  std::uint64_t latency_us = 2'000;
  std::uint16_t window_min = 1;
  std::uint16_t window_max = 100;  // receive maximum granted, and the server's own window
  std::size_t queue_max = 64;
};

class ServerModel {
 public:
  ServerModel(Journal& journal, Random& random, Messages& messages, const ClientRules& client,
              ProtocolVersion version)
      : journal_(journal), random_(random), messages_(messages), client_(client), version_(version) {}

  Habits habits;

  // Reads at most `most` bytes of a connection.
  void read(Connection& connection, std::size_t most);
  // Sends an answer that is due, publishes, or misbehaves.
  void act();
  // The connection is gone, or the server ends it.
  void lost(const Connection& connection);
  void publish(const Content& content);
  void disconnect(ReasonCode reason);
  // Another client with the same identifier came and went.
  void take_over(bool clean);
  void check_time();
  void drop_session();

  bool connected() const { return current_ != nullptr; }
  Connection* current() const { return current_; }
  bool quiet() const { return answers_.empty() && queue_.empty() && flight_.empty(); }
  std::string state() const {
    return std::to_string(answers_.size()) + " answers, " + std::to_string(queue_.size()) + " queued, " +
           std::to_string(flight_.size()) + " in flight, " + std::to_string(on_wire_) + " on the wire of " +
           std::to_string(window_);
  }
  bool queue_full() const { return queue_.size() >= habits.queue_max; }
  std::uint64_t epoch() const { return epoch_; }
  std::uint64_t delivered() const { return delivered_; }

 private:
  struct Answer {
    PacketType type{};
    std::uint16_t id = 0;
    std::uint64_t number = 0;
    ReasonCode reason = ReasonCode::success;
    std::size_t codes = 0;
  };
  struct Flight {
    std::uint64_t number = 0;
    std::uint16_t id = 0;
    bool released = false;
    bool sent = false;  // on this connection
  };

  bool v5() const { return version_ == ProtocolVersion::v5; }
  Instant arrival() { return journal_.now + std::chrono::microseconds(random_.below(habits.latency_us + 1)); }
  void handle(Connection& connection, const mqtt::Frame& frame);
  void handle_connect(Connection& connection, const mqtt::ConnectView& packet);
  void handle_publish(const mqtt::PublishView& packet);
  void handle_ack(const mqtt::AckView& packet);
  void deliver(std::uint64_t number);
  void claim_id(std::uint16_t id, std::uint64_t number);
  void resume();
  void send_answer();
  void send_next_publish();
  void send_publish(Flight& flight, bool dup);
  void break_a_rule();
  void answer(const Answer& answer);
  template <typename Packet>
  void send(const Packet& packet, Tag tag);
  void send_raw(BytesView bytes, Tag tag);

  Journal& journal_;
  Random& random_;
  Messages& messages_;
  const ClientRules& client_;
  ProtocolVersion version_;

  // this connection
  Connection* current_ = nullptr;
  bool keeps_session_ = false;
  std::uint16_t window_ = 1;         // the client's receive maximum
  std::uint16_t alias_maximum_ = 0;  // the client's
  std::uint32_t packet_maximum_ = 0xffffffff;
  std::uint16_t keepalive_s_ = 0;
  Instant last_read_{};
  std::map<std::uint16_t, std::uint64_t> aliases_;  // alias -> QoS 0 message with its topic
  std::map<std::uint16_t, std::string> client_aliases_;
  std::deque<Answer> answers_;
  std::size_t on_wire_ = 0;

  // the session
  bool has_session_ = false;
  std::uint64_t epoch_ = 0;
  std::unordered_map<std::uint16_t, std::uint64_t> recorded_;  // QoS 2 identifiers whose PUBREL has not come
  std::deque<std::uint64_t> queue_;
  std::deque<Flight> flight_;
  std::uint16_t next_id_ = 0;

  std::uint64_t last_first_delivery_ = 0;
  std::uint64_t delivered_ = 0;
};

}  // namespace fulmar::simulation
