#include "queue/postgres_connection.hpp"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

namespace fulmar::queue::postgres {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// Types of pg_type.dat, which are the same in every server.
constexpr std::uint32_t int2_type = 21, int4_type = 23, int8_type = 20, text_type = 25;

template <typename Integer>
void put(std::string& to, Integer value) {
  const auto bits = static_cast<std::make_unsigned_t<Integer>>(value);
  for (int shift = (static_cast<int>(sizeof value) - 1) * 8; shift >= 0; shift -= 8) {
    to.push_back(static_cast<char>(bits >> shift & 0xFF));
  }
}

template <typename Integer>
Integer get(const char* from) {
  std::make_unsigned_t<Integer> bits = 0;
  for (std::size_t i = 0; i < sizeof bits; ++i) {
    bits = static_cast<std::make_unsigned_t<Integer>>(bits << 8 | static_cast<unsigned char>(from[i]));
  }
  return static_cast<Integer>(bits);
}

// A message of libpq or the server on one line.
std::string one_line(std::string_view message) {
  std::string text;
  for (const char c : message) {
    const bool space = c == '\n' || c == '\r' || c == '\t' || c == ' ';
    if (!space) {
      text += c;
    } else if (!text.empty() && text.back() != ' ') {
      text += ' ';
    }
  }
  while (text.ends_with(' ')) text.pop_back();
  return text;
}

void replace_all(std::string& text, std::string_view what, std::string_view by) {
  if (what.empty()) return;
  for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + by.size())) {
    text.replace(at, what.size(), by);
  }
}

// Where the password is in the URL: begin and length.
std::optional<std::pair<std::size_t, std::size_t>> password_place(std::string_view url) {
  const auto scheme = url.find("://");
  if (scheme == std::string_view::npos) return std::nullopt;
  const auto begin = scheme + 3;
  // One that was not percent-encoded may contain '/', '?' and '@'; rather hide too much.
  const auto at = url.rfind('@');
  if (at == std::string_view::npos || at < begin) return std::nullopt;
  const auto colon = url.find(':', begin);
  if (colon == std::string_view::npos || colon > at) return std::nullopt;
  return std::pair{colon + 1, at - colon - 1};
}

