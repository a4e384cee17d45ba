#include "tests/support/postgres.hpp"

#include <pwd.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "tests/support/port.hpp"

namespace fulmar::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// Debian keeps each version's programs in a directory of its own; the newest wins.
std::optional<std::filesystem::path> programs() {
  std::optional<std::filesystem::path> best;
  int best_version = 0;
  std::error_code none;
  for (const auto& version : std::filesystem::directory_iterator("/usr/lib/postgresql", none)) {
    const auto bin = version.path() / "bin";
    const int number = std::atoi(version.path().filename().c_str());
    if (number > best_version && ::access((bin / "initdb").c_str(), X_OK) == 0 &&
        ::access((bin / "postgres").c_str(), X_OK) == 0) {
      best = bin;
      best_version = number;
    }
  }
  return best;
}

std::string owner() { return ::getpwnam("postgres") ? "postgres" : "nobody"; }

std::string percent_encoded(const std::string& path) {
  std::string text;
  for (const char c : path) {
    if (c == '/') {
      text += "%2F";
    } else {
      text += c;
    }
  }
  return text;
}

std::string read_all(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return std::move(text).str();
}

}  // namespace

std::optional<std::string> Postgres::missing() {
  if (!programs()) {
    return "no PostgreSQL server below /usr/lib/postgresql; ./dev setup installs what the tests need";
  }
  return std::nullopt;
}

Postgres::Postgres() : Postgres(Options{}) {}

Postgres::Postgres(Options options) : options_(std::move(options)) {
  if (const auto why = missing()) throw std::runtime_error(*why);
  if (::geteuid() == 0) {
    const auto* user = ::getpwnam(owner().c_str());
    if (!user || ::chown(directory_.path().c_str(), user->pw_uid, user->pw_gid) != 0) {
      throw std::runtime_error("cannot hand " + directory_.path().string() + " to user " + owner());
    }
  }
  const auto data = directory_ / "data";
  if (run({.argv = as_owner({(*programs() / "initdb").string(), "-D", data.string(), "-U", "fulmar", "-A",
                             "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"}),
           .output = directory_ / "log"},
          patience) != 0) {
    give_up("initdb failed");
  }
  port_ = free_port();
  start();
  sql("CREATE DATABASE fulmar");
}

Postgres::~Postgres() {
  thaw_sessions();
  crash();  // nothing of it is wanted any more
}

std::vector<std::string> Postgres::as_owner(std::vector<std::string> argv) const {
  if (::geteuid() != 0) return argv;
  // Another user's process loses the signal that it asked for at its parent's death: setpriv asks anew.
  std::vector<std::string> all{"setpriv",        "--reuid=" + owner(), "--regid=" + owner(),
                               "--clear-groups", "--pdeathsig=QUIT",   "--"};
  all.insert(all.end(), argv.begin(), argv.end());
  return all;
}

bool Postgres::try_start() {
  const auto logged_before = log().size();
  std::vector<std::string> argv{(*programs() / "postgres").string(), "-D", (directory_ / "data").string()};
  const auto set = [&](const std::string& setting) { argv.insert(argv.end(), {"-c", setting}); };
  set("listen_addresses=127.0.0.1");
  set("port=" + std::to_string(port_));
  set("unix_socket_directories=" + directory_.path().string());
  set("max_connections=120");
  set("shared_buffers=32MB");
  set("recovery_init_sync_method=syncfs");  // not a thousand files one by one
  set("dynamic_shared_memory_type=mmap");   // within the directory: nothing stays behind
  set(std::string("fsync=") + (options_.fsync ? "on" : "off"));
  set("log_line_prefix=%m [%p] ");
  for (const auto& setting : options_.config) set(setting);
  process_ = Process({.argv = as_owner(argv), .output = directory_ / "log"});
  const auto deadline = steady_clock::now() + patience;
  while (log().find("database system is ready to accept connections", logged_before) == std::string::npos) {
    if (!process_.running()) return false;
    if (steady_clock::now() >= deadline) {
      process_.kill();
      return false;
    }
    std::this_thread::sleep_for(milliseconds(5));
  }
  return true;
}

