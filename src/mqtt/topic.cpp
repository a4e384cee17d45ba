#include "fulmar/mqtt/topic.hpp"

#include <algorithm>
#include <cstddef>

#include "mqtt/text_scan.hpp"

namespace fulmar::mqtt {

unsigned scan_unicode(std::string_view text, std::size_t prefix, unsigned traits) {
  const auto* at = reinterpret_cast<const unsigned char*>(text.data()) + prefix;
  const auto* const end = reinterpret_cast<const unsigned char*>(text.data()) + text.size();
  const auto continues = [&at, end](std::ptrdiff_t count) {
    if (end - at <= count) return false;
    for (std::ptrdiff_t i = 1; i <= count; ++i) {
      if ((at[i] & 0xc0) != 0x80) return false;
    }
    return true;
  };
  while (at != end) {
    const unsigned char lead = *at;
    if (lead < 0x80) {
      if (lead == 0) traits |= text_has_null;
      if (lead == '+' || lead == '#') traits |= text_has_wildcard;
      ++at;
    } else if (lead >= 0xc2 && lead <= 0xdf) {
      if (!continues(1)) return traits | text_not_utf8;
      at += 2;
    } else if ((lead & 0xf0) == 0xe0) {
      if (!continues(2)) return traits | text_not_utf8;
      if (lead == 0xe0 && at[1] < 0xa0) return traits | text_not_utf8;   // over-long
      if (lead == 0xed && at[1] >= 0xa0) return traits | text_not_utf8;  // surrogates
      at += 3;
    } else if (lead >= 0xf0 && lead <= 0xf4) {
      if (!continues(3)) return traits | text_not_utf8;
      if (lead == 0xf0 && at[1] < 0x90) return traits | text_not_utf8;   // over-long
      if (lead == 0xf4 && at[1] >= 0x90) return traits | text_not_utf8;  // above U+10FFFF
      at += 4;
    } else {
      return traits | text_not_utf8;
    }
  }
  return traits;
}

bool is_valid_utf8(std::string_view text) { return (scan_text(text) & (text_not_utf8 | text_has_null)) == 0; }

std::string_view to_string(TopicError error) {
  switch (error) {
    case TopicError::none: return "valid";
    case TopicError::empty: return "is empty";
    case TopicError::too_long: return "is longer than 65535 bytes";
    case TopicError::not_utf8: return "is not UTF-8";
    case TopicError::contains_null: return "contains U+0000";
    case TopicError::wildcard_in_name: return "contains a wildcard (+ or #)";
    case TopicError::misplaced_plus: return "has a + that is not alone in its level";
    case TopicError::misplaced_hash: return "has a # that is not alone in the last level";
    case TopicError::bad_share: return "has a $share without a group and a filter";
  }
  return "unknown";
}

namespace {

TopicError check_text(std::string_view text, unsigned& traits) {
  if (text.empty()) return TopicError::empty;
  if (text.size() > 65'535) return TopicError::too_long;
  traits = scan_text(text);
  if (traits & text_not_utf8) return TopicError::not_utf8;
  if (traits & text_has_null) return TopicError::contains_null;
  return TopicError::none;
}

constexpr std::string_view share_prefix = "$share/";

// What stands behind $share/group/, or the filter itself.
std::string_view without_share(std::string_view filter) {
  if (!filter.starts_with(share_prefix)) return filter;
  return filter.substr(filter.find('/', share_prefix.size()) + 1);
}

}  // namespace

TopicError check_topic_name(std::string_view name) {
  unsigned traits = text_plain;
  if (const auto error = check_text(name, traits); error != TopicError::none) return error;
  return traits & text_has_wildcard ? TopicError::wildcard_in_name : TopicError::none;
}

TopicError check_topic_filter(std::string_view filter) {
  unsigned traits = text_plain;
  if (const auto error = check_text(filter, traits); error != TopicError::none) return error;
  if (filter == "$share") return TopicError::bad_share;
  if (filter.starts_with(share_prefix)) {
    const auto group_end = filter.find('/', share_prefix.size());
    if (group_end == std::string_view::npos || group_end == share_prefix.size()) return TopicError::bad_share;
    const auto group = filter.substr(share_prefix.size(), group_end - share_prefix.size());
    if (group.find_first_of("+#") != std::string_view::npos) return TopicError::bad_share;
    filter = filter.substr(group_end + 1);
    if (filter.empty()) return TopicError::bad_share;
  }
  if (!(traits & text_has_wildcard)) return TopicError::none;
  for (std::size_t i = 0; i < filter.size(); ++i) {
    if (filter[i] != '+' && filter[i] != '#') continue;
    const bool level_begins = i == 0 || filter[i - 1] == '/';
    const bool filter_ends = i + 1 == filter.size();
    if (filter[i] == '#' && !(level_begins && filter_ends)) return TopicError::misplaced_hash;
    if (filter[i] == '+' && !(level_begins && (filter_ends || filter[i + 1] == '/'))) {
      return TopicError::misplaced_plus;
    }
  }
  return TopicError::none;
}

bool matches(std::string_view filter, std::string_view name) {
  filter = without_share(filter);
  if (filter.empty() || name.empty()) return false;
  if (name[0] == '$' && (filter[0] == '+' || filter[0] == '#')) return false;
  std::size_t f = 0;
  std::size_t n = 0;
  // Invariant: both stand at the beginning of a level, or the name has just ended (n == name.size() + 1).
  while (true) {
    if (f < filter.size() && filter[f] == '#') return true;
    if (n > name.size()) return false;
    const auto name_end = std::min(name.find('/', n), name.size());
    const auto filter_end = std::min(filter.find('/', f), filter.size());
    const bool plus = filter_end == f + 1 && filter[f] == '+';
    if (!plus && filter.substr(f, filter_end - f) != name.substr(n, name_end - n)) return false;
    if (filter_end == filter.size()) return name_end == name.size();
    f = filter_end + 1;
    n = name_end + 1;
  }
}

}  // namespace fulmar::mqtt
