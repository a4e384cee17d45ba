#pragma once
// The files around a database: where one may be, and the mark of a damaged one.
//
// Thread-safety: pure but for the file system.

#include <filesystem>
#include <optional>
#include <string_view>

#include "queue/repository.hpp"

namespace fulmar::queue {

// sqlite:PATH, and sqlite:///PATH as in other URLs.
std::optional<std::filesystem::path> path_of_sqlite_url(std::string_view url);

// May a database be here? Errors: not_found, incompatible (a file that never was one), io_error (no folder, not writable, a network file system, on which the locks that
// everything relies on do not work).
Result<void> check_place(const std::filesystem::path& path, const RepositoryOptions& options);
// The names in the folder are on the medium.
void sync_folder_of(const std::filesystem::path& path);

// SQLite said in the midst of work that the database is damaged: PATH-damaged tells the next one to open it, who looks.
void mark_damage(const std::filesystem::path& path);
bool has_damage_mark(const std::filesystem::path& path);
void clear_damage_mark(const std::filesystem::path& path);

}  // namespace fulmar::queue
