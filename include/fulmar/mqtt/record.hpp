#pragma once
// Record: the one representation of an outbound message — in the outbox, in the session's in-flight slots and on disk.
// It is neutral of protocol version: packet identifiers, topic aliases, DUP and the remaining expiry belong to the wire
// and are decided when the message is transmitted.
//
// Layout of a block (8-byte aligned): RecordHeader | topic | properties | payload. With `payload_by_reference` the
// payload part is one aligned pointer to a SharedPayload instead, of which the block owns one reference.
//
// Thread-safety: a block has one owner at a time; SharedPayload counts its owners atomically.

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string_view>

#include "fulmar/mqtt/types.hpp"

namespace fulmar::mqtt {

using Instant = std::chrono::steady_clock::time_point;

inline constexpr std::uint32_t no_expiry = 0xffffffff;

// A payload too large to copy into the outbox; freed with its last owner.
struct SharedPayload {
  std::atomic<std::uint32_t> owners{1};
  std::unique_ptr<std::byte[]> bytes;
  std::size_t size = 0;
  std::atomic<std::size_t>* account = nullptr;  // when set, `size` is taken off it at the end

  void acquire() { owners.fetch_add(1, std::memory_order_relaxed); }
  void release() {
    // acq_rel: the last owner sees all that the others did with the bytes before it frees them.
    if (owners.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    if (account) account->fetch_sub(size, std::memory_order_relaxed);
    delete this;
  }
};

struct RecordHeader {
  std::uint64_t sequence = 0;    // identity of the message; grows in the order of acceptance
  std::uint64_t token = 0;       // the owner's own; comes back in the completion
  std::int64_t accepted_ns = 0;  // steady clock at acceptance; 0 when neither expiry nor age is asked for
  std::uint32_t expiry_s = no_expiry;  // message expiry interval, from acceptance
  std::uint32_t payload_size = 0;
  std::uint32_t properties_size =
      0;  // encoded MQTT 5.0 properties, without message expiry interval and topic alias
  std::uint16_t topic_size = 0;
  QoS qos = QoS::at_most_once;
  bool retain : 1 = false;
  bool payload_by_reference : 1 = false;
  bool write_ahead : 1 = false;  // on disk, and synced, before it is sent
};
static_assert(sizeof(RecordHeader) == 40);

// The parts of a message to be made into a record. All views belong to the caller.
struct RecordParts {
  std::string_view topic;
  BytesView properties;
  BytesView payload;                // ignored when `shared` is set
  SharedPayload* shared = nullptr;  // one reference passes to the record
  QoS qos = QoS::at_most_once;
  bool retain = false;
  bool write_ahead = false;
  std::uint32_t expiry_s = no_expiry;
  std::int64_t accepted_ns = 0;
  std::uint64_t sequence = 0;
  std::uint64_t token = 0;
};

// Reads a block; valid as long as the block is.
class RecordView {
 public:
  RecordView() = default;
  explicit RecordView(const std::byte* block) : block_(block) {}

  const RecordHeader& header() const { return *reinterpret_cast<const RecordHeader*>(block_); }
  std::string_view topic() const {
    return {reinterpret_cast<const char*>(block_ + sizeof(RecordHeader)), header().topic_size};
  }
  BytesView properties() const {
    return {block_ + sizeof(RecordHeader) + header().topic_size, header().properties_size};
  }
  BytesView payload() const {
    if (const auto* shared = shared_payload()) return {shared->bytes.get(), shared->size};
    return {block_ + sizeof(RecordHeader) + header().topic_size + header().properties_size,
            header().payload_size};
  }
  SharedPayload* shared_payload() const {
    if (!header().payload_by_reference) return nullptr;
    SharedPayload* shared = nullptr;
    std::memcpy(static_cast<void*>(&shared),
                block_ + aligned(sizeof(RecordHeader) + header().topic_size + header().properties_size),
                sizeof(SharedPayload*));
    return shared;
  }
  std::size_t block_size() const {
    const auto& h = header();
    return size_for(h.topic_size, h.properties_size, h.payload_size, h.payload_by_reference);
  }
  const std::byte* block() const { return block_; }

  static constexpr std::size_t aligned(std::size_t size) { return (size + 7) & ~std::size_t{7}; }
  static constexpr std::size_t size_for(std::size_t topic, std::size_t properties, std::size_t payload,
                                        bool shared) {
    const std::size_t head = sizeof(RecordHeader) + topic + properties;
    return shared ? aligned(head) + sizeof(SharedPayload*) : aligned(head + payload);
  }
  static std::size_t size_for(const RecordParts& parts) {
    return size_for(parts.topic.size(), parts.properties.size(), parts.payload.size(),
                    parts.shared != nullptr);
  }

 private:
  const std::byte* block_ = nullptr;
};

// Writes a record into `block`, which is 8-byte aligned and has RecordView::size_for(parts) bytes.
inline void write_record(std::byte* block, const RecordParts& parts) {
  auto* header = new (block) RecordHeader;
  header->sequence = parts.sequence;
  header->token = parts.token;
  header->accepted_ns = parts.accepted_ns;
  header->expiry_s = parts.expiry_s;
  header->payload_size = static_cast<std::uint32_t>(parts.shared ? parts.shared->size : parts.payload.size());
  header->properties_size = static_cast<std::uint32_t>(parts.properties.size());
  header->topic_size = static_cast<std::uint16_t>(parts.topic.size());
  header->qos = parts.qos;
  header->retain = parts.retain;
  header->payload_by_reference = parts.shared != nullptr;
  header->write_ahead = parts.write_ahead;
  std::byte* at = block + sizeof(RecordHeader);
  std::memcpy(at, parts.topic.data(), parts.topic.size());
  at += parts.topic.size();
  if (!parts.properties.empty()) std::memcpy(at, parts.properties.data(), parts.properties.size());
  at += parts.properties.size();
  if (parts.shared) {
    at = block + RecordView::aligned(static_cast<std::size_t>(at - block));
    std::memcpy(at, static_cast<const void*>(&parts.shared), sizeof(SharedPayload*));
  } else if (!parts.payload.empty()) {
    std::memcpy(at, parts.payload.data(), parts.payload.size());
  }
}

}  // namespace fulmar::mqtt
