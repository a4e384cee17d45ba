#pragma once
// DurableWorld: the whole way of messages, from the outbox over the disk to the server's application, in virtual time and
// from one seed: the client's Outflow, Backlog, Session, Spool and Log as they are, on a simulated disk, a simulated
// network and a conforming server. The network cuts, delays and falls silent; the disk fills up, fails and loses what was
// not synced; the process is killed, the power is cut, at any operation of the disk too, and what comes after goes on.
//
// What must hold [docs/guide/durability.md]:
//   - An accepted message has at most one outcome, and exactly one when its process ends in order or has drained.
//   - `stored` or `acknowledged`, QoS 1 and 2: it arrives. `stored`: also when everything else was lost.
//   - With write_ahead, nothing is sent before it is stored, while the disk takes it.
//   - QoS 2 is delivered once in the life of a process; and across lives with write_ahead and a session that is kept.
//   - First arrivals on one topic are in the order of acceptance.
//   - No message begins its way after its expiry; what is left of it on the wire is right.
//   - When the faults end, everything drains: from outbox, session and disk; and the counts add up.
//
// One thread. The same seed gives the same run. To see all of a run that failed:
//   FULMAR_SEED=N durability_simulation_test

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "client/outflow.hpp"
#include "durable_server.hpp"
#include "fulmar/client.hpp"
#include "fulmar/mqtt/session.hpp"
#include "journal.hpp"
#include "network.hpp"
#include "outbox/ring.hpp"
#include "random.hpp"
#include "spool/simulated_file_system.hpp"

namespace fulmar::simulation {

std::string_view name_of(Delivery::Outcome outcome);

class DurableWorld {
 public:
  // `aloud`: prints all that happens.
  explicit DurableWorld(std::uint64_t seed, bool aloud = false);
  ~DurableWorld();

  // False when a rule was broken: see report().
  bool run();
  std::string report() const;

  struct Totals {
    std::uint64_t accepted = 0;
    std::uint64_t stored = 0;
    std::uint64_t delivered = 0;
    std::uint64_t recovered = 0;
    std::uint64_t connections = 0;
    std::uint64_t deaths = 0;  // of the process, in no order
    std::uint64_t stops = 0;   // in order
    std::uint64_t faults = 0;  // of the disk
  };
  const Totals& totals() const { return totals_; }

 private:
  using Operation = spool::SimulatedFileSystem::Operation;
  using Outcome = Delivery::Outcome;

  struct Message {
    QoS qos = QoS::at_most_once;
    unsigned topic = 0;
    bool write_ahead = false;
    std::uint64_t life = 0;  // of the process that accepted it
    std::uint32_t expiry_s = mqtt::no_expiry;
    Instant accepted{};
    std::optional<Outcome> outcome{};
    std::uint64_t sent_by = 0;  // the process that began to send it last
    bool sent_before = false;   // by another one
    bool plain = false;         // sent under an identifier that no position gives
    bool arrived = false;       // its PUBLISH came to the server
    bool refused = false;       // by the server
    unsigned deliveries = 0;
    // Of those, from one process to one session.
    unsigned deliveries_there = 0;
    std::uint64_t delivered_by = 0, delivered_to = 0;
  };
  // All that a kill ends.
  struct Process {
    explicit Process(const ClientConfig& config);
    ~Process();
    Process(const Process&) = delete;
    Process& operator=(const Process&) = delete;

    outbox::Ring outbox;
    mqtt::Session session;
    Outflow outflow;
    Outflow::Situation situation;
    Connection* connection = nullptr;
    Instant gives_up{}, up_since{};
    std::vector<std::byte> inbox;
    std::vector<std::byte> sent;  // the beginning of a packet that is not complete
    Instant sent_since{};
    bool session_is_new = false;  // the server has said so, and nothing was sent since
    bool in_time = false;         // it stops, and everything has an outcome or is on disk
    std::uint64_t accepted = 0, recovered = 0, ended = 0;
  };
  struct Plan {
    unsigned accept, turn, disk, server, time, cut, kill, power, stop, disk_fault, disk_full, expiry, large,
        write_ahead;
    std::array<unsigned, 3> qos;
    unsigned topics;
    std::size_t messages_max, steps;
  };

  void make_plan();
  Instant now() const { return journal_.now; }

  // the process
  void begin_life();
  void die(bool power);
  void stop();
  void accept();
  void told(std::uint64_t sequence, std::uint64_t token, Outcome outcome);
  void count(Outcome outcome);
  void turn();
  void step_disk();
  void drain_events();
  void handle(const mqtt::Event& event);
  void transmit();
  void check_sent(BytesView bytes);
  void check_expiry(std::uint64_t number, const mqtt::PublishView& packet);
  void settle(std::uint64_t sequence, std::uint64_t token, Outcome outcome);
  bool drained() const;
  std::string what_waits() const;

  // the network
  void open();
  void close();
  void cut();
  void read(std::size_t most);
  void look_at_connections();
  void pass(std::chrono::microseconds time);

  // the server's application
  void came(std::uint64_t number, const mqtt::PublishView& packet);
  void delivered(std::uint64_t number);

  void step();
  void fault_disk();
  void calm();
  void verify();

  std::uint64_t seed_;
  Random random_;
  Journal journal_;
  Totals totals_;
  Plan plan_{};
  ClientConfig config_;
  spool::SimulatedFileSystem files_;
  std::unique_ptr<DurableServer> server_;

  std::deque<Message> messages_;             // by number, from 1
  std::vector<std::uint64_t> last_arrival_;  // by topic
  bool order_holds_ = true, once_holds_ = true, positions_hold_ = true;
  bool exactly_once_ = false;  // across lives too
  bool disk_loses_ = false;    // entries may be given up by the spool
  bool disk_takes_ = true;     // nothing has kept it from taking what it was given
  bool calm_ = false;
  std::uint64_t life_ = 0;
  std::unique_ptr<Process> process_;

  std::vector<std::unique_ptr<Connection>> connections_;
  std::vector<std::uint64_t> lives_{0};  // of the process that made it, by connection
  Instant reopens_{};
};

}  // namespace fulmar::simulation
