#include "tests/support/broker.hpp"

#include <signal.h>

#include <fstream>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "tests/support/port.hpp"

namespace fulmar::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

std::string last_lines(const std::string& text) {
  constexpr std::size_t enough = 1'500;
  return text.size() <= enough ? text : "..." + text.substr(text.size() - enough);
}

}  // namespace

Broker::Broker() : Broker(Options{}) {}

Broker::Broker(Options options) : options_(std::move(options)) {
  const auto passwords = directory_ / "passwords";
  if (!options_.users.empty()) {
    std::ofstream file(passwords);
    for (const auto& [name, password] : options_.users) file << name << ':' << password << '\n';
    file.close();
    const auto output = directory_ / "mosquitto_passwd.log";
    if (run({.argv = {"mosquitto_passwd", "-U", passwords.string()}, .output = output}, patience) != 0) {
      throw std::runtime_error("mosquitto_passwd failed");
    }
  }

  if (!options_.psk.empty()) {
    std::ofstream file(directory_ / "psk");
    for (const auto& [identity, key] : options_.psk) file << identity << ':' << key << '\n';
  }

  // Somebody else may take a port between our look and mosquitto's bind.
  for (int attempt = 0; attempt < 10; ++attempt) {
    port_ = free_port();
    for (const auto listener : options_.listeners) {
      if (listener != Listener::unix_socket) listener_ports_[listener] = free_port();
    }
    write_config();
    if (try_start()) return;
    const auto why = log();
    if (!why.contains("Address already in use") && !why.contains("Unable to create websockets listener"))
      break;
  }
  throw std::runtime_error("mosquitto does not start; its log:\n" + last_lines(log()));
}

void Broker::write_config() {
  std::ofstream config(directory_ / "mosquitto.conf");
  config << "user root\n"  // else a broker started by root drops to a user that cannot read this directory
         << "log_dest stderr\nlog_type all\n"
         << "max_queued_messages 0\nmax_inflight_messages 0\n"  // no limit: a test counts every message
         << "persistence false\n"
         << "set_tcp_nodelay true\n"
         << "allow_anonymous " << (options_.users.empty() ? "true" : "false") << '\n';
  if (!options_.users.empty()) config << "password_file " << (directory_ / "passwords").string() << '\n';
  if (!options_.psk.empty()) config << "psk_file " << (directory_ / "psk").string() << '\n';
  config << "listener " << port_ << " 127.0.0.1\n";
  for (const auto& line : options_.config) config << line << '\n';
  for (const auto listener : options_.listeners) {
    if (listener == Listener::unix_socket) {
      config << "listener 0 " << (directory_ / "socket").string() << '\n';
      continue;
    }
    config << "listener " << listener_ports_.at(listener) << " 127.0.0.1\n";
    if (listener == Listener::psk) config << "psk_hint test\n";
    if (listener == Listener::websocket || listener == Listener::secure_websocket)
      config << "protocol websockets\n";
    if (listener != Listener::tls && listener != Listener::secure_websocket) continue;
    config << "certfile " << options_.certificate.string() << "\nkeyfile " << options_.key.string() << '\n';
    if (!options_.clients_authority.empty()) {
      config << "cafile " << options_.clients_authority.string() << "\nrequire_certificate true\n";
    }
    for (const auto& line : options_.tls_config) config << line << '\n';
  }
}

Broker::~Broker() { stop(); }

std::string Broker::url() const { return "mqtt://127.0.0.1:" + std::to_string(port_); }

std::uint16_t Broker::port(Listener listener) const { return listener_ports_.at(listener); }

std::string Broker::url(Listener listener) const {
  const char* scheme = "mqtts";
  switch (listener) {
    case Listener::unix_socket: return "unix://" + (directory_ / "socket").string();
    case Listener::websocket: scheme = "ws"; break;
    case Listener::secure_websocket: scheme = "wss"; break;
    case Listener::tls:
    case Listener::psk: break;
  }
  return std::string(scheme) + "://127.0.0.1:" + std::to_string(port(listener));
}

std::string Broker::url_with(std::string_view user, std::string_view password) const {
  return "mqtt://" + std::string(user) + ":" + std::string(password) + "@127.0.0.1:" + std::to_string(port_);
}

bool Broker::try_start() {
  const std::size_t logged_before = log().size();
  process_ = Process({.argv = {"mosquitto", "-c", (directory_ / "mosquitto.conf").string()},
                      .output = directory_ / "mosquitto.log"});
  const auto deadline = steady_clock::now() + patience;
  const std::string running = " running\n";  // mosquitto says it once all its listeners are open
  while (log().find(running, logged_before) == std::string::npos) {
    if (!process_.running()) return false;
    if (steady_clock::now() >= deadline) {
      process_.kill();
      return false;
    }
    std::this_thread::sleep_for(milliseconds(2));
  }
  return true;
}

void Broker::start() {
  if (running()) return;
  if (!try_start()) {
    throw std::runtime_error("mosquitto does not start again on port " + std::to_string(port_) +
                             "; its log:\n" + last_lines(log()));
  }
}

void Broker::kill() { process_.kill(); }

void Broker::stop() {
  thaw();
  process_.send_signal(SIGTERM);
  if (!process_.wait(patience)) process_.kill();
}

void Broker::freeze() { process_.send_signal(SIGSTOP); }
void Broker::thaw() { process_.send_signal(SIGCONT); }
void Broker::reload() { process_.send_signal(SIGHUP); }

std::string Broker::log() const {
  std::ifstream file(directory_.path() / "mosquitto.log", std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return std::move(text).str();
}

bool Broker::log_contains(std::string_view text, milliseconds timeout) const {
  const auto deadline = steady_clock::now() + timeout;
  while (!log().contains(text)) {
    if (steady_clock::now() >= deadline) return false;
    std::this_thread::sleep_for(milliseconds(5));
  }
  return true;
}

}  // namespace fulmar::test
