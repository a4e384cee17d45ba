#include "spool/crc32c.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

namespace fulmar::spool {
namespace {

std::vector<std::byte> bytes_of(std::string_view text) {
  std::vector<std::byte> bytes(text.size());
  std::memcpy(bytes.data(), text.data(), text.size());
  return bytes;
}

// RFC 3720, appendix B.4, and the check value of the catalogue of CRCs.
TEST(Crc32c, gives_the_values_of_the_standard) {
  std::vector<std::byte> ascending(32);
  for (std::size_t i = 0; i < 32; ++i) ascending[i] = std::byte(i);
  for (const auto function : {crc32c, crc32c_portable}) {
    EXPECT_EQ(function(0, bytes_of("123456789")), 0xe3069283u);
    EXPECT_EQ(function(0, std::vector<std::byte>(32)), 0x8a9136aau);
    EXPECT_EQ(function(0, std::vector<std::byte>(32, std::byte{0xff})), 0x62a8ab43u);
    EXPECT_EQ(function(0, ascending), 0x46dd794eu);
    EXPECT_EQ(function(0, {}), 0u);
  }
}

TEST(Crc32c, is_the_same_by_instruction_and_by_table_at_every_length_and_cut) {
  std::mt19937_64 random(1);
  std::vector<std::byte> bytes(300);
  for (auto& byte : bytes) byte = std::byte(random());
  for (std::size_t size = 0; size <= bytes.size(); ++size) {
    const std::span<const std::byte> all(bytes.data(), size);
    const auto whole = crc32c(0, all);
    EXPECT_EQ(whole, crc32c_portable(0, all));
    const std::size_t cut = size ? random() % size : 0;
    EXPECT_EQ(whole, crc32c(crc32c(0, all.first(cut)), all.subspan(cut)));
  }
}

}  // namespace
}  // namespace fulmar::spool