// Waits for the socket; false when the time is over, or `stop_fd` is readable.
bool wait_for(int socket, short events, steady_clock::time_point deadline, int stop_fd = -1) {
  for (;;) {
    const auto left =
        std::chrono::duration_cast<milliseconds>(deadline - steady_clock::now() + milliseconds(1));
    if (left.count() <= 0) return false;
    pollfd fds[2] = {{socket, events, 0}, {stop_fd, POLLIN, 0}};
    const int ready =
        ::poll(fds, stop_fd < 0 ? 1 : 2, static_cast<int>(std::min<std::int64_t>(left.count(), 60'000)));
    if (ready < 0 && errno != EINTR) return false;
    if (ready <= 0) continue;
    if (stop_fd >= 0 && fds[1].revents != 0) return false;
    return true;
  }
}

struct Parsed {
  std::vector<std::string> names, values;
};

std::expected<Parsed, Error> parse(const ConnectionSettings& settings) {
  char* message = nullptr;
  const std::unique_ptr<PQconninfoOption, decltype(&PQconninfoFree)> options(
      PQconninfoParse(settings.url.c_str(), &message), &PQconninfoFree);
  if (!options) {
    std::string why = one_line(message ? message : "out of memory");
    PQfreemem(message);
    replace_all(why, settings.url, settings.shown);
    if (const auto place = password_place(settings.url)) {
      replace_all(why, std::string_view(settings.url).substr(place->first, place->second), "***");
    }
    return std::unexpected(Error{
        Errc::invalid_url,
        "queue URL \"" + settings.shown + "\": " + why +
            "; it has to look like postgresql://user:password@host:5432/database, other characters as %XX",
        {}});
  }
  Parsed parsed;
  const auto has = [&](std::string_view name) {
    return std::ranges::find(parsed.names, name) != parsed.names.end();
  };
  const auto set_default = [&](const char* name, std::string value) {
    if (has(name)) return;
    parsed.names.emplace_back(name);
    parsed.values.push_back(std::move(value));
  };
  for (const auto* option = options.get(); option->keyword; ++option) {
    if (!option->val) continue;
    parsed.names.emplace_back(option->keyword);
    parsed.values.emplace_back(option->val);
  }
  set_default("fallback_application_name", "fulmar");
  set_default("target_session_attrs", settings.read_only ? "any" : "read-write");
  // A network that swallows everything is noticed within a minute, also by who only listens.
  set_default("keepalives_idle", "30");
  set_default("keepalives_interval", "10");
  set_default("keepalives_count", "3");
  return parsed;
}

const Statement session_statement{
    "SELECT set_config('lock_timeout', $1::text, false), set_config('statement_timeout', $2::text, false),"
    " set_config('client_encoding', 'UTF8', false), set_config('jit', 'off', false),"
    " set_config('plan_cache_mode', 'force_generic_plan', false), set_config('enable_seqscan', 'off', false),"
    " set_config('enable_bitmapscan', 'off', false), set_config('enable_hashjoin', 'off', false),"
    " set_config('enable_mergejoin', 'off', false),"
    // The locks of a machine that vanished are not kept for two hours.
    " set_config('tcp_keepalives_idle', '30', false), set_config('tcp_keepalives_interval', '10', false),"
    " set_config('tcp_keepalives_count', '3', false),"
    // A database may have it off; `commit` promises that it is not.
    " CASE WHEN current_setting('synchronous_commit') = 'off' THEN set_config('synchronous_commit', 'on', "
    "false) END",
    false};
const Statement facts_statement{
    "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8, current_setting('server_encoding'),"
    " current_setting('fsync')",
    false};

std::int64_t wall_clock_us() {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace

std::string shown_url(std::string_view url) {
  std::string shown(url);
  if (const auto place = password_place(url)) shown.replace(place->first, place->second, "***");
  for (const std::string_view key : {"?password=", "&password=", "?sslpassword=", "&sslpassword="}) {
    const auto found = shown.find(key);
    if (found == std::string::npos) continue;
    const auto begin = found + key.size();
    shown.replace(begin, std::min(shown.find('&', begin), shown.size()) - begin, "***");
  }
  return shown;
}

// --- parameters and rows ----------------------------------------------------------------------------------------------

Params& Params::add(std::int64_t value) {
  begins_.push_back(bytes_.size());
  lengths_.push_back(8);
  put(bytes_, value);
  return *this;
}

Params& Params::add(std::int32_t value) {
  begins_.push_back(bytes_.size());
  lengths_.push_back(4);
  put(bytes_, value);
  return *this;
}

Params& Params::add(std::int16_t value) {
  begins_.push_back(bytes_.size());
  lengths_.push_back(2);
  put(bytes_, value);
  return *this;
}

Params& Params::add(bool value) {
  begins_.push_back(bytes_.size());
  lengths_.push_back(1);
  bytes_.push_back(value ? 1 : 0);
  return *this;
}

Params& Params::add(std::string_view value) {
  begins_.push_back(bytes_.size());
  lengths_.push_back(static_cast<int>(value.size()));
  bytes_ += value;
  return *this;
}

Params& Params::add_null() {
  begins_.push_back(bytes_.size());
  lengths_.push_back(-1);
  return *this;
}

template <typename Range, typename Write>
Params& Params::add_array(std::uint32_t element_type, const Range& values, Write write) {
  const auto begin = bytes_.size();
  begins_.push_back(begin);
  put(bytes_, std::int32_t{values.empty() ? 0 : 1});  // dimensions
  put(bytes_, std::int32_t{1});                       // may contain NULL
  put(bytes_, element_type);
  if (!values.empty()) {
    put(bytes_, static_cast<std::int32_t>(values.size()));
    put(bytes_, std::int32_t{1});  // the first index
  }
  for (const auto& value : values) write(value);
  lengths_.push_back(static_cast<int>(bytes_.size() - begin));
  return *this;
}

Params& Params::add(std::span<const std::string_view> values) {
  return add_array(text_type, values, [this](std::string_view value) {
    put(bytes_, static_cast<std::int32_t>(value.size()));
    bytes_ += value;
  });
}

Params& Params::add(std::span<const std::optional<std::string_view>> values) {
  return add_array(text_type, values, [this](const std::optional<std::string_view>& value) {
    put(bytes_, value ? static_cast<std::int32_t>(value->size()) : std::int32_t{-1});
    if (value) bytes_ += *value;
  });
}

Params& Params::add(std::span<const std::int64_t> values) {
  return add_array(int8_type, values, [this](std::int64_t value) {
    put(bytes_, std::int32_t{8});
    put(bytes_, value);
  });
}

Params& Params::add(std::span<const std::optional<std::int64_t>> values) {
  return add_array(int8_type, values, [this](const std::optional<std::int64_t>& value) {
    put(bytes_, std::int32_t{value ? 8 : -1});
    if (value) put(bytes_, *value);
  });
}

Params& Params::add(std::span<const std::int32_t> values) {
  return add_array(int4_type, values, [this](std::int32_t value) {
    put(bytes_, std::int32_t{4});
    put(bytes_, value);
  });
}

Params& Params::add(std::span<const std::int16_t> values) {
  return add_array(int2_type, values, [this](std::int16_t value) {
    put(bytes_, std::int32_t{2});
    put(bytes_, value);
  });
}

std::int64_t Rows::number(std::size_t row, int column) const {
  const char* value = PQgetvalue(result_.get(), at(row), column);
  switch (PQgetlength(result_.get(), at(row), column)) {
    case 2: return get<std::int16_t>(value);
    case 4: return get<std::int32_t>(value);
    case 8: return get<std::int64_t>(value);
    default: return 0;
  }
}

std::optional<std::int64_t> Rows::maybe_number(std::size_t row, int column) const {
  if (is_null(row, column)) return std::nullopt;
  return number(row, column);
}

std::string_view Rows::text(std::size_t row, int column) const {
  return {PQgetvalue(result_.get(), at(row), column),
          static_cast<std::size_t>(PQgetlength(result_.get(), at(row), column))};
}

std::vector<std::string> Rows::texts(std::size_t row, int column) const {
  std::vector<std::string> values;
  const auto bytes = text(row, column);
  if (bytes.size() < 20) return values;  // NULL, or no dimension
  const auto count = get<std::int32_t>(bytes.data() + 12);
  std::size_t offset = 20;
  for (std::int32_t i = 0; i < count && offset + 4 <= bytes.size(); ++i) {
    const auto length = get<std::int32_t>(bytes.data() + offset);
    offset += 4;
    if (length < 0) continue;
    values.emplace_back(bytes.substr(offset, static_cast<std::size_t>(length)));
    offset += static_cast<std::size_t>(length);
  }
  return values;
}

std::uint64_t Rows::changed() const {
  const std::string_view text = PQcmdTuples(result_.get());
  std::uint64_t count = 0;
  std::from_chars(text.data(), text.data() + text.size(), count);
  return count;
}

bool Fault::may_be_repeated() const { return sqlstate == "40001" || sqlstate == "40P01"; }

// --- the connection ---------------------------------------------------------------------------------------------------

Connection::Connection(PGconn* connection, const ConnectionSettings& settings)
    : connection_(connection), settings_(settings) {}

Connection::~Connection() = default;

void Connection::abandon() {
  broken_ = true;
  static_cast<void>(connection_.release());  // its memory is the price
}

std::expected<std::unique_ptr<Connection>, Fault> Connection::open(const ConnectionSettings& settings,
                                                                   int stop_fd) {
  const auto parsed = parse(settings);
  if (!parsed) return std::unexpected(Fault{parsed.error(), {}, true, {}});
  std::vector<const char*> names, values;
  auto timeout = settings.lock_timeout;
  for (std::size_t i = 0; i < parsed->names.size(); ++i) {
    names.push_back(parsed->names[i].c_str());
    values.push_back(parsed->values[i].c_str());
    if (parsed->names[i] == "connect_timeout") {
      int seconds = 0;
      const auto& text = parsed->values[i];
      std::from_chars(text.data(), text.data() + text.size(), seconds);
      if (seconds > 0) timeout = std::chrono::seconds(seconds);
    }
  }
  names.push_back(nullptr);
  values.push_back(nullptr);

  std::unique_ptr<Connection> connection(
      new Connection(PQconnectStartParams(names.data(), values.data(), 0), settings));
  auto* pg = connection->connection_.get();
  const auto not_connected = [&](Errc code, const std::string& why) {
    return std::unexpected(Fault{Error{code, settings.shown + ": no connection: " + why, {}}, {}, true, {}});
  };
  if (!pg) return not_connected(Errc::connection_failed, "out of memory");
  const auto deadline = steady_clock::now() + timeout;
  PostgresPollingStatusType next = PGRES_POLLING_WRITING;
  while (PQstatus(pg) != CONNECTION_BAD && next != PGRES_POLLING_OK) {
    if (!wait_for(PQsocket(pg), next == PGRES_POLLING_READING ? POLLIN : POLLOUT, deadline, stop_fd)) {
      return steady_clock::now() < deadline
                 ? not_connected(Errc::cancelled, "given up")
                 : not_connected(Errc::timeout, "the server does not answer within " +
                                                    std::to_string(timeout.count()) +
                                                    " ms; is it overloaded, or a firewall in the way?");
    }
    next = PQconnectPoll(pg);
    if (next == PGRES_POLLING_FAILED) break;
  }
  if (PQstatus(pg) != CONNECTION_OK) {
    return not_connected(Errc::connection_failed, one_line(PQerrorMessage(pg)) +
                                                      "; nothing was changed: try again when the server is "
                                                      "there, or correct the URL");
  }
  if (auto failed = connection->set_up()) return std::unexpected(std::move(*failed));
  return connection;
}

std::optional<Fault> Connection::set_up() {
  const auto refuse = [&](std::string why) {
    return Fault{Error{Errc::incompatible, settings_.shown + ": " + std::move(why), {}}, {}, true, {}};
  };
  if (server_version() < 120000) {
    return refuse("the server is PostgreSQL " + std::to_string(server_version() / 10000) +
                  "; 12 or newer is needed");
  }
  PQsetNoticeProcessor(connection_.get(), [](void*, const char*) {}, nullptr);  // else they go to stderr
  if (PQsetnonblocking(connection_.get(), 1) != 0 || PQenterPipelineMode(connection_.get()) != 1) {
    return lost("setting up");
  }
  const auto lock_ms = std::max<std::int64_t>(settings_.lock_timeout.count(), 1);
  Params timeouts;
  timeouts.add(std::to_string(lock_ms)).add(std::to_string(lock_ms * 2));
  std::vector<Call> calls;
  calls.push_back({&session_statement, std::move(timeouts)});
  calls.push_back({&facts_statement, {}});
  const auto before = wall_clock_us();
  auto answer = execute(std::move(calls));
  if (!answer) return std::move(answer.error());
  const auto after = wall_clock_us();
  const auto& facts = (*answer)[1];
  clock_offset_us_ = facts.number(0, 0) - (before + (after - before) / 2);
  fsync_off_ = facts.text(0, 2) == "off";
  if (facts.text(0, 1) != "UTF8") {
    return refuse("the database's encoding is " + std::string(facts.text(0, 1)) +
                  "; items are UTF-8: make one with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0");
  }
  return std::nullopt;
}

bool Connection::usable() {
  if (broken_ || PQstatus(connection_.get()) != CONNECTION_OK) return false;
  pollfd fd{socket(), POLLIN, 0};
  if (::poll(&fd, 1, 0) == 0) return true;
  // Something came unasked: a parameter's new value, or the server's farewell.
  if (PQconsumeInput(connection_.get()) != 1) broken_ = true;
  while (!broken_ && !PQisBusy(connection_.get())) {
    PGresult* result = PQgetResult(connection_.get());
    if (!result) break;
    broken_ = PQresultStatus(result) == PGRES_FATAL_ERROR;
    PQclear(result);
  }
  return !broken_ && PQstatus(connection_.get()) == CONNECTION_OK;
}

std::optional<std::vector<std::string>> Connection::notifications() {
  if (broken_ || PQconsumeInput(connection_.get()) != 1) {
    broken_ = true;
    return std::nullopt;
  }
  std::vector<std::string> payloads;
  while (PGnotify* notify = PQnotifies(connection_.get())) {
    payloads.emplace_back(notify->extra);
    PQfreemem(notify);
  }
  if (payloads.empty() && !usable()) return std::nullopt;
  return payloads;
}

Answer Connection::execute(std::vector<Call> calls) {
  if (broken_) return std::unexpected(lost("using it"));
  const auto deadline = steady_clock::now() + settings_.lock_timeout * 3;
  std::vector<bool> prepares;
  if (auto failed = send(calls, prepares)) return std::unexpected(std::move(*failed));
  if (auto failed = flush(deadline)) return std::unexpected(std::move(*failed));

  std::vector<Rows> rows;
  rows.reserve(calls.size());
  std::optional<Fault> failure;
  const auto lose = [&](Fault lost_failure) -> Answer {
    if (failure)
      lost_failure.error = failure->error;  // what the server said last tells more than its silence
    if (failure) lost_failure.sqlstate = failure->sqlstate;
    lost_failure.done = std::move(rows);
    return std::unexpected(std::move(lost_failure));
  };
  // Each message sent is answered by one result and a null; the sync at the end by one result.
  std::size_t call = 0;
  for (const bool is_prepare : prepares) {
    auto result = next_result(deadline);
    if (!result) return lose(std::move(result.error()));
    if (!*result) return lose(lost("reading an answer"));
    Rows got(*result);
    const auto status = PQresultStatus(*result);
    const bool ok = status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK;
    if (!ok && !failure) failure = fault_of(*result);
    if (is_prepare) {
      if (ok) prepared_.insert(calls[call].statement);
    } else {
      if (ok) rows.push_back(std::move(got));
      ++call;
    }
    auto end = next_result(deadline);
    if (!end) return lose(std::move(end.error()));
    if (*end) {
      PQclear(*end);
      return lose(lost("reading an answer"));
    }
  }
  auto sync = next_result(deadline);
  if (!sync) return lose(std::move(sync.error()));
  const bool synced = *sync && PQresultStatus(*sync) == PGRES_PIPELINE_SYNC;
  PQclear(*sync);
  if (!synced) return lose(lost("reading an answer"));
  if (failure) {
    broken_ = broken_ || failure->connection_lost;
    failure->done = std::move(rows);
    return std::unexpected(std::move(*failure));
  }
  return rows;
}

std::optional<Fault> Connection::send(std::span<const Call> calls, std::vector<bool>& prepares) {
  auto* pg = connection_.get();
  std::unordered_set<const Statement*> sent;
  std::vector<const char*> values;
  std::vector<int> formats;
  char name[32];
  for (const auto& [statement, params] : calls) {
    values.clear();
    for (std::size_t i = 0; i < params.begins_.size(); ++i) {
      values.push_back(params.lengths_[i] < 0 ? nullptr : params.bytes_.data() + params.begins_[i]);
    }
    formats.assign(values.size(), 1);
    const int count = static_cast<int>(values.size());
    bool ok = true;
    if (!statement->prepare) {
      ok = PQsendQueryParams(pg, statement->sql, count, nullptr, values.data(), params.lengths_.data(),
                             formats.data(), 1) == 1;
    } else {
      const auto end =
          std::to_chars(name + 1, name + sizeof name - 1, reinterpret_cast<std::uintptr_t>(statement), 16);
      name[0] = 's';
      *end.ptr = '\0';
      if (!prepared_.contains(statement) && sent.insert(statement).second) {
        ok = PQsendPrepare(pg, name, statement->sql, 0, nullptr) == 1;
        prepares.push_back(true);
      }
      ok = ok && PQsendQueryPrepared(pg, name, count, values.data(), params.lengths_.data(), formats.data(),
                                     1) == 1;
    }
    if (!ok) return lost("sending");
    prepares.push_back(false);
  }
  if (PQpipelineSync(pg) != 1) return lost("sending");
  return std::nullopt;
}

std::optional<Fault> Connection::flush(Deadline deadline) {
  auto* pg = connection_.get();
  for (;;) {
    const int left = PQflush(pg);
    if (left == 0) return std::nullopt;
    if (left < 0) return lost("sending");
    if (!wait_for(PQsocket(pg), POLLIN | POLLOUT, deadline)) {
      auto failure = lost("waiting for the server to take a statement");
      failure.error.code = Errc::timeout;
      return failure;
    }
    if (PQconsumeInput(pg) != 1) return lost("sending");
  }
}

std::expected<PGresult*, Fault> Connection::next_result(Deadline deadline) {
  auto* pg = connection_.get();
  while (PQisBusy(pg)) {
    if (!wait_for(PQsocket(pg), POLLIN, deadline)) {
      auto failure =
          lost("waiting for an answer, for " + std::to_string((settings_.lock_timeout * 3).count()) + " ms");
      failure.error.code = Errc::timeout;
      return std::unexpected(std::move(failure));
    }
    if (PQconsumeInput(pg) != 1) return std::unexpected(lost("waiting for an answer"));
  }
  PGresult* result = PQgetResult(pg);
  if (PQstatus(pg) == CONNECTION_BAD) {
    // The server's own words ("terminating connection due to administrator command"), when it had any.
    auto failure = lost("waiting for an answer");
    if (result && PQresultStatus(result) == PGRES_FATAL_ERROR) {
      const char* state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
      if (state) failure.sqlstate = state;
    }
    PQclear(result);
    return std::unexpected(std::move(failure));
  }
  return result;
}

Fault Connection::lost(std::string_view doing) {
  broken_ = true;
  std::string why = one_line(PQerrorMessage(connection_.get()));
  if (why.empty()) why = "no reason given";
  return {Error{Errc::connection_failed,
                settings_.shown + ": the connection was lost while " + std::string(doing) + ": " + why,
                {}},
          {},
          true,
          {}};
}

Fault Connection::fault_of(const PGresult* result) const {
  const auto field = [&](int code) {
    const char* text = PQresultErrorField(result, code);
    return std::string_view(text ? text : "");
  };
  Fault failure;
  failure.sqlstate = field(PG_DIAG_SQLSTATE);
  const std::string_view state = failure.sqlstate;
  std::string said = one_line(field(PG_DIAG_MESSAGE_PRIMARY));
  if (said.empty()) said = one_line(PQresultErrorMessage(result));
  Errc code = Errc::io_error;
  std::string_view advice = "nothing was changed";
  if (state == "55P03") {
    code = Errc::timeout;
    advice = "another transaction keeps its lock for too long; nothing was changed: try again";
  } else if (state == "57014") {
    code = Errc::timeout;
    advice = "the server took too long; nothing was changed: try again, or with fewer items";
  } else if (state.starts_with("08") || state.starts_with("57P")) {
    code = Errc::connection_failed;
    failure.connection_lost = true;
    advice = "nothing was changed: try again when the server is there";
  } else if (state == "53300") {
    code = Errc::connection_failed;
    advice = "the server has too many connections; raise max_connections or open fewer queues";
  } else if (state == "25006") {
    advice = "the server only reads (a standby?); nothing was changed: name the primary in the URL";
  } else if (state == "42501") {
    advice = "the user lacks the right; grant it, or use another user";
  } else if (state == "22021" || state == "22P05") {
    code = Errc::invalid_item;
    advice = "texts have to be UTF-8 without NUL";
  } else if (state == "42P01" || state == "42703") {
    code = Errc::damaged;
    advice = "the queue's tables are not as they were made; restore them, or open the queue anew";
  } else if (state.starts_with("53")) {
    advice = "the server is out of disk or memory; nothing was changed: make room";
  }
  failure.error = {
      code,
      settings_.shown + ": " + said + " (SQLSTATE " + std::string(state) + "); " + std::string(advice),
      {}};
  return failure;
}

}  // namespace fulmar::queue::postgres
