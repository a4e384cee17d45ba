// Fault N9: the name service. This program has a getaddrinfo() of its own, which answers the names under .test as a
// script says and hands all others to the C library.
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <netdb.h>

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <thread>

#include "tests/faults/fault_proxy.hpp"
#include "tests/faults/fixture.hpp"
#include "tests/faults/scripted_broker.hpp"

namespace fulmar::test {
namespace {

using namespace std::chrono_literals;

// What a name server answers to one question.
struct Answer {
  int error = 0;  // EAI_...
  std::vector<std::string> addresses{};
  std::chrono::milliseconds delay{0};
  bool never = false;
};

// Lives as long as the program: look-ups that nobody waits for any more end when they like.
class NameServer {
 public:
  // The last answer holds for all further questions.
  void script(const std::string& name, std::deque<Answer> answers) {
    const std::lock_guard lock(mutex_);
    scripts_[name] = std::move(answers);
    asked_[name] = 0;
  }
  std::size_t asked(const std::string& name) {
    const std::lock_guard lock(mutex_);
    return asked_[name];
  }
  void release_holes() {
    {
      const std::lock_guard lock(mutex_);
      ++released_;
    }
    changed_.notify_all();
  }

  int answer(const char* name, const addrinfo* hints, addrinfo** result) {
    std::unique_lock lock(mutex_);
    const auto script = scripts_.find(name);
    if (script == scripts_.end()) return EAI_NONAME;
    ++asked_[name];
    const Answer answer = script->second.front();
    if (script->second.size() > 1) script->second.pop_front();
    if (answer.never) {
      const auto before = released_;
      changed_.wait(lock, [&] { return released_ != before; });
      return EAI_AGAIN;
    }
    lock.unlock();
    std::this_thread::sleep_for(answer.delay);
    if (answer.error) return answer.error;
    *result = list(answer.addresses, hints);
    return *result ? 0 : EAI_NODATA;
  }

 private:
  static addrinfo* list(const std::vector<std::string>& addresses, const addrinfo* hints);

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, std::deque<Answer>> scripts_;
  std::map<std::string, std::size_t> asked_;
  std::size_t released_ = 0;
};

NameServer& name_server() {
  static auto* server = new NameServer;
  return *server;
}

using Getaddrinfo = int (*)(const char*, const char*, const addrinfo*, addrinfo**);
Getaddrinfo system_getaddrinfo() {
  static const auto real = reinterpret_cast<Getaddrinfo>(::dlsym(RTLD_NEXT, "getaddrinfo"));
  return real;
}

addrinfo* NameServer::list(const std::vector<std::string>& addresses, const addrinfo* hints) {
  addrinfo* first = nullptr;
  addrinfo** last = &first;
  for (const auto& address : addresses) {
    addrinfo numeric{};
    if (hints) numeric = *hints;
    numeric.ai_flags = AI_NUMERICHOST;
    if (system_getaddrinfo()(address.c_str(), nullptr, &numeric, last) != 0) continue;
    while (*last) last = &(*last)->ai_next;
  }
  return first;
}

}  // namespace
}  // namespace fulmar::test

extern "C" int getaddrinfo(const char* node, const char* service, const addrinfo* hints, addrinfo** result) {
  if (node && std::string_view(node).ends_with(".test")) {
    return fulmar::test::name_server().answer(node, hints, result);
  }
  return fulmar::test::system_getaddrinfo()(node, service, hints, result);
}

