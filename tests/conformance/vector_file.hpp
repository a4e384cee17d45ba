#pragma once
// The text files in vectors/: packets and conversations byte by byte, with what they mean.
//
// A vector begins in the first column with its name, the protocol versions and who sends it; indented lines follow:
//
//   publish_with_identifier | 3.1.1 5 | client server
//       32 (05)            # comments reach to the end of the line
//       [0001] 'a' 0007    # text in single quotes stands for its bytes
//       ok PUBLISH qos=1 id=7 topic="a" payload=""
//
//   (..)        a variable byte integer that says a length
//   [..]        a two byte length
//   ok TEXT     the packet is accepted and means TEXT (render() in packet_text.hpp)
//   becomes HEX its shortest form, where it is not in that already
//   error RULE REASON   it is refused by this rule (DecodeError), and a 5.0 DISCONNECT tells REASON (hexadecimal)
//
// A conversation (vectors/session.txt) has no sender: its bytes come from the server, to a session that has just been
// connected.
//
//   config KEY=VALUE ...   of the session; `raw`: from CONNECT on, else a plain CONNACK has been taken
//   do ACTION ...          what the session's caller does then
//   event TEXT             the events that must come, in order; received messages are acknowledged at once
//   sends HEX              all that the session must send, CONNECT excepted; nothing when it does not stand there
//   closes                 the session wants its connection closed at the end
//
// Functions throw std::runtime_error with file and line for what they cannot read.

#include <cstdint>
#include <string>
#include <vector>

#include "fulmar/mqtt/codec.hpp"
#include "mqtt/wire_text.hpp"

namespace fulmar::mqtt {

struct LengthField {
  std::size_t at;
  std::size_t size;
  bool variable;
};

struct PacketVector {
  std::string name;
  std::string where;  // file:line
  std::vector<ProtocolVersion> versions;
  std::vector<Sender> senders;
  Bytes wire;
  std::vector<LengthField> lengths;
  DecodeError error = DecodeError::none;
  unsigned reason = 0;
  std::string meaning;
  Bytes shortest;
};

struct Conversation {
  struct Step {
    std::vector<std::string> action;  // empty: none; else `server` is empty
    Bytes server;
  };

  std::string name;
  std::string where;
  std::vector<ProtocolVersion> versions;
  std::vector<std::string> config;
  std::vector<Step> steps;
  std::vector<std::string> events;
  Bytes sends;
  bool closes = false;
};

// All packet vectors of all files, and all conversations; read once.
const std::vector<PacketVector>& packet_vectors();
const std::vector<Conversation>& conversations();

}  // namespace fulmar::mqtt
