#pragma once
// World: one simulated client, its caller, a network and a server, in virtual time and from one seed. Nothing in it sleeps,
// reads a clock or starts a thread; the same seed and number of steps always give the same history.
//
// A run is made of rounds: some thousand steps in which anything may go wrong, then calm, in which everything that was
// accepted must come to its end. What a seed makes likely in its world differs from seed to seed.
//
// To replay what a failure has printed:
//   FULMAR_SIM_SEED=N FULMAR_SIM_STEPS=M simulation_test --gtest_filter=Simulation.replays_one_seed
// (FULMAR_SIM_HISTORY=1 prints the end of the history in any case). For the other tests FULMAR_SIM_STEPS is the steps of each
// world (default 10,000; 1,000 with sanitizers) and FULMAR_SIM_FIRST the first of their seeds (default 1).

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "client_rules.hpp"
#include "fulmar/mqtt/session.hpp"
#include "journal.hpp"
#include "messages.hpp"
#include "network.hpp"
#include "random.hpp"
#include "server_model.hpp"

namespace fulmar::simulation {

class World {
 public:
  // `kind`: nothing goes wrong from the beginning.
  explicit World(std::uint64_t seed, bool kind = false);

  // False when a rule was broken: see report().
  bool run(std::uint64_t steps);
  std::string report() const;
  // For kind worlds: that many steps more; returns how often the session has allocated in them.
  std::uint64_t allocations_in(std::uint64_t steps);

  struct Totals {
    std::uint64_t published = 0;
    std::uint64_t delivered = 0;
    std::uint64_t received = 0;
    std::uint64_t connections = 0;
    std::uint64_t resent = 0;
    std::uint64_t suppressed = 0;
    std::uint64_t violations = 0;
    std::uint64_t packets = 0;
  };
  Totals totals() const;

 private:
  static constexpr std::uint64_t steps_per_round = 4'000;

  // What this seed makes likely. Chances are per 10,000.
  struct Plan {
    unsigned publish = 0, server_publish = 0, acknowledge = 0, request = 0, hold = 0, block = 0;
    unsigned fault = 0;
    unsigned big = 0;  // messages over 10 KB
    unsigned expiry = 0;
    unsigned shared_topic = 0;  // one of a few topics
    unsigned long_pause = 0;    // seconds between steps
    unsigned acknowledge_at_once = 0;
    unsigned acknowledge_error = 0;
    std::array<unsigned, 3> qos{};  // relative
    std::size_t queue_max = 1'000;  // the caller stops publishing at so many
    Habits habits;
  };

  // world.cpp
  void make_plan();
  void make_kind();
  void step();
  void fault();
  void pass(std::chrono::microseconds time);
  void check_connections();
  void calm();
  void calm_step();
  bool quiet() const;
  void use_every_identifier();
  void hand_out();
  void check_memory();

  // caller.cpp: the client's driver and its caller
  void open();
  void close();
  void read(std::size_t most);
  void drain();
  void service();
  void handle(const Event& event);
  void publish();
  bool publish(const Content& content, bool shared, std::uint32_t expiry_s);
  void request();
  void acknowledge(std::size_t at);
  void hold(bool on);
  Content content();
  bool blocked() const { return journal_.now < blocked_until_; }

  std::uint64_t seed_;
  std::uint64_t steps_ = 0;
  Random random_;
  Journal journal_;
  Messages messages_;
  Plan plan_;
  mqtt::SessionConfig config_;
  std::unique_ptr<Session> session_;
  std::unique_ptr<ClientRules> rules_;
  std::unique_ptr<ServerModel> server_;

  std::vector<std::unique_ptr<Connection>> connections_;
  Connection* connection_ = nullptr;  // the client's
  std::uint64_t connections_made_ = 0;
  Instant reopens_{};
  Instant gives_up_{};  // when there is no CONNACK until then
  Instant blocked_until_{};
  bool held_ = false;
  bool calm_ = false;
  std::vector<std::byte> inbox_;
  std::size_t told_ = 0;  // bytes of inbox_ that the session has taken
  struct Unacknowledged {
    std::uint16_t id;
    QoS qos;
  };
  std::vector<Unacknowledged> unacknowledged_;
  std::uint64_t next_token_ = 0;
  std::uint64_t received_ = 0;
  std::atomic<std::size_t> shared_bytes_ = 0;
  std::size_t memory_after_calm_ = 0;
};

}  // namespace fulmar::simulation