void Postgres::start() {
  if (running()) return;
  // Somebody else may take the port between our look and the server's bind: only before anybody knows it.
  const auto deadline = steady_clock::now() + patience;
  while (!try_start()) {
    if (steady_clock::now() >= deadline || log().contains("could not create any TCP/IP sockets")) {
      give_up("the server does not start");
    }
    std::this_thread::sleep_for(milliseconds(50));  // the last processes of the one before
  }
}

bool Postgres::processes_left() const {
  // Of this cluster: their working directory is the data directory.
  std::error_code none;
  const auto data = std::filesystem::canonical(directory_ / "data", none);
  for (const auto& entry : std::filesystem::directory_iterator("/proc", none)) {
    const auto cwd = std::filesystem::read_symlink(entry.path() / "cwd", none);
    if (!none && cwd == data) return true;
  }
  return false;
}

void Postgres::kill() {
  process_.kill();
  const auto deadline = steady_clock::now() + patience;
  while (processes_left() && steady_clock::now() < deadline) std::this_thread::sleep_for(milliseconds(5));
}

void Postgres::crash() {
  process_.send_signal(SIGQUIT);
  if (!process_.wait(patience)) process_.kill();
}

void Postgres::stop() {
  process_.send_signal(SIGINT);
  if (!process_.wait(patience)) process_.kill();
}

void Postgres::freeze_sessions() {
  // "backend" also names the one that answers this, which is gone by the time.
  std::istringstream pids(
      sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'"
          " AND pid <> pg_backend_pid()"));
  for (pid_t pid = 0; pids >> pid;) {
    if (::kill(pid, SIGSTOP) == 0) frozen_.push_back(pid);
  }
}

void Postgres::thaw_sessions() {
  for (const auto pid : frozen_) ::kill(pid, SIGCONT);
  frozen_.clear();
}

std::string Postgres::url(std::string_view parameters) const {
  std::string text = "postgresql://fulmar@/fulmar?host=" + percent_encoded(directory_.path().string()) +
                     "&port=" + std::to_string(port_);
  if (!parameters.empty()) text.append("&").append(parameters);
  return text;
}

std::string Postgres::tcp_url(std::string_view parameters) const {
  std::string text = "postgresql://fulmar@127.0.0.1:" + std::to_string(port_) + "/fulmar";
  if (!parameters.empty()) text.append("?").append(parameters);
  return text;
}

std::string Postgres::fresh_url() {
  const auto name = "schema" + std::to_string(++schemas_);
  sql("CREATE SCHEMA " + name);
  return url("options=-csearch_path%3D" + name);
}

std::string Postgres::sql(const std::string& statement) const {
  const auto database = statement.starts_with("CREATE DATABASE") ? "postgres" : "fulmar";
  TempDir answers;
  const auto answer = answers / "answer";
  const auto code = run({.argv = {(*programs() / "psql").string(), "-X", "-A", "-t", "-q", "-v",
                                  "ON_ERROR_STOP=1", "-h", directory_.path().string(), "-p",
                                  std::to_string(port_), "-U", "fulmar", "-d", database, "-c", statement},
                         .output = answer},
                        patience);
  auto text = read_all(answer);
  if (code != 0) throw std::runtime_error("psql: " + text);
  while (text.ends_with('\n')) text.pop_back();
  return text;
}

std::string Postgres::log() const { return read_all(directory_.path() / "log"); }

void Postgres::give_up(const std::string& what) const {
  constexpr std::size_t enough = 1'500;
  const auto text = log();
  throw std::runtime_error(what + "; the log:\n" +
                           (text.size() <= enough ? text : "..." + text.substr(text.size() - enough)));
}

}  // namespace fulmar::test
