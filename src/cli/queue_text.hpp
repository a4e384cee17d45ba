#pragma once
// Items, leases and statistics of a queue as text: JSON for programs, tables for people.
// Thread-safety: pure functions.

#include <span>
#include <string>

#include "fulmar/queue_types.hpp"

namespace fulmar::cli {

// One line, with the members of a line of `fulmar queue export`, and "waiting_for" and "dependency_failed" where they say
// something.
std::string item_json(const queue::Item& item);
// {"lease":"ID:TOKEN","until":...}, then the item's members.
std::string lease_json(const queue::Lease& lease);
std::string stats_json(const queue::Stats& stats, const std::string& queue);

// The rows of `fulmar queue list`, the head first; times relative to `now`. Fields keep to their columns; what is last in
// a row (the error, or what it waits for) is cut to fit `columns`, 0 = not cut.
std::vector<std::string> item_table(std::span<const queue::Item> items, queue::Time now, std::size_t columns);
std::vector<std::string> item_sheet(const queue::Item& item, queue::Time now);  // of `show`
std::vector<std::string> stats_sheet(const queue::Stats& stats, const std::string& queue);

// Control characters become '.', so that a payload or an error cannot drive the terminal.
std::string printable(std::string_view text);

}  // namespace fulmar::cli
