#include "client/inbound_message.hpp"

#include <cstring>

namespace fulmar {
namespace {

std::byte* put(std::byte* at, const void* bytes, std::size_t size) {
  if (size != 0) std::memcpy(at, bytes, size);
  return at + size;
}

}  // namespace

void InboundMessage::write(std::byte* block, const mqtt::PublishView& message, bool apart,
                           std::uint32_t stamp_us, std::uint16_t link) {
  const auto properties = message.properties.encoded();
  const InboundMessage header{
      .apart = apart ? new std::byte[content_size(message)] : nullptr,
      .payload_size = static_cast<std::uint32_t>(message.payload.size()),
      .properties_size = static_cast<std::uint32_t>(properties.size()),
      .stamp_us = stamp_us,
      .link = link,
      .topic_size = static_cast<std::uint16_t>(message.topic.size()),
      .qos = message.qos,
      .retain = message.retain,
      .dup = message.dup,
  };
  auto* at = put(block, &header, sizeof header);
  if (apart) at = header.apart;
  at = put(at, message.topic.data(), message.topic.size());
  at = put(at, properties.data(), properties.size());
  put(at, message.payload.data(), message.payload.size());
}

InboundMessage InboundMessage::read(std::span<const std::byte> block) {
  InboundMessage header;
  std::memcpy(&header, block.data(), sizeof header);
  return header;
}

Message InboundMessage::message(std::span<const std::byte> block) const {
  const std::byte* const at = apart ? apart : block.data() + sizeof(InboundMessage);
  Message message;
  message.topic = {reinterpret_cast<const char*>(at), topic_size};
  message.properties = mqtt::PropertiesView(BytesView(at + topic_size, properties_size));
  message.payload = BytesView(at + topic_size + properties_size, payload_size);
  message.qos = qos;
  message.retain = retain;
  message.dup = dup;
  return message;
}

}  // namespace fulmar
