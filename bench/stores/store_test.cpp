#include "store.hpp"

#include <gtest/gtest.h>

#include "scratch_folder.hpp"

namespace fulmar::bench {
namespace {

TEST(Store, gives_back_what_it_was_given_in_order) {
  for (const auto& kind : {own_store(false), bare_file_store(false)}) {
    const ScratchFolder folder(testing::TempDir());
    const auto store = kind.make();
    ASSERT_TRUE(store->open(folder.path())) << kind.library;
    ASSERT_TRUE(store->append(1, Store::Reach::written));
    ASSERT_TRUE(store->append(600, Store::Reach::synced));
    ASSERT_TRUE(store->append(5, Store::Reach::gathered));
    ASSERT_TRUE(store->sync());
    std::size_t drained = 0;
    for (auto got = store->drain(100, Store::Reach::written);;
         got = store->drain(100, Store::Reach::synced)) {
      ASSERT_TRUE(got) << kind.library << ": " << got.error().message;
      if (*got == 0) break;
      drained += *got;
    }
    EXPECT_EQ(drained, 606u) << kind.library;
  }
}

TEST(Store, that_goes_round_takes_more_than_it_has_room_for) {
  const ScratchFolder folder(testing::TempDir());
  const auto store = bare_file_store(true).make();
  ASSERT_TRUE(store->open(folder.path()));
  for (int i = 0; i < 120; ++i) ASSERT_TRUE(store->append(4096, Store::Reach::written));  // 75 MiB
  EXPECT_LE(std::filesystem::file_size(folder.path() / "bare"), std::uintmax_t{64} << 20);
}

TEST(Store, tells_an_entry_that_is_not_the_one_asked_for) {
  const StoredEntry entry = numbered_entry(7);
  EXPECT_TRUE(check_entry(entry, 7));
  EXPECT_FALSE(check_entry(entry, 8));
  EXPECT_FALSE(check_entry(std::span(entry).first(100), 7));
}

}  // namespace
}  // namespace fulmar::bench
