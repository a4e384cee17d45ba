#pragma once
// Acknowledgements: which entries are done with: all up to a low-water mark, and any within the 8192 above it. A second
// bitmap marks entries that are released: halfway done, and not to be handed to the other side again as they are.
// Entries that will never be acknowledged, because they are lost or dropped, are skipped, so that the mark can pass them.
//
// Not thread-safe. Constant time but for skip(). Memory: 2 KiB and the ranges skipped (a few).

#include <cstdint>
#include <vector>

#include "spool/format.hpp"

namespace fulmar::spool {

class Acknowledgements {
 public:
  enum class Outcome : std::uint8_t {
    done,
    already,        // was acknowledged before
    beyond_window,  // more than 8192 above the low-water mark: acknowledge older ones first
  };

  Acknowledgements() = default;
  explicit Acknowledgements(const Cursor& cursor);

  Outcome acknowledge(Sequence sequence);
  Outcome release(Sequence sequence);
  void forget_releases() { released_ = {}; }
  // Counts as acknowledged from now on. Returns how many of the sequences from..to were not before.
  std::uint64_t skip(Sequence from, Sequence to);

  bool is_acknowledged(Sequence sequence) const;
  bool is_released(Sequence sequence) const;
  Sequence low() const { return low_; }
  Sequence window_end() const { return low_ + window_entries; }
  Sequence highest() const;  // sequence that anything was said about
  std::uint64_t above_low() const {
    return above_low_;
  }  // sequences above the mark that are acknowledged or skipped

  void store_in(Cursor& cursor) const;

 private:
  struct Range {
    Sequence from, to;
  };

  static bool get(const Cursor::Bitmap& bits, Sequence sequence) {
    return bits[sequence % window_entries / 64] >> (sequence % 64) & 1;
  }
  static void set(Cursor::Bitmap& bits, Sequence sequence) {
    bits[sequence % window_entries / 64] |= std::uint64_t{1} << (sequence % 64);
  }
  static void clear(Cursor::Bitmap& bits, Sequence sequence) {
    bits[sequence % window_entries / 64] &= ~(std::uint64_t{1} << (sequence % 64));
  }
  bool in_window(Sequence sequence) const { return sequence > low_ && sequence <= window_end(); }
  bool skipped(Sequence sequence) const;
  void advance();

  Sequence low_ = 0;
  std::uint64_t above_low_ = 0;
  Cursor::Bitmap acknowledged_{};  // of the window only; everything outside it is 0
  Cursor::Bitmap released_{};
  std::vector<Range> skipped_;  // above low_, ascending and disjoint, no bit of acknowledged_ set within
};

}  // namespace fulmar::spool
