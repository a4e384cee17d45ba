#pragma once
// What SQLite itself says of a database: "ok", or what is wrong with it.

#include <sqlite3.h>

#include <filesystem>
#include <string>

namespace fulmar::test {

inline std::string integrity_of(const std::filesystem::path& path) {
  sqlite3* database = nullptr;
  std::string answer = "cannot open";
  if (sqlite3_open(path.c_str(), &database) == SQLITE_OK) {
    sqlite3_exec(
        database, "PRAGMA integrity_check",
        [](void* text, int, char** values, char**) {
          *static_cast<std::string*>(text) = values[0];
          return 0;
        },
        &answer, nullptr);
  }
  sqlite3_close(database);
  return answer;
}

}  // namespace fulmar::test
