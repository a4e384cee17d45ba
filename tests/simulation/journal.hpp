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
  static constexpr std::size_t kept = 128;

  // `what` is a literal; its {} stand for a, b and c.
  void note(const char* what, std::uint64_t a = 0, std::uint64_t b = 0, std::uint64_t c = 0) {
    notes_[count_++ % kept] = {now, what, {a, b, c}};
    if (aloud) print(text_of(notes_[(count_ - 1) % kept]));
  }
  // For what is text already, and of use only beside all the rest.
  void say(const std::string& text) const {
    if (aloud) print("  " + text);
  }
  // Only the first one counts: what comes after a broken rule means nothing.
  void fail(std::string what) {
    if (!failed()) failure_ = std::move(what);
  }
  bool failed() const { return !failure_.empty(); }
  const std::string& failure() const { return failure_; }
  std::string text() const;

  Instant now{};       // virtual time, kept by the world
  bool aloud = false;  // everything is printed when it happens

 private:
  struct Note {
    Instant at{};
    const char* what = "";
    std::array<std::uint64_t, 3> values{};
  };

  static std::string text_of(const Note& note);
  static void print(const std::string& line);

  std::array<Note, kept> notes_;
  std::uint64_t count_ = 0;
  std::string failure_;
};

}  // namespace fulmar::simulation
