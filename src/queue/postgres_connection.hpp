#pragma once
// Connection: one session of a PostgreSQL server, over libpq in pipeline mode: any number of statements in one round trip,
// each prepared once, parameters and results in binary. No text is ever put into a statement.
//
// Thread-safety: one thread at a time. Every call ends within the timeouts of ConnectionSettings, whatever the server and
// the network do; a connection that did not answer in time, or broke, is not usable() any more.
//
// Invariants
//   1. A password is never in a message or in shown_url().
//   2. The session's plans depend on nothing that the server estimates: the statements have one right plan each (the
//      index that they were written for), and a table that was empty a moment ago has no statistics.

#include <chrono>
#include <cstdint>
#include <expected>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include <libpq-fe.h>

#include "fulmar/result.hpp"

namespace fulmar::queue::postgres {

// The URL without its password: for messages.
std::string shown_url(std::string_view url);

struct ConnectionSettings {
  std::string url{};
  std::string shown{};  // shown_url(url)
  // For another transaction's lock; a statement may take twice, the answer of a server three times as long.
  std::chrono::milliseconds lock_timeout{10'000};
  bool read_only = false;  // a standby will do
};

// Prepared under its address on first use in each connection: one object per statement, of static life.
struct Statement {
  const char* sql;
  bool prepare = true;  // false: used once, or a text that does not live long
};

// $1, $2, ... in order, in binary. A parameter's type is that of its place in the statement ($1::int8).
class Params {
 public:
  Params& add(std::int64_t value);
  Params& add(std::int32_t value);
  Params& add(std::int16_t value);
  Params& add(bool value);
  Params& add(std::string_view value);
  Params& add(const char* value) { return add(std::string_view(value)); }
  Params& add_null();
  template <typename T>
  Params& add(const std::optional<T>& value) {
    return value ? add(*value) : add_null();
  }
  // Arrays of one dimension; an element without a value is NULL.
  Params& add(std::span<const std::string_view> values);
  Params& add(std::span<const std::optional<std::string_view>> values);
  Params& add(std::span<const std::int64_t> values);
  Params& add(std::span<const std::optional<std::int64_t>> values);
  Params& add(std::span<const std::int32_t> values);
  Params& add(std::span<const std::int16_t> values);

 private:
  friend class Connection;
  template <typename Range, typename Write>
  Params& add_array(std::uint32_t element_type, const Range& values, Write write);
  std::string bytes_;
  std::vector<std::size_t> begins_;
  std::vector<int> lengths_;  // -1 = NULL
};

// One element of text[] of a row.
class Rows {
 public:
  explicit Rows(PGresult* result) : result_(result, &PQclear) {}
  std::size_t size() const { return static_cast<std::size_t>(PQntuples(result_.get())); }
  bool empty() const { return size() == 0; }
  bool is_null(std::size_t row, int column) const { return PQgetisnull(result_.get(), at(row), column) != 0; }
  // Of int2, int4 and int8.
  std::int64_t number(std::size_t row, int column) const;
  std::optional<std::int64_t> maybe_number(std::size_t row, int column) const;
  bool boolean(std::size_t row, int column) const { return *PQgetvalue(result_.get(), at(row), column) != 0; }
  std::string_view text(std::size_t row, int column) const;  // empty for NULL
  std::vector<std::string> texts(std::size_t row, int column) const;
  std::string_view command() const { return PQcmdStatus(result_.get()); }  // "COMMIT", "UPDATE 3"
  std::uint64_t changed() const;                                           // rows, by INSERT, UPDATE, DELETE

 private:
  static int at(std::size_t row) { return static_cast<int>(row); }
  std::unique_ptr<PGresult, decltype(&PQclear)> result_;
};

struct Fault {
  Error error{};
  std::string sqlstate{};  // of the server; empty = none came
  bool connection_lost = false;
  std::vector<Rows> done{};      // of the calls before the one that failed
  bool may_be_repeated() const;  // the transaction was undone for reasons that another try may not meet
};
using Answer = std::expected<std::vector<Rows>, Fault>;

struct Call {
  const Statement* statement{};
  Params params{};
};

class Connection {
 public:
  // Ends early, with `cancelled`, when `stop_fd` becomes readable (-1 = never).
  static std::expected<std::unique_ptr<Connection>, Fault> open(const ConnectionSettings& settings,
                                                                int stop_fd = -1);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // All of them in one round trip, in order, up to the first that fails.
  Answer execute(std::vector<Call> calls);

  // False when it broke, or when the server has closed it in the meantime; asks the socket, not the server.
  bool usable();
  bool broken() const { return broken_; }
  int socket() const { return PQsocket(connection_.get()); }
  // What NOTIFY brought since: the payloads. Nothing when the connection is lost.
  std::optional<std::vector<std::string>> notifications();

  int server_version() const { return PQserverVersion(connection_.get()); }  // 150004
  // The server's clock less this machine's, in microseconds, as of the opening.
  std::int64_t clock_offset_us() const { return clock_offset_us_; }
  bool fsync_off() const { return fsync_off_; }
  // Forgets the session without a word to the server: for a child process, which shares the socket with its parent.
  void abandon();

 private:
  using Deadline = std::chrono::steady_clock::time_point;
  Connection(PGconn* connection, const ConnectionSettings& settings);
  std::optional<Fault> set_up();
  std::optional<Fault> send(std::span<const Call> calls, std::vector<bool>& prepares);
  std::optional<Fault> flush(Deadline deadline);
  // The next result, or null for libpq's mark of the end of one statement.
  std::expected<PGresult*, Fault> next_result(Deadline deadline);
  Fault lost(std::string_view doing);
  Fault fault_of(const PGresult* result) const;

  struct Close {
    void operator()(PGconn* connection) const { PQfinish(connection); }
  };
  std::unique_ptr<PGconn, Close> connection_;
  ConnectionSettings settings_;
  std::unordered_set<const Statement*> prepared_;
  std::int64_t clock_offset_us_ = 0;
  bool fsync_off_ = false;
  bool broken_ = false;
};

}  // namespace fulmar::queue::postgres
