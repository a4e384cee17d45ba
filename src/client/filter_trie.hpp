#pragma once
// FilterTrie: which subscriptions match a topic [MQTT5 4.7]. Levels of the filters are the edges of a tree; all edges lie in
// one hash table, so that a step costs one look-up however many filters there are.
//
// Not thread-safe: owned by a dispatch lane. match() allocates nothing in the steady state.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "client/handler_table.hpp"

namespace fulmar {

class FilterTrie {
 public:
  using Entry = HandlerTable::Entry;

  // The entry's filter is valid. An entry of the same filter is replaced, and returned.
  std::shared_ptr<Entry> insert(std::shared_ptr<Entry> entry);
  // Removes this very entry; false when it is not there (any more).
  bool remove(const Entry& entry);
  void clear();

  // Appends every entry whose filter matches `topic`, in no order. The pointers hold until the next change.
  void match(std::string_view topic, std::vector<Entry*>& matching);

  std::size_t size() const { return size_; }
  template <typename Visit>
  void for_each(Visit&& visit) {
    for (auto& node : nodes_) {
      for (auto& entry : node.exact) visit(*entry);
      for (auto& entry : node.below) visit(*entry);
    }
  }

 private:
  using Index = std::uint32_t;  // of a node; 0 is the root
  static constexpr Index none = 0xffffffff;

  struct Node {
    Index parent = none;
    Index plus = none;        // the child `+`
    std::uint32_t edges = 0;  // children, `+` included
    std::uint64_t hash = 0;   // of the edge to this node
    std::string level;        // of that edge
    // Entries whose filters end here, and those that end here with `/#`; more than one with $share.
    std::vector<std::shared_ptr<Entry>> exact, below;
  };

  static std::uint64_t hash_of(Index parent, std::string_view level);
  Index child(Index parent, std::string_view level) const;
  Index add_child(Index parent, std::string_view level);
  void link(Index node);
  void unlink(Index node);
  void prune(Index node);
  // The node where the filter ends, without its `#`; makes the way when `add`.
  Index find(std::string_view filter, bool add, bool& ends_with_hash);

  std::vector<Node> nodes_;
  std::vector<Index> free_;
  std::vector<Index> table_;  // open addressing, a power of two; none = empty
  std::size_t linked_ = 0;
  std::size_t size_ = 0;
  std::vector<Index> here_, next_;  // match(): the nodes that the topic has led to
};

// What the wildcards of `filter` (without $share/group/), which matches `topic`, stand for: see Message::captures().
void captures_of(std::string_view filter, std::string_view topic, std::vector<std::string_view>& captures);

}  // namespace fulmar
