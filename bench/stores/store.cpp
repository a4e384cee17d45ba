#include "store.hpp"

#include <fmt/format.h>

#include <cstring>

namespace fulmar::bench {

StoredEntry numbered_entry(std::uint64_t number) {
  StoredEntry entry;
  entry.fill(std::byte{'x'});
  std::memcpy(entry.data(), &number, sizeof number);
  return entry;
}

Result<void> check_entry(std::span<const std::byte> entry, std::uint64_t number) {
  std::uint64_t found = 0;
  if (entry.size() == entry_bytes) std::memcpy(&found, entry.data(), sizeof found);
  if (found == number && entry.size() == entry_bytes && entry.back() == std::byte{'x'}) return {};
  return fail(Errc::io_error,
              fmt::format("entry {} came back as {} bytes that say {}", number, entry.size(), found));
}

}  // namespace fulmar::bench
