#pragma once
// What is done with a damaged database: it is found out, moved out of the way, whole, and what can still be read of it is
// carried over.
//
// Thread-safety: one thread; set_aside() and salvage() with the writer's lock.

#include <filesystem>
#include <functional>
#include <span>

#include "queue/repository.hpp"
#include "queue/sqlite_connection.hpp"

namespace fulmar::queue {

// The first thing that is wrong with a database, in SQLite's words; empty = it is sound. Reads all of it. Throws SqliteFailure.
std::string damage_of(SqliteConnection& connection);
// The same for a file, which is not changed. Errors: not_found, io_error.
Result<std::string> find_damage(const std::filesystem::path& path);

// Renames PATH, PATH-wal and PATH-shm to PATH.bad-TIME...; returns the first one's new name.
Result<std::filesystem::path> set_aside(const std::filesystem::path& path);

struct Salvaged {
  std::uint64_t items = 0;  // carried over
  std::uint64_t lost = 0;   // known to have been there, and not readable; of others nothing is known
};
// Reads what is readable, stepping over the rest, and hands it over queue by queue, some at a time. Throws nothing but
// what `take` throws; an error of `take` loses those items and goes on.
Salvaged salvage(const std::filesystem::path& damaged, const Clock& clock,
                 const std::function<Result<void>(std::string_view queue, const Settings& settings,
                                                  std::span<const Item> items)>& take);

}  // namespace fulmar::queue
