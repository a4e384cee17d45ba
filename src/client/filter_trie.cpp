#include "client/filter_trie.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace fulmar {
namespace {

// Takes the next level off `rest`; false when that was the last one.
bool next_level(std::string_view& rest, std::string_view& level) {
  const auto* const slash = static_cast<const char*>(std::memchr(rest.data(), '/', rest.size()));
  if (!slash) {
    level = rest;
    return false;
  }
  const auto size = static_cast<std::size_t>(slash - rest.data());
  level = rest.substr(0, size);
  rest.remove_prefix(size + 1);
  return true;
}

}  // namespace

// Filters are the user's own, so nobody can choose them to collide.
std::uint64_t FilterTrie::hash_of(Index parent, std::string_view level) {
  constexpr std::uint64_t k = 0x9e3779b97f4a7c15;
  std::uint64_t hash = (parent + level.size() * 0x100000001ULL) * k;
  const char* at = level.data();
  std::size_t left = level.size();
  for (; left >= 8; at += 8, left -= 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, at, 8);
    hash = (hash ^ word) * k;
    hash ^= hash >> 32;
  }
  std::uint64_t word = 0;
  if (left >= 4) {
    std::uint32_t low = 0, high = 0;  // they overlap
    std::memcpy(&low, at, 4);
    std::memcpy(&high, at + left - 4, 4);
    word = std::uint64_t{high} << 32 | low;
  } else if (left > 0) {
    const auto byte = [at](std::size_t i) { return std::uint64_t{static_cast<unsigned char>(at[i])}; };
    word = byte(0) | byte(left / 2) << 8 | byte(left - 1) << 16;
  }
  hash = (hash ^ word) * k;
  return hash ^ hash >> 32;
}

FilterTrie::Index FilterTrie::child(Index parent, std::string_view level) const {
  if (table_.empty()) return none;
  const auto hash = hash_of(parent, level);
  const auto mask = table_.size() - 1;
  for (auto i = hash & mask; table_[i] != none; i = (i + 1) & mask) {
    const Node& node = nodes_[table_[i]];
    if (node.hash == hash && node.parent == parent && node.level == level) return table_[i];
  }
  return none;
}

void FilterTrie::link(Index index) {
  if ((linked_ + 1) * 2 > table_.size()) {
    std::vector<Index> old(std::max<std::size_t>(table_.size() * 2, 16), none);
    old.swap(table_);
    linked_ = 0;
    for (const auto one : old) {
      if (one != none) link(one);
    }
  }
  const auto mask = table_.size() - 1;
  auto i = nodes_[index].hash & mask;
  while (table_[i] != none) i = (i + 1) & mask;
  table_[i] = index;
  ++linked_;
}

void FilterTrie::unlink(Index index) {
  const auto mask = table_.size() - 1;
  auto hole = nodes_[index].hash & mask;
  while (table_[hole] != index) hole = (hole + 1) & mask;
  // What probed past the hole moves into it, so that no tombstones are needed.
  for (auto i = (hole + 1) & mask; table_[i] != none; i = (i + 1) & mask) {
    const auto home = nodes_[table_[i]].hash & mask;
    if (((i - home) & mask) >= ((i - hole) & mask)) {
      table_[hole] = table_[i];
      hole = i;
    }
  }
  table_[hole] = none;
  --linked_;
}

FilterTrie::Index FilterTrie::add_child(Index parent, std::string_view level) {
  Index index = 0;
  if (free_.empty()) {
    index = static_cast<Index>(nodes_.size());
    nodes_.emplace_back();
  } else {
    index = free_.back();
    free_.pop_back();
  }
  Node& node = nodes_[index];
  node.parent = parent;
  node.level = level;
  ++nodes_[parent].edges;
  if (level == "+") {
    nodes_[parent].plus = index;
  } else {
    node.hash = hash_of(parent, level);
    link(index);
  }
  return index;
}

FilterTrie::Index FilterTrie::find(std::string_view filter, bool add, bool& ends_with_hash) {
  if (nodes_.empty()) {
    if (!add) return none;
    nodes_.emplace_back();
  }
  Index at = 0;
  for (bool more = true; more;) {
    std::string_view level;
    more = next_level(filter, level);
    ends_with_hash = level == "#";
    if (ends_with_hash) break;
    auto next = level == "+" ? nodes_[at].plus : child(at, level);
    if (next == none) {
      if (!add) return none;
      next = add_child(at, level);
    }
    at = next;
  }
  return at;
}

std::shared_ptr<FilterTrie::Entry> FilterTrie::insert(std::shared_ptr<Entry> entry) {
  bool hash = false;
  const auto at = find(entry->levels(), true, hash);
  auto& entries = hash ? nodes_[at].below : nodes_[at].exact;
  const auto same = std::ranges::find_if(entries, [&](const auto& e) { return e->filter == entry->filter; });
  if (same != entries.end()) return std::exchange(*same, std::move(entry));
  entries.push_back(std::move(entry));
  ++size_;
  return nullptr;
}

bool FilterTrie::remove(const Entry& entry) {
  bool hash = false;
  const auto at = find(entry.levels(), false, hash);
  if (at == none) return false;
  auto& entries = hash ? nodes_[at].below : nodes_[at].exact;
  const auto found = std::ranges::find_if(entries, [&](const auto& e) { return e.get() == &entry; });
  if (found == entries.end()) return false;
  const auto removed = std::move(*found);  // a handler's destructor sees the trie whole
  entries.erase(found);
  --size_;
  prune(at);
  return true;
}

// Takes nodes without entries and children away, up to the root.
void FilterTrie::prune(Index at) {
  while (at != 0 && nodes_[at].edges == 0 && nodes_[at].exact.empty() && nodes_[at].below.empty()) {
    const auto parent = nodes_[at].parent;
    if (nodes_[parent].plus == at) {
      nodes_[parent].plus = none;
    } else {
      unlink(at);
    }
    --nodes_[parent].edges;
    nodes_[at] = Node();
    free_.push_back(at);
    at = parent;
  }
}

void FilterTrie::clear() {
  const auto removed = std::move(nodes_);
  *this = FilterTrie();
}

void FilterTrie::match(std::string_view topic, std::vector<Entry*>& matching) {
  if (size_ == 0) return;
  const auto take = [&](const std::vector<std::shared_ptr<Entry>>& entries) {
    for (const auto& entry : entries) matching.push_back(entry.get());
  };
  here_.assign(1, 0);
  bool wildcards = topic.front() != '$';  // at this level [MQTT-4.7.2-1]
  for (bool more = true; more;) {
    std::string_view level;
    more = next_level(topic, level);
    next_.clear();
    for (const auto at : here_) {
      if (wildcards) {
        take(nodes_[at].below);
        if (nodes_[at].plus != none) next_.push_back(nodes_[at].plus);
      }
      if (const auto next = child(at, level); next != none) next_.push_back(next);
    }
    wildcards = true;
    here_.swap(next_);
    if (here_.empty()) return;
  }
  for (const auto at : here_) {
    take(nodes_[at].exact);
    take(nodes_[at].below);  // `a/#` matches `a` too
  }
}

void captures_of(std::string_view filter, std::string_view topic, std::vector<std::string_view>& captures) {
  captures.clear();
  bool topic_left = true;
  for (bool more = true; more;) {
    std::string_view level;
    more = next_level(filter, level);
    if (level == "#") {
      captures.push_back(topic_left ? topic : std::string_view());
      return;
    }
    std::string_view name;
    topic_left = next_level(topic, name);
    if (level == "+") captures.push_back(name);
  }
}

}  // namespace fulmar
