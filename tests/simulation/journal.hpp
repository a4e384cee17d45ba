#pragma once
// Journal: the last happenings of a simulated world and the first rule that was broken. Notes cost next to nothing; they
// become text only when somebody asks.

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "fulmar/mqtt/record.hpp"

namespace fulmar::simulation {

using mqtt::Instant;

class Journal {
 public:
  static constexpr std::size_t kept = 64;

  // `what` is a literal; its {} stand for a, b and c.
  void note(const char* what, std::uint64_t a = 0, std::uint64_t b = 0, std::uint64_t c = 0) {
    notes_[count_++ % kept] = {now, what, {a, b, c}};
  }
  // Only the first one counts: what comes after a broken rule means nothing.
  void fail(std::string what) {
    if (!failed()) failure_ = std::move(what);
  }
  bool failed() const { return !failure_.empty(); }
  const std::string& failure() const { return failure_; }
  std::string text() const;

  Instant now{};  // virtual time, kept by the world

 private:
  struct Note {
    Instant at{};
    const char* what = "";
    std::array<std::uint64_t, 3> values{};
  };

  std::array<Note, kept> notes_;
  std::uint64_t count_ = 0;
  std::string failure_;
};

}  // namespace fulmar::simulation
