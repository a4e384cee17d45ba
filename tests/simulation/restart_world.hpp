#pragma once
// RestartWorld: a caller with a disk log that is killed again and again, its session, a bad network and a naive server of
// QoS 2, in virtual time and from one seed. What the disk knows survives a kill, and nothing else does.
//
// The log holds messages of QoS 2 with gaps between their positions. A note (acknowledged, released) is durable some time
// after it was made, in order; a kill loses those that are not. The server remembers identifiers and nothing more: it
// delivers when PUBLISH comes, or when PUBREL does, as the seed says.
//
// What must hold: while the server keeps the session every message is delivered exactly once, in the order of the log; when
// it loses sessions, at least once. No identifier of the log means two messages to the server at one time. A PUBLISH that
// was transmitted before has DUP.
//
// To replay what a failure has printed: FULMAR_SIM_SEED=N simulation_test --gtest_filter=Restart.replays_one_seed

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "fulmar/mqtt/codec.hpp"
#include "fulmar/mqtt/session.hpp"
#include "journal.hpp"
#include "random.hpp"

namespace fulmar::simulation {

class RestartWorld {
 public:
  explicit RestartWorld(std::uint64_t seed);

  // False when a rule was broken: see report().
  bool run();
  std::string report() const;

  struct Totals {
    std::uint64_t delivered = 0;
    std::uint64_t kills = 0;
    std::uint64_t connections = 0;
    std::uint64_t sessions_lost = 0;
    std::uint64_t resumed_released = 0;  // messages that a new process took up past their PUBREC
    std::uint64_t taken_back = 0;
  };
  const Totals& totals() const { return totals_; }

 private:
  struct Message {
    std::uint64_t position = 0;
    unsigned delivered = 0;
    std::uint64_t sent_in_session =
        0;  // the server session in which its PUBLISH was transmitted last, 0 = none
  };
  struct Note {
    enum class What : std::uint8_t { acknowledged, released } what;
    std::size_t message;
  };
  // What the server remembers of an identifier: which message it stands for.
  using Exchanges = std::map<std::uint16_t, std::size_t>;

  // the process
  void start_process();
  void kill();
  void connect();
  void cut();
  void accept();
  void hand_over();
  void take_back();
  void publish_plain();
  void transmit();
  void client_reads(std::size_t most);
  void handle(const mqtt::Event& event);
  // the disk
  void commit(std::size_t count);
  std::size_t oldest_unacknowledged() const;
  // the server
  void server_reads(std::size_t most);
  void serve(const mqtt::Frame& frame);
  void serve_publish(const mqtt::PublishView& publish);
  void deliver(std::size_t message);
  template <typename Packet>
  void answer(const Packet& packet);

  void step();
  void calm();
  std::size_t some(std::size_t bytes);

  std::uint64_t seed_;
  Random random_;
  Journal journal_;
  Totals totals_;

  // the log
  std::vector<Message> messages_;
  std::size_t messages_max_;
  std::uint64_t gap_max_;
  std::set<std::size_t> acknowledged_;
  std::set<std::size_t> released_;

  // the process: gone with a kill
  mqtt::SessionConfig config_;
  std::unique_ptr<mqtt::Session> session_;
  std::deque<Note> notes_;  // under way to the disk
  std::set<std::size_t> completed_;
  std::size_t next_ = 0;           // to be handed over
  std::size_t handed_before_ = 0;  // messages before this one may have been sent
  std::vector<std::byte> inbox_;

  // the network
  bool connected_ = false;
  std::vector<std::byte> up_;
  std::vector<std::byte> down_;

  // the server
  bool delivers_at_pubrel_;
  bool may_lose_session_;
  std::uint16_t receive_maximum_;
  std::vector<std::byte> server_inbox_;
  Exchanges exchanges_;
  std::uint64_t server_session_ = 0;  // counts them
  bool loss_unseen_ = true;           // the client has not heard yet that its session is a new one
  std::size_t last_delivered_ = 0;    // one more than the message
};

}  // namespace fulmar::simulation
