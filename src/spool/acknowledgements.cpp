#include "spool/acknowledgements.hpp"

#include <algorithm>
#include <bit>

namespace fulmar::spool {

Acknowledgements::Acknowledgements(const Cursor& cursor)
    : low_(cursor.low), acknowledged_(cursor.acknowledged), released_(cursor.released) {
  for (const auto word : acknowledged_) above_low_ += static_cast<std::uint64_t>(std::popcount(word));
  advance();
}

Acknowledgements::Outcome Acknowledgements::acknowledge(Sequence sequence) {
  if (is_acknowledged(sequence)) return Outcome::already;
  if (!in_window(sequence)) return Outcome::beyond_window;
  set(acknowledged_, sequence);
  ++above_low_;
  if (sequence == low_ + 1) advance();
  return Outcome::done;
}

Acknowledgements::Outcome Acknowledgements::release(Sequence sequence) {
  if (is_acknowledged(sequence) || is_released(sequence)) return Outcome::already;
  if (!in_window(sequence)) return Outcome::beyond_window;
  set(released_, sequence);
  return Outcome::done;
}

std::uint64_t Acknowledgements::skip(Sequence from, Sequence to) {
  from = std::max(from, low_ + 1);
  if (from > to) return 0;
  std::uint64_t fresh = to - from + 1;
  Range merged{from, to};
  std::erase_if(skipped_, [&](const Range& range) {
    if (range.to + 1 < from || range.from > to + 1) return false;
    const Sequence overlap_from = std::max(range.from, from), overlap_to = std::min(range.to, to);
    if (overlap_from <= overlap_to) fresh -= overlap_to - overlap_from + 1;
    merged = {std::min(merged.from, range.from), std::max(merged.to, range.to)};
    return true;
  });
  for (Sequence sequence = from; sequence <= std::min(to, window_end()); ++sequence) {
    if (!get(acknowledged_, sequence)) continue;
    clear(acknowledged_, sequence);
    --fresh;
  }
  above_low_ += fresh;
  skipped_.insert(std::ranges::lower_bound(skipped_, merged.from, {}, &Range::from), merged);
  advance();
  return fresh;
}

bool Acknowledgements::skipped(Sequence sequence) const {
  const auto after = std::ranges::upper_bound(skipped_, sequence, {}, &Range::from);
  return after != skipped_.begin() && sequence <= std::prev(after)->to;
}

bool Acknowledgements::is_acknowledged(Sequence sequence) const {
  if (sequence <= low_) return true;
  if (in_window(sequence) && get(acknowledged_, sequence)) return true;
  return !skipped_.empty() && skipped(sequence);
}

bool Acknowledgements::is_released(Sequence sequence) const {
  return in_window(sequence) && get(released_, sequence);
}

Sequence Acknowledgements::highest() const {
  Sequence highest = skipped_.empty() ? low_ : skipped_.back().to;
  for (Sequence sequence = window_end(); sequence > std::max(highest, low_); --sequence) {
    if (get(acknowledged_, sequence) || get(released_, sequence)) return sequence;
  }
  return highest;
}

void Acknowledgements::advance() {
  for (;;) {
    const Sequence next = low_ + 1;
    if (get(acknowledged_, next)) {
      clear(acknowledged_, next);
      clear(released_, next);
      low_ = next;
      --above_low_;
    } else if (!skipped_.empty() && skipped_.front().from <= next) {
      const Sequence to = skipped_.front().to;
      skipped_.erase(skipped_.begin());
      above_low_ -= to - low_;
      for (Sequence sequence = next; sequence <= std::min(to, window_end()); ++sequence)
        clear(released_, sequence);
      low_ = to;
    } else {
      return;
    }
  }
}

void Acknowledgements::store_in(Cursor& cursor) const {
  cursor.low = low_;
  cursor.acknowledged = acknowledged_;
  cursor.released = released_;
  for (const auto& range : skipped_) {
    for (Sequence sequence = range.from; sequence <= std::min(range.to, window_end()); ++sequence) {
      set(cursor.acknowledged, sequence);
    }
  }
}

}  // namespace fulmar::spool
