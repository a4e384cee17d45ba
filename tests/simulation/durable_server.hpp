#pragma once
// DurableServer: a conforming MQTT server without any hurry, as the other end of a DurableWorld. It keeps the session state
// that the standard wants kept [MQTT5 4.1], delivers QoS 2 when PUBLISH comes or when PUBREL does, answers in order, late
// or, when the connection ends, never. What it gets that no conforming client sends is the end of the world.
//
// Payloads begin with the number of the message, in 8 bytes.

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <set>

#include "fulmar/mqtt/codec.hpp"
#include "journal.hpp"
#include "network.hpp"
#include "random.hpp"

namespace fulmar::simulation {

// The number in a payload that begins with one, else 0.
std::uint64_t number_in(BytesView payload);

class DurableServer {
 public:
  // Chances are per 10,000 occasions.
  struct Habits {
    bool delivers_at_pubrel = false;
    unsigned lose_session = 0;  // at CONNECT
    unsigned refuse_connection = 0;
    unsigned refuse_message = 0;  // with a reason code, in 5.0
    unsigned answer_late = 0;
    std::uint16_t receive_maximum = 65'535;
    std::uint64_t latency_us = 2'000;
  };
  struct Application {
    std::function<void(std::uint64_t number, const mqtt::PublishView& packet)> came;  // each PUBLISH
    std::function<void(std::uint64_t number)> delivered;
    std::function<void(std::uint64_t number)> delivered_late;  // what a process had sent that is gone
    std::function<void(std::uint64_t number)> refused;
    // Whether the next process cannot know that the server holds this message under this identifier.
    std::function<bool(std::uint64_t number, std::uint16_t id)> orphaned;
  };

  DurableServer(Journal& journal, Random& random, ProtocolVersion version, const Habits& given,
                Application application)
      : habits(given),
        journal_(journal),
        random_(random),
        version_(version),
        application_(std::move(application)) {}

  Habits habits;

  // Reads at most `most` bytes of a connection.
  void read(Connection& connection, std::size_t most);
  // Sends at most `most` of the answers that are due.
  void answer(std::size_t most);
  void lost(const Connection& connection);
  // Of the connection whose packet is being handled.
  std::uint64_t connection() const { return current_->number; }
  std::uint64_t sessions() const { return sessions_; }
  // The client has been told that its session is a new one.
  void client_knows() { forgotten_.clear(); }
  // Whether the message went with a session, and the client released it because it could not know that: the CONNACK
  // that said so was lost.
  bool has_forgotten(std::uint64_t number) const { return lost_.contains(number); }

 private:
  struct Answer {
    mqtt::PacketType type;
    std::uint16_t id;
    mqtt::ReasonCode reason;
  };

  void handle(Connection& connection, const mqtt::Frame& frame);
  void handle_connect(Connection& connection, const mqtt::ConnectView& packet);
  void handle_publish(const mqtt::PublishView& packet);
  void handle_ack(const mqtt::AckView& packet);
  template <typename Packet>
  void send(const Packet& packet);
  bool v5() const { return version_ == ProtocolVersion::v5; }

  Journal& journal_;
  Random& random_;
  const ProtocolVersion version_;
  const Application application_;
  Connection* current_ = nullptr;
  std::deque<Answer> answers_;
  std::set<std::uint16_t> unanswered_;  // on this connection: PUBLISH came, PUBACK or PUBCOMP did not leave

  // the session
  bool has_session_ = false;
  bool keeps_session_ = false;
  std::map<std::uint16_t, std::uint64_t> recorded_;   // of QoS 2, until PUBREL: by identifier the message
  std::uint64_t sessions_ = 0;                        // that there were
  std::map<std::uint16_t, std::uint64_t> forgotten_;  // as recorded_, of former ones
  std::set<std::uint64_t> lost_;
};

}  // namespace fulmar::simulation
