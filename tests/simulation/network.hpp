#pragma once
// The network of a simulated world: connections of two byte pipes. Bytes arrive late, in other pieces than they were
// written, up to the byte where the pipe is cut; or, when a connection is stalled, not at all and without a word.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <deque>
#include <vector>

#include "fulmar/mqtt/record.hpp"
#include "fulmar/mqtt/types.hpp"

namespace fulmar::simulation {

using mqtt::Instant;

class Pipe {
 public:
  void write(BytesView bytes, Instant arrives) {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    last_arrival_ = std::max(last_arrival_, arrives);
    marks_.push_back({last_arrival_, written()});
  }
  // Appends what has arrived, at most `most` bytes, to `out`; returns how much.
  std::size_t read(Instant now, std::size_t most, std::vector<std::byte>& out) {
    const auto count = std::min(most, arrived(now));
    const auto from = bytes_.begin() + static_cast<std::ptrdiff_t>(head_);
    out.insert(out.end(), from, from + static_cast<std::ptrdiff_t>(count));
    head_ += count;
    if (head_ == bytes_.size()) {
      dropped_ += head_;
      bytes_.clear();
      head_ = 0;
    } else if (head_ > 65'536 && head_ > bytes_.size() / 2) {
      bytes_.erase(bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(head_));
      dropped_ += head_;
      head_ = 0;
    }
    while (!marks_.empty() && marks_.front().upto <= dropped_ + head_) marks_.pop_front();
    return count;
  }
  std::size_t arrived(Instant now) const {
    if (stalled) return 0;
    std::uint64_t upto = dropped_ + head_;
    for (const auto& mark : marks_) {
      if (mark.at > now) break;
      upto = mark.upto;
    }
    upto = std::min(upto, cut_at_);
    return static_cast<std::size_t>(std::max(upto, dropped_ + head_) - dropped_ - head_);
  }
  std::size_t under_way() const { return bytes_.size() - head_; }
  // Of what is under way, only the next `bytes` arrive.
  void cut_after(std::size_t bytes) { cut_at_ = std::min(cut_at_, dropped_ + head_ + bytes); }
  bool drained() const { return under_way() == 0 || dropped_ + head_ >= cut_at_; }

  bool stalled = false;

 private:
  struct Mark {
    Instant at;
    std::uint64_t upto;
  };
  std::uint64_t written() const { return dropped_ + bytes_.size(); }

  std::vector<std::byte> bytes_;
  std::size_t head_ = 0;
  std::uint64_t dropped_ = 0;
  std::uint64_t cut_at_ = UINT64_MAX;
  Instant last_arrival_{};
  std::deque<Mark> marks_;
};

// What the server meant by each packet that it wrote, in their order: known to the checks only.
struct Tag {
  std::uint64_t number = 0;   // the message that it belongs to; CONNACK: the server's session
  bool breaks_rules = false;  // the client must end the connection
};

struct Connection {
  std::uint64_t number = 0;
  Pipe up;    // client to server
  Pipe down;  // server to client
  std::deque<Tag> tags;
  bool client_end = true;  // the client has its end open
  bool server_end = true;
  bool connect_seen = false;            // by the server
  std::vector<std::byte> server_input;  // not yet a whole packet
  // The ends see the cut then, when they have read what came before.
  bool cut = false;
  Instant client_sees{};
  Instant server_sees{};
};

}  // namespace fulmar::simulation
