#pragma once
// The messages of a simulated world, both ways, and what has become of each. Topic and payload follow from the number of
// a message, so that every byte can be checked without being kept.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fulmar/mqtt/properties.hpp"
#include "fulmar/mqtt/record.hpp"
#include "fulmar/mqtt/types.hpp"

namespace fulmar::simulation {

struct Content {
  QoS qos = QoS::at_most_once;
  bool retain = false;
  bool with_properties = false;
  std::uint32_t payload_size = 0;
  std::uint32_t topic_filler = 0;  // bytes behind the number in the topic
  std::uint32_t shared_topic =
      0;  // 1 and up: one of a few topics without a number; the payload has 8 bytes at least
};

// From the client to the server. Its number is its sequence, 1 and up.
struct OutMessage {
  Content content;
  std::uint32_t expiry_s = mqtt::no_expiry;
  std::int64_t accepted_ns = 0;

  bool completed = false;     // Completed was made, or take_all() handed it out
  bool acknowledged = false;  // with Outcome::acknowledged
  bool lied = false;          // an acknowledgement that was not meant for it has moved it on
  bool turned_away = false;   // the server has answered it with an error, heard or not
  std::uint32_t delivered = 0;
  std::uint64_t delivered_epoch = 0;  // the server session in which it was delivered last
};

// From the server to the client.
struct InMessage {
  Content content;
  std::uint64_t epoch = 0;  // the server session that it belongs to
  std::uint32_t received = 0;
  bool refused = false;  // the caller acknowledged it with an error, heard or not
};

struct Messages {
  std::vector<OutMessage> out{1};  // [0] is not used
  std::vector<InMessage> in{1};
};

enum class Way : char { out = 'o', in = 'i' };

std::string topic_of(Way way, std::uint64_t number, const Content& content);
// The number in a topic, or in the payload when the topic is shared; 0 when it is none of ours.
std::uint64_t number_of(Way way, std::string_view topic, BytesView payload);
void fill_payload(std::uint64_t number, std::span<std::byte> payload);
bool payload_is(std::uint64_t number, BytesView payload);

// The properties that messages with properties have.
BytesView message_properties();
// Does `properties`, without message expiry, topic alias and subscription identifier, say the same?
bool properties_are(bool with_properties, const mqtt::PropertiesView& properties);

}  // namespace fulmar::simulation
