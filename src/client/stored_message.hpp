#pragma once
// StoredMessage: a message as an entry of the spool. docs/spool-format.md has the layout.
//
// Thread-safety: functions of their arguments.

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "fulmar/mqtt/record.hpp"

namespace fulmar {

// The parts of an entry: `head`, then topic, properties and payload as they are in the record.
struct StoredMessageParts {
  static constexpr std::size_t head_size = 24;
  StoredMessageParts(mqtt::RecordView record, mqtt::Instant now,
                     std::chrono::system_clock::time_point wall_now);

  std::array<std::byte, head_size> head{};
  std::array<std::span<const std::byte>, 3> parts{};  // of the whole entry; the first one is `head`
  std::size_t size() const { return parts[0].size() + parts[1].size() + parts[2].size(); }
  StoredMessageParts(const StoredMessageParts&) = delete;
  StoredMessageParts& operator=(const StoredMessageParts&) = delete;
};

// How large the entry of such a message is.
std::size_t stored_size(std::size_t topic, std::size_t properties, std::size_t payload);

// Reads an entry back; the views are into `entry`. sequence, token and shared are for the caller. Nothing when it is none
// that this version knows.
std::optional<mqtt::RecordParts> read_stored_message(BytesView entry, mqtt::Instant now,
                                                     std::chrono::system_clock::time_point wall_now);

}  // namespace fulmar
