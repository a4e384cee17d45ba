#include "client/stored_message.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

namespace fulmar {
namespace {

using std::chrono::duration_cast;
using std::chrono::milliseconds;

// Of the head; all little-endian.
struct Head {
  std::uint8_t kind = 1;   // a message in this layout
  std::uint8_t flags = 0;  // bits 0 and 1: QoS; bit 2: retain
  std::uint16_t topic_size = 0;
  std::uint32_t properties_size = 0;
  std::uint32_t expiry_s = 0;  // message expiry interval, from `accepted_ms` on; 0xffffffff: none
  std::uint32_t reserved = 0;
  std::int64_t accepted_ms = 0;  // wall clock; 0 without an expiry
};
static_assert(sizeof(Head) == StoredMessageParts::head_size);
static_assert(std::endian::native == std::endian::little, "the head is written as it is in memory");

constexpr std::uint8_t retain_flag = 4;

}  // namespace

StoredMessageParts::StoredMessageParts(mqtt::RecordView record, mqtt::Instant now,
                                       std::chrono::system_clock::time_point wall_now) {
  const auto& from = record.header();
  Head to;
  to.flags = static_cast<std::uint8_t>(static_cast<unsigned>(from.qos) | (from.retain ? retain_flag : 0u));
  to.topic_size = from.topic_size;
  to.properties_size = from.properties_size;
  to.expiry_s = from.expiry_s;
  if (from.expiry_s != mqtt::no_expiry) {
    const mqtt::Instant accepted{std::chrono::nanoseconds(from.accepted_ns)};
    const auto at = wall_now - duration_cast<milliseconds>(now - accepted);
    to.accepted_ms = duration_cast<milliseconds>(at.time_since_epoch()).count();
  }
  std::memcpy(head.data(), &to, sizeof to);
  const auto* names = reinterpret_cast<const std::byte*>(record.topic().data());
  parts = {std::span<const std::byte>(head),
           {names, std::size_t{from.topic_size} + from.properties_size},
           record.payload()};
}

std::size_t stored_size(std::size_t topic, std::size_t properties, std::size_t payload) {
  return StoredMessageParts::head_size + topic + properties + payload;
}

std::optional<mqtt::RecordParts> read_stored_message(BytesView entry, mqtt::Instant now,
                                                     std::chrono::system_clock::time_point wall_now) {
  Head from;
  if (entry.size() < sizeof from) return std::nullopt;
  std::memcpy(&from, entry.data(), sizeof from);
  const auto rest = entry.subspan(sizeof from);
  const std::uint64_t names = std::uint64_t{from.topic_size} + from.properties_size;
  if (from.kind != 1 || (from.flags & ~7u) != 0 || (from.flags & 3) == 3 || names > rest.size())
    return std::nullopt;
  mqtt::RecordParts parts;
  parts.topic = {reinterpret_cast<const char*>(rest.data()), from.topic_size};
  parts.properties = rest.subspan(from.topic_size, from.properties_size);
  parts.payload = rest.subspan(static_cast<std::size_t>(names));
  parts.qos = static_cast<QoS>(from.flags & 3);
  parts.retain = (from.flags & retain_flag) != 0;
  parts.expiry_s = from.expiry_s;
  if (from.expiry_s != mqtt::no_expiry) {
    // A wall clock that was set back makes a message no younger than new.
    const std::chrono::system_clock::time_point accepted{milliseconds(from.accepted_ms)};
    const auto age = std::max(wall_now - accepted, std::chrono::system_clock::duration::zero());
    parts.accepted_ns = (now - age).time_since_epoch().count();
  }
  return parts;
}

}  // namespace fulmar
