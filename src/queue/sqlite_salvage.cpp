#include "queue/sqlite_salvage.hpp"

#include <map>
#include <set>
#include <system_error>

#include "queue/sqlite_files.hpp"
#include "queue/sqlite_operations.hpp"

namespace fulmar::queue {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t handed_over_at_once = 256;

// The ids of a table that can be reached from its beginning and from its end: what is damaged hides what lies behind it.
void gather(SqliteConnection& connection, const std::string& table, std::set<std::int64_t>& ids) {
  for (const char* order : {"ASC", "DESC"}) {
    try {
      Statement statement(connection.handle(),
                          "SELECT id FROM " + table + " NOT INDEXED ORDER BY id " + order);
      for (Rows rows(statement); rows.next();) ids.insert(statement.number(0));
    } catch (const SqliteFailure&) {  // as far as it goes
    }
  }
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

Salvaged salvage(
    const fs::path& damaged, const Clock& clock,
    const std::function<Result<void>(std::string_view, const Settings&, std::span<const Item>)>& take) {
  Salvaged result;
  RandomBits random;
  std::map<std::string, std::vector<Item>> waiting;
  std::set<std::int64_t> ids;
  try {
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
    for (const auto id : ids) {
      std::string text;
      try {
        Statement statement(connection.handle(), "SELECT ext FROM item WHERE id=?");
        statement.bind(1, id);
        text = statement.step() && !statement.is_null(0) ? std::string(statement.text(0))
                                                         : id_text(static_cast<std::uint64_t>(id));
      } catch (const SqliteFailure&) {
        continue;
      }
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
  } catch (const SqliteFailure&) {  // not even that: nothing could be read
  }
  result.lost = ids.size() - std::min<std::uint64_t>(result.items, ids.size());
  return result;
}

}  // namespace fulmar::queue
