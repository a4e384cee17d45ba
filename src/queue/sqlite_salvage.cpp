#include "queue/sqlite_salvage.hpp"

#include <algorithm>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <system_error>

#include "queue/sqlite_files.hpp"
#include "queue/sqlite_operations.hpp"

namespace fulmar::queue {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t handed_over_at_once = 256;

// Reads as far as it goes; whether that was to the end.
template <typename Read>
bool read_all(Read&& read) {
  try {
    read();
  } catch (const SqliteFailure&) {
    return false;
  }
  return true;
}

// The id of the first row from `from` on; nothing when there is none behind it. False: damage is in the way.
bool first_from(Statement& statement, std::int64_t from, std::optional<std::int64_t>& id) {
  return read_all([&] { id = statement.bind(1, from).first(); });
}

// The ids of a table, in order; what is damaged is stepped over. A leaf that cannot be read hides the ids between two others:
// the first one behind it is searched, in steps that double and then halve.
void gather(SqliteConnection& connection, const std::string& table, std::set<std::int64_t>& ids) {
  constexpr auto last = std::numeric_limits<std::int64_t>::max();
  read_all([&] {
    Statement all(connection.handle(), "SELECT id FROM " + table + " NOT INDEXED WHERE id>=? ORDER BY id");
    Statement one(connection.handle(),
                  "SELECT id FROM " + table + " NOT INDEXED WHERE id>=? ORDER BY id LIMIT 1");
    for (std::int64_t from = 0;;) {
      const bool complete = read_all([&] {
        all.bind(1, from);
        for (Rows rows(all); rows.next();) {
          ids.insert(all.number(0));
          from = all.number(0) == last ? last : all.number(0) + 1;
        }
      });
      if (complete || from == last) return;
      std::int64_t damaged = from, readable = from;
      std::optional<std::int64_t> next;
      for (std::int64_t step = 1;; step *= 2) {
        if (step > (last - from) / 2) return;  // to the end
        readable = from + step;
        if (first_from(one, readable, next)) break;
        damaged = readable;
      }
      while (readable - damaged > 1) {
        const auto middle = damaged + (readable - damaged) / 2;
        (first_from(one, middle, next) ? readable : damaged) = middle;
      }
      from = readable;
    }
  });
}

}  // namespace

Result<fs::path> set_aside(const fs::path& path) {
  std::string stamp = format_time(system_clock().now());
  std::erase_if(stamp, [](char c) { return c == ':' || c == '-'; });
  const std::string bad = path.string() + ".bad-" + stamp;
  std::error_code error;
  // The WAL first: a database must not meet a WAL that is not its own.
  for (const char* suffix : {"-wal", "-shm", ""}) {
    const std::string from = path.string() + suffix;
    if (!fs::exists(from, error)) continue;
    fs::rename(from, bad + suffix, error);
    if (error) {
      return fail(Errc::io_error,
                  from + ": is damaged and cannot be moved out of the way: " + error.message());
    }
  }
  sync_folder_of(path);
  return fs::path(bad);
}

std::string damage_of(SqliteConnection& connection) {
  std::string found;
  try {
    Statement statement(connection.handle(), "PRAGMA integrity_check(1)");
    for (Rows rows(statement); rows.next();) found = statement.text(0);
  } catch (const SqliteFailure& failure) {
    if (!failure.is_damage()) throw;
    found = failure.message;
  }
  std::ranges::replace(found, '\n', ' ');
  constexpr std::string_view head = "*** in database main *** ";
  if (found.starts_with(head)) found.erase(0, head.size());
  return found == "ok" ? std::string() : found;
}

Result<std::string> find_damage(const fs::path& path) {
  RepositoryOptions looking;
  looking.read_only = true;
  if (auto ok = check_place(path, looking); !ok) return std::unexpected(ok.error());
  try {
    SqliteConnection connection(path, SqliteConnection::Mode::read_only);
    return damage_of(connection);
  } catch (const SqliteFailure& failure) {
    return std::unexpected(to_error(failure, path));
  }
}

Salvaged salvage(
    const fs::path& damaged, const Clock& clock,
    const std::function<Result<void>(std::string_view, const Settings&, std::span<const Item>)>& take) {
  Salvaged result;
  RandomBits random;
  std::map<std::string, std::vector<Item>> waiting;
  std::set<std::int64_t> ids;
  read_all([&] {
    SqliteConnection connection(damaged, SqliteConnection::Mode::read_write);
    SqliteOperations operations(connection, damaged.string(), clock, random, nullptr, 0);
    const auto hand_over = [&](const std::string& queue) {
      auto& items = waiting[queue];
      operations.begin();
      const auto settings = operations.settings(queue).value_or(Settings{});
      if (take(queue, settings, items)) result.items += items.size();
      items.clear();
    };
    gather(connection, "item", ids);
    gather(connection, "body", ids);
    for (const auto id : ids) {
      std::string text;
      const bool there = read_all([&] {
        Statement statement(connection.handle(), "SELECT ext FROM item WHERE id=?");
        statement.bind(1, id);
        text = statement.step() && !statement.is_null(0) ? std::string(statement.text(0))
                                                         : id_text(static_cast<std::uint64_t>(id));
      });
      if (!there) continue;
      operations.begin();
      auto item = operations.get(text);
      if (!item || !validate(*item)) continue;
      auto& items = waiting[item->queue];
      items.push_back(std::move(*item));
      if (items.size() == handed_over_at_once) hand_over(std::string(items.front().queue));
    }
    for (auto& [queue, items] : waiting) {
      if (!items.empty()) hand_over(queue);
    }
  });
  result.lost = ids.size() - std::min<std::uint64_t>(result.items, ids.size());
  return result;
}

}  // namespace fulmar::queue