namespace fulmar::test {
namespace {

std::string url_of(const std::string& name, std::uint16_t port) {
  return "mqtt://" + name + ":" + std::to_string(port);
}

TEST(Faults, N9_a_name_that_is_not_known_is_said_and_asked_for_anew_at_each_attempt) {
  for (const int error : {EAI_NONAME, EAI_AGAIN, EAI_FAIL, EAI_NODATA}) {
    SCOPED_TRACE(gai_strerror(error));
    ScriptedBroker broker;
    name_server().script("broker.test", {{.error = error}, {.error = error}, {.addresses = {"127.0.0.1"}}});
    Client client(config_for(url_of("broker.test", broker.port()), "asker"));
    const auto changes = watch_states(client);
    ASSERT_TRUE(client.connect(patience));
    EXPECT_EQ(name_server().asked("broker.test"), 3u);
    ASSERT_TRUE(changes.wait_for(4));
    const auto reason = changes.items()[1].change.reason;
    EXPECT_TRUE(reason.contains("broker.test")) << reason;
    EXPECT_TRUE(reason.contains(gai_strerror(error))) << reason;
  }
}

TEST(Faults, N9_a_changed_address_is_followed) {
  ScriptedBroker broker;
  FaultProxy old_address(broker.port());
  name_server().script("moving.test", {{.addresses = {"127.0.0.1"}}, {.addresses = {"127.0.0.2"}}});
  Client client(config_for(url_of("moving.test", old_address.port()), "follower"));
  const auto changes = watch_states(client);
  ASSERT_TRUE(client.connect(patience));
  old_address.cut(Ending::fin);
  ASSERT_TRUE(changes.wait_for(4));  // connecting, connected, cut, and nobody listens on 127.0.0.2
  EXPECT_GE(name_server().asked("moving.test"), 2u);
  EXPECT_TRUE(changes.items()[3].change.reason.contains("127.0.0.2")) << changes.items()[3].change.reason;
}

TEST(Faults, N9_a_slow_name_server_delays_nobody_else) {
  ScriptedBroker broker;
  name_server().script("slow.test", {{.addresses = {"127.0.0.1"}, .delay = 2s}});
  Client slow(config_for(url_of("slow.test", broker.port()), "slow"));
  const auto begin = Clock::now();
  slow.start();
  EXPECT_LT(since(begin), 50ms + (sanitized ? slack : 0ms)) << "start() asks nobody";
  EXPECT_TRUE(slow.publish("t", as_bytes("x")));
  EXPECT_LT(since(begin), 50ms + (sanitized ? slack : 0ms)) << "nor does publish()";
  ScriptedBroker other_broker;
  Client other(config_for(other_broker.url(), "other"));
  const auto other_begin = Clock::now();
  ASSERT_TRUE(other.connect(patience));
  EXPECT_LT(since(other_begin), 50ms + slack);
  EXPECT_FALSE(slow.connected());
  EXPECT_TRUE(slow.wait_for(ConnectionState::connected, patience));
}

TEST(Faults, N9_clients_of_one_name_ask_side_by_side) {
  ScriptedBroker broker;
  name_server().script("slow.test", {{.addresses = {"127.0.0.1"}, .delay = 1s}});
  std::vector<std::unique_ptr<Client>> clients;
  const auto begin = Clock::now();
  for (int i = 0; i < 4; ++i) {
    clients.push_back(std::make_unique<Client>(
        config_for(url_of("slow.test", broker.port()), "asker-" + std::to_string(i))));
    clients.back()->start();
  }
  for (auto& client : clients) ASSERT_TRUE(client->wait_for(ConnectionState::connected, patience));
  EXPECT_LT(since(begin), 2s + slack);
}

TEST(Faults, N9_a_hole_ends_at_the_connect_timeout_and_holds_nobody_up) {
  ScriptedBroker broker;
  name_server().script("hole.test", {{.never = true}, {.addresses = {"127.0.0.1"}}});
  auto config = config_for(url_of("hole.test", broker.port()), "lost");
  config.connect_timeout = 500ms;
  Client client(config);
  const auto changes = watch_states(client);
  const auto begin = Clock::now();
  ASSERT_TRUE(client.connect(patience)) << "the second question is answered";
  ASSERT_TRUE(changes.wait_for(2));
  const auto failure = changes.items()[1];
  EXPECT_GE(failure.at - begin, 450ms);
  EXPECT_LE(failure.at - begin, 550ms + slack);
  EXPECT_TRUE(failure.change.reason.contains("hole.test")) << failure.change.reason;
  name_server().release_holes();
}

TEST(Faults, N9_shutdown_and_destruction_do_not_wait_for_a_hole) {
  name_server().script("hole.test", {{.never = true}});
  for (const bool destroyed : {false, true}) {
    auto client = std::make_unique<Client>(config_for("mqtt://hole.test", "lost"));
    const auto asked = name_server().asked("hole.test");
    client->start();
    ASSERT_TRUE(eventually([&] { return name_server().asked("hole.test") > asked; }));
    const auto begin = Clock::now();
    if (!destroyed) client->shutdown(5s);
    client.reset();
    EXPECT_LT(since(begin), 100ms + slack);
  }
  name_server().release_holes();
}

TEST(Faults, N9_holes_leave_a_bounded_number_of_threads_behind) {
  name_server().script("hole.test", {{.never = true}});
  auto config = config_for("mqtt://hole.test", "lost");
  config.connect_timeout = 100ms;
  config.reconnect_max_delay = 100ms;
  const auto before = threads();
  {
    std::vector<std::unique_ptr<Client>> clients;
    for (int i = 0; i < 8; ++i) {
      clients.push_back(std::make_unique<Client>(config));
      clients.back()->start();
    }
    std::this_thread::sleep_for(2s);  // some 80 attempts
    EXPECT_LE(threads(), before + std::size_t{8} * 2 + 64);
  }
  name_server().release_holes();
  EXPECT_TRUE(eventually([&] { return threads() <= before; }))
      << threads() << " threads, " << before << " before";
}

TEST(Faults, N9_a_dead_ipv6_address_beside_a_live_ipv4_one_costs_little) {
  ScriptedBroker broker;
  name_server().script("dual.test", {{.addresses = {"::1", "127.0.0.1"}}});  // nobody listens on ::1
  Client client(config_for(url_of("dual.test", broker.port()), "both"));
  const auto begin = Clock::now();
  ASSERT_TRUE(client.connect(patience));
  EXPECT_LT(since(begin), 500ms + slack);
}

TEST(Faults, N9_an_address_that_swallows_syns_does_not_use_up_the_attempt) {
  // On one port of two addresses: the first has a full queue, the second a broker.
  name_server().script("dual.test", {{.addresses = {"127.0.0.1", "127.0.0.2"}}});
  const DeafPort deaf;
  const auto second = listen_on_loopback(deaf.port(), 64, "127.0.0.2");
  auto config = config_for(url_of("dual.test", deaf.port()), "both");
  config.connect_timeout = 5s;
  Client client(config);
  client.start();
  const auto begin = Clock::now();
  Socket accepted;
  ASSERT_TRUE(eventually([&] { return static_cast<bool>(accepted = accept_from(second)); }));
  EXPECT_LT(since(begin), 2'500ms + slack)
      << "the second address has its turn well before the connect timeout";
}

}  // namespace
}  // namespace fulmar::test
