#include "base/ulid.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include "fulmar/envelope.hpp"

namespace fulmar {
namespace {

std::string text(std::uint64_t high, std::uint64_t low) {
  const auto characters = ulid_text(high, low);
  return {characters.data(), characters.size()};
}

TEST(Ulid, is_written_in_crockfords_base_32) {
  EXPECT_EQ(text(0, 0), "00000000000000000000000000");
  EXPECT_EQ(text(~std::uint64_t{0}, ~std::uint64_t{0}), "7ZZZZZZZZZZZZZZZZZZZZZZZZZ");
  EXPECT_EQ(text(1'469'918'176'385ull << 16, 0).substr(0, 10), "01ARYZ6S41");
  EXPECT_EQ(text(0x01563e3ab5d3d676, 0x4c61efb99302bd5b), "01ARZ3NDEKTSV4RRFFQ69G5FAV");
  EXPECT_EQ(text(0, 31), "0000000000000000000000000Z");
  EXPECT_EQ(text(1, 0), "0000000000000G000000000000") << "bit 64";
}

TEST(Ulid, grows_within_a_millisecond_and_carries_into_the_next) {
  UlidSequence sequence;
  const auto at = [](std::uint64_t ms) { return [ms] { return ms; }; };
  std::uint64_t last = sequence.next(at(1'000), 0xffff);
  EXPECT_EQ(last, (1'000ull << 16) | 0x7fff) << "starts in the lower half, so that there is room to count";
  for (int i = 0; i < 100'000; ++i) {
    const auto next = sequence.next(at(1'000), 0);
    ASSERT_EQ(next, last + 1);
    last = next;
  }
  EXPECT_EQ(sequence.next(at(2'000), 5), (2'000ull << 16) | 5);
}

TEST(Ulid, grows_through_a_small_step_back_of_the_clock_and_follows_a_great_one) {
  UlidSequence sequence;
  const auto at = [](std::uint64_t ms) { return [ms] { return ms; }; };
  const auto before = sequence.next(at(10'000'000), 1);
  EXPECT_EQ(sequence.next(at(9'999'500), 1), before + 1);
  const auto an_hour_back = sequence.next(at(6'400'000), 1);
  EXPECT_EQ(an_hour_back >> 16, 6'400'000u);
  EXPECT_GT(sequence.next(at(6'400'000), 1), an_hour_back);
}

TEST(Ulid, of_many_threads_are_all_different_and_each_threads_own_grow) {
  constexpr std::size_t each = 20'000;
  std::vector<std::vector<std::string>> made(4);
  std::vector<std::thread> threads;
  for (auto& mine : made) {
    threads.emplace_back([&mine] {
      for (std::size_t i = 0; i < each; ++i) mine.push_back(new_ulid());
    });
  }
  for (auto& thread : threads) thread.join();
  std::vector<std::string> all;
  for (const auto& mine : made) {
    EXPECT_TRUE(std::ranges::is_sorted(mine));
    all.insert(all.end(), mine.begin(), mine.end());
  }
  std::ranges::sort(all);
  EXPECT_EQ(std::ranges::adjacent_find(all), all.end());
  for (const auto& id : all) {
    ASSERT_EQ(id.size(), 26u);
    ASSERT_EQ(id.find_first_not_of("0123456789ABCDEFGHJKMNPQRSTVWXYZ"), std::string::npos) << id;
  }
}

TEST(Ulid, of_a_forked_child_does_not_repeat_the_parents_random_part) {
  random_bits();  // fills this thread's pool, which the child inherits
  int pipe_ends[2];
  ASSERT_EQ(pipe(pipe_ends), 0);
  const pid_t child = fork();
  if (child == 0) {
    const std::uint64_t bits = random_bits();
    _exit(write(pipe_ends[1], &bits, sizeof bits) == sizeof bits ? 0 : 1);
  }
  const std::uint64_t parents = random_bits();
  std::uint64_t childs = 0;
  EXPECT_EQ(read(pipe_ends[0], &childs, sizeof childs), static_cast<ssize_t>(sizeof childs));
  int status = 0;
  waitpid(child, &status, 0);
  close(pipe_ends[0]);
  close(pipe_ends[1]);
  EXPECT_EQ(status, 0);
  EXPECT_NE(parents, childs);
}

}  // namespace
}  // namespace fulmar
