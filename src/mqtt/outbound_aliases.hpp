#pragma once
// OutboundAliases: which topics stand under which topic alias on this connection, least recently used first to go.
//
// Invariants
//   1. Never an alias of 0 or above the server's maximum [MQTT-3.3.2-8, MQTT-3.3.2-9].
//   2. Nothing outlives a connection [MQTT-3.3.2-7]: start() forgets all.
//   3. Constant work: at most `count_max` topics, found by a scan over their hashes.
//
// Not thread-safe. Allocates for a topic longer than any before it in its place.

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace fulmar::mqtt {

class OutboundAliases {
 public:
  static constexpr std::uint16_t count_max = 32;
  // A shorter topic takes no more bytes than its alias.
  static constexpr std::size_t topic_size_min = 4;

  struct Use {
    std::uint16_t alias = 0;  // 0 = none
    bool known = false;       // the server knows the topic: it may be left out
  };

  // A new connection; `server_maximum` 0 = the server takes no aliases.
  void start(std::uint16_t server_maximum) {
    const std::size_t count = std::min(server_maximum, count_max);
    hashes_.assign(count, 0);
    last_used_.assign(count, 0);
    topics_.resize(count);
    clock_ = 0;
  }

  // What the next PUBLISH to `topic` would use. Changes nothing: the packet may not be sent after all.
  Use look_up(std::string_view topic) const {
    if (hashes_.empty() || topic.size() < topic_size_min) return {};
    const auto hash = std::hash<std::string_view>{}(topic);
    std::size_t oldest = 0;
    for (std::size_t i = 0; i < hashes_.size(); ++i) {
      if (hashes_[i] == hash && last_used_[i] != 0 && topics_[i] == topic) return {alias_of(i), true};
      if (last_used_[i] < last_used_[oldest]) oldest = i;
    }
    return {alias_of(oldest), false};
  }

  // The PUBLISH to `topic` with `use` leaves now.
  void sent(Use use, std::string_view topic) {
    const std::size_t i = use.alias - std::size_t{1};
    last_used_[i] = ++clock_;
    if (use.known) return;
    hashes_[i] = std::hash<std::string_view>{}(topic);
    topics_[i] = topic;
  }

 private:
  static std::uint16_t alias_of(std::size_t index) { return static_cast<std::uint16_t>(index + 1); }

  std::vector<std::size_t> hashes_;       // all by [alias - 1]
  std::vector<std::uint64_t> last_used_;  // 0 = not mapped
  std::vector<std::string> topics_;
  std::uint64_t clock_ = 0;
};

}  // namespace fulmar::mqtt
