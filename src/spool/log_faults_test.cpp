// What may go wrong below a log, and what must be seen then. A ledger of what was appended, synced and acknowledged is
// kept beside it; after each fault the log is opened again and compared.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "spool/log.hpp"
#include "spool/log_fixture.hpp"
#include "tests/support/sanitizer.hpp"

namespace fulmar::spool::test {
namespace {

using testing::HasSubstr;

constexpr std::uint64_t rounds(std::uint64_t count) { return fulmar::test::sanitized ? count / 20 : count; }

class Ledger {
 public:
  explicit Ledger(std::uint64_t seed) : world(seed), random_(seed) {
    world.options.overflow = Overflow::reject;
    world.options.unsynced_bytes_max = 32 << 10;
  }

  void step() {
    Log& log = *world.log;
    switch (random_() % 20) {
      default: append(random_() % 16 ? 1 + random_() % 300 : random_() % 20'000); break;
      case 10:
      case 11:
      case 12: read(); break;
      case 13:
      case 14: static_cast<void>(log.write()); break;
      case 15:
      case 16: static_cast<void>(log.sync()); break;
      case 17: save(true); break;
      case 18: save(false); break;
      case 19:
        if (random_() % 8 == 0) log.rewind();
        if (log.failing()) static_cast<void>(log.recover());
        break;
    }
    note();
  }

  void append(std::size_t size) {
    const auto text = body(random_(), size);
    if (const auto sequence = world.append(text)) {
      EXPECT_GT(*sequence, last_) << "a sequence was used again";
      last_ = *sequence;
      texts_[*sequence] = text;
    }
  }

  void read() {
    ReadBatch batch(random_() % 2 ? 4096 : 65536);
    if (!world.log->read(batch, world.now_ms)) return;
    for (const auto& entry : batch.entries()) {
      const auto known = texts_.find(entry.sequence);
      ASSERT_TRUE(known != texts_.end()) << "entry " << entry.sequence << " was invented";
      ASSERT_EQ(text_of(entry.bytes), known->second) << "entry " << entry.sequence;
      if (random_() % 4) {
        world.log->acknowledge(entry.sequence);
        acknowledged_.insert(entry.sequence);
      }
    }
  }

  void save(bool synced) {
    if (world.log->save_cursor(synced) && synced) saved_ = acknowledged_;
  }

  void note() {
    synced_ = std::max(synced_, world.log->synced());
    written_ = std::max(written_, world.log->written());
  }

  // The log was closed and opened again in the midst of a fault: what was not synced may be gone.
  void reopened() {
    for (const auto& [sequence, text] : texts_) {
      if (sequence > synced_) doubtful_.insert(sequence);
    }
    saved_.clear();
    last_ = world.log->appended();
    note();
  }

  // After the log was opened again: what must be there is there, in order, and nothing else.
  void verify(bool killed) {
    const auto there = world.drain();
    EXPECT_TRUE(world.ordered);
    for (const auto& [sequence, text] : there) {
      const auto known = texts_.find(sequence);
      ASSERT_TRUE(known != texts_.end()) << "entry " << sequence << " was invented";
      ASSERT_EQ(text, known->second) << "entry " << sequence;
      ASSERT_FALSE(saved_.contains(sequence)) << "entry " << sequence << " came back";
    }
    for (const auto& [sequence, text] : texts_) {
      if (sequence > (killed ? written_ : synced_) || acknowledged_.contains(sequence)) continue;
      if (doubtful_.contains(sequence)) continue;
      ASSERT_TRUE(there.contains(sequence))
          << "entry " << sequence << " of " << synced_ << " synced is lost\n"
          << world.events;
    }
    texts_ = there;
    acknowledged_.clear();
    saved_.clear();
    doubtful_.clear();
    last_ = synced_ = written_ = world.log->synced();
    world.events.clear();
  }

  World world;

 private:
  std::mt19937_64 random_;
  std::map<Sequence, std::string> texts_;
  std::set<Sequence> acknowledged_, saved_, doubtful_;
  Sequence synced_ = 0, written_ = 0, last_ = 0;
};

TEST(LogFaults, P3_power_cuts_keep_what_was_synced_and_invent_nothing) {
  for (std::uint64_t seed = 1; seed <= rounds(2'000) && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    Ledger ledger(seed);
    ASSERT_TRUE(ledger.world.open()) << ledger.world.error;
    ledger.world.files.set_short_writes(seed % 4 == 0);
    for (int cut = 0; cut < 5 && !testing::Test::HasFailure(); ++cut) {
      ledger.world.files.power_off_at(1 + random() % 60);
      for (int i = 0; i < 400 && !ledger.world.files.powered_off(); ++i) ledger.step();
      ledger.world.log.reset();
      ledger.world.files.crash();
      // The power fails again while the log is put in order.
      if (random() % 4 == 0) {
        ledger.world.files.power_off_at(1 + random() % 20);
        static_cast<void>(ledger.world.open());
        ledger.world.log.reset();
        ledger.world.files.crash();
      }
      ASSERT_TRUE(ledger.world.open()) << ledger.world.error;
      ledger.verify(false);
    }
  }
}

TEST(LogFaults, P1_a_killed_process_loses_nothing_that_was_written) {
  for (std::uint64_t seed = 1; seed <= rounds(1'000) && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    Ledger ledger(seed);
    ASSERT_TRUE(ledger.world.open());
    for (int kill = 0; kill < 5 && !testing::Test::HasFailure(); ++kill) {
      for (auto steps = random() % 100; steps > 0; --steps) ledger.step();
      ledger.world.kill();
      ASSERT_TRUE(ledger.world.open()) << ledger.world.error;
      ledger.verify(true);
    }
  }
}

// A life of a log in which every operation of `kind` fails in turn, once or from then on.
void fail_everywhere(Operation kind, int error) {
  for (const bool for_good : {false, true}) {
    for (std::uint64_t nth = 1;; ++nth) {
      SCOPED_TRACE(testing::Message() << "operation " << nth << " of kind " << static_cast<int>(kind)
                                      << (for_good ? " and all that follow" : ""));
      Ledger ledger(nth % 7 + 1);
      World& world = ledger.world;
      ASSERT_TRUE(world.open());
      world.files.fail_at(kind, nth, error, for_good);
      const auto before = world.files.count(kind);
      for (int i = 0; i < 300; ++i) {
        ledger.step();
        if (i % 100 == 99 && world.open()) ledger.reopened();
        if (!world.log) {  // it could not be opened; a person repairs the disk
          world.files.heal();
          ASSERT_TRUE(world.open()) << world.error;
          ledger.reopened();
        }
      }
      const bool happened = world.files.count(kind) >= before + nth;
      world.files.heal();
      if (world.log->failing()) {
        EXPECT_TRUE(world.log->recover()) << world.log->last_error().message;
      }
      ledger.append(100);
      EXPECT_TRUE(world.log->sync()) << "it works again when the disk does";
      ledger.note();
      world.crash();
      ASSERT_TRUE(world.open()) << world.error;
      ledger.verify(false);
      if (!happened || testing::Test::HasFailure() || (fulmar::test::sanitized && nth > 10)) break;
    }
  }
}

TEST(LogFaults, P5_survives_every_write_that_fails) { fail_everywhere(Operation::write, EIO); }
TEST(LogFaults, P5_survives_every_sync_that_fails) { fail_everywhere(Operation::sync_data, EIO); }
TEST(LogFaults, P5_survives_every_sync_of_the_directory_that_fails) {
  fail_everywhere(Operation::sync_directory, EIO);
}
TEST(LogFaults, P5_survives_every_name_that_cannot_be_changed) {
  fail_everywhere(Operation::rename, EROFS);
  fail_everywhere(Operation::remove, EROFS);
}
TEST(LogFaults, P5_survives_having_no_descriptors_left) { fail_everywhere(Operation::open, EMFILE); }
TEST(LogFaults, P4_survives_a_disk_that_is_full_at_every_allocation_and_write) {
  fail_everywhere(Operation::allocate, ENOSPC);
  fail_everywhere(Operation::write, ENOSPC);
}

TEST(LogFaults, P5_gives_no_false_promise_after_a_failed_sync) {
  World world;
  ASSERT_TRUE(world.open());
  ASSERT_TRUE(world.append("one"));
  ASSERT_TRUE(world.log->sync());
  ASSERT_TRUE(world.append("two"));
  world.files.fail_at(Operation::sync_data, 1, EIO, true);
  EXPECT_FALSE(world.log->sync());
  EXPECT_TRUE(world.log->failing());
  EXPECT_EQ(world.log->synced(), 1u);
  EXPECT_EQ(world.append("three").error(), Refusal::failing);
  EXPECT_EQ(world.drain().size(), 2u) << "what is synced is still read, and the other from memory";
  EXPECT_THAT(world.events, HasSubstr("cannot sync /spool/"));
  world.files.heal();
  ASSERT_TRUE(world.log->recover());
  EXPECT_EQ(world.log->synced(), 2u);
  world.crash();
  ASSERT_TRUE(world.open());
  EXPECT_EQ(world.drain().size(), 2u);
}

TEST(LogFaults, P5_what_the_disk_does_not_take_is_read_from_memory_in_its_order) {
  for (const std::uint64_t failing_sync :
       {1u, 2u}) {  // in the first segment, and with something synced before
    World world;
    ASSERT_TRUE(world.open());
    ASSERT_TRUE(world.append("one"));
    if (failing_sync == 2) {
      ASSERT_TRUE(world.log->sync());
    }
    ASSERT_TRUE(world.append("two"));
    ASSERT_TRUE(world.append(body(3, 20'000)));
    world.files.fail_at(Operation::sync_data, 1, EIO, true);
    ASSERT_FALSE(world.log->sync());
    EXPECT_FALSE(world.log->read_to_end());
    ReadBatch batch(4096);
    std::vector<std::string> texts;
    while (world.log->read(batch, world.now_ms) && !batch.empty()) {
      for (const auto& entry : batch.entries()) texts.push_back(text_of(entry.bytes));
    }
    EXPECT_THAT(texts, testing::ElementsAre("one", "two", body(3, 20'000)));
    EXPECT_TRUE(world.log->read_to_end());
    world.log->acknowledge(2);
    world.log->rewind();
    EXPECT_EQ(world.drain().size(), 2u) << "again, without what is acknowledged";
    world.files.heal();
    ASSERT_TRUE(world.log->recover());
    ASSERT_TRUE(world.append("four"));
    const auto more = world.drain();
    ASSERT_EQ(more.size(), 1u) << "nothing twice when it goes on in another file";
    EXPECT_EQ(more.begin()->second, "four");
  }
}

TEST(LogFaults, P5_loses_only_what_cannot_be_read) {
  World world;
  ASSERT_TRUE(world.open());
  for (int i = 0; i < 3'000; ++i) ASSERT_TRUE(world.append(body(i)));
  ASSERT_TRUE(world.log->sync());
  world.files.fail_at(Operation::read, 1, EIO);  // once: read again in smaller pieces
  EXPECT_EQ(world.drain().size(), 3'000u);
  world.log->rewind();
  world.files.fail_at(Operation::read, 1, EIO, true);
  EXPECT_LT(world.drain().size(), 3'000u);
  EXPECT_GT(world.log->stats().lost, 0u);
  world.files.heal();
  EXPECT_TRUE(world.append("on it goes"));
  EXPECT_TRUE(world.log->sync());
}

TEST(LogFaults, P4_a_full_disk_is_full_and_no_more) {
  for (std::uint64_t space = 8 << 10; space < (1 << 20); space += 24'571) {
    SCOPED_TRACE(testing::Message() << "room for " << space << " bytes");
    World world;
    world.options.overflow = Overflow::reject;
    world.files.set_space(space);
    ASSERT_TRUE(world.open()) << world.error;
    Sequence taken = 0;
    for (int i = 0; i < 3'000; ++i) {
      const auto sequence = world.append(body(i, 400));
      world.now_ms += 10;
      if (!sequence) {
        ASSERT_EQ(sequence.error(), Refusal::full) << world.events;
        break;
      }
      taken = *sequence;
    }
    ASSERT_TRUE(world.log->sync());
    EXPECT_EQ(world.drain(true).size(), taken);
    ASSERT_TRUE(world.log->save_cursor(true));
    world.files.set_space(4 << 20);
    world.now_ms += 2'000;
    ASSERT_TRUE(world.append("space again")) << "without a restart";
    ASSERT_TRUE(world.log->sync());
    EXPECT_EQ(world.log->stats().lost, 0u);
    EXPECT_FALSE(world.log->failing());
  }
}

// --- damage

using Files = std::map<std::string, std::vector<std::byte>>;

Files files_of(World& world) {
  Files files;
  for (const auto& name : world.names()) files[name] = *world.files.content("/spool/" + name);
  return files;
}

struct Damaged {
  Files files;
  std::map<Sequence, std::string> entries;  // not acknowledged

  // A log of several segments in which the first entries are acknowledged.
  explicit Damaged(int count = 600) {
    World world;
    EXPECT_TRUE(world.open());
    for (int i = 0; i < count; ++i) EXPECT_TRUE(world.append(body(i, 500)));
    for (Sequence sequence = 1; sequence <= 20; ++sequence) world.log->acknowledge(sequence);
    EXPECT_TRUE(world.log->sync());
    EXPECT_TRUE(world.log->save_cursor(true));
    entries = world.drain();
    world.log.reset();
    files = files_of(world);
  }

  void put_into(World& world) const {
    for (const auto& [name, bytes] : files) world.files.replace("/spool/" + name, bytes);
  }
};

TEST(LogFaults, P6_any_single_byte_changed_loses_at_most_one_entry) {
  const Damaged log(260);
  std::mt19937_64 random(1);
  std::uint64_t tried = 0;
  for (const auto& [name, bytes] : log.files) {
    for (std::size_t at = 0; at < bytes.size(); ++at) {
      const bool telling = at < 512 || bytes.size() - at < 128;
      if (!telling && random() % (fulmar::test::sanitized ? 2'000 : 40)) continue;
      World world;
      log.put_into(world);
      (*world.files.content("/spool/" + name))[at] ^= std::byte(1 + random() % 255);
      world.files.replace("/spool/" + name, *world.files.content("/spool/" + name));
      ASSERT_TRUE(world.open()) << name << " at " << at << ": " << world.error;
      const auto there = world.drain();
      ASSERT_GE(there.size() + 1, log.entries.size()) << name << " at " << at << "\n" << world.events;
      for (const auto& [sequence, text] : there) {
        if (sequence > 20) {
          ASSERT_EQ(log.entries.at(sequence), text) << name << " at " << at;
        }
      }
      ASSERT_TRUE(world.append("more")) << name << " at " << at;
      ++tried;
    }
  }
  EXPECT_GT(tried, 1'000u);
}

bool is_ours(const std::string& name) { return name.ends_with(".seg") || name == "cursor"; }

// Changes some files in one of many ways. True when it made one look as of another version.
bool mutate(Files& files, std::mt19937_64& random) {
  std::vector<std::string> names;
  for (const auto& [name, bytes] : files) {
    if (is_ours(name)) names.push_back(name);
  }
  const auto pick = [&] { return names[random() % names.size()]; };
  auto& bytes = files[pick()];
  switch (random() % 9) {
    case 0:
      if (!bytes.empty()) bytes[random() % bytes.size()] ^= std::byte(1 << random() % 8);
      break;
    case 1: bytes.resize(bytes.empty() ? 0 : random() % bytes.size()); break;
    case 2:
      for (std::size_t at = bytes.empty() ? 0 : random() % bytes.size(), left = random() % 5'000;
           left && at < bytes.size(); ++at, --left) {
        bytes[at] = std::byte(random());
      }
      break;
    case 3: std::swap(bytes, files[pick()]); break;
    case 4: bytes = files[pick()]; break;
    case 5: files.erase(pick()); break;
    case 6: bytes.resize(bytes.size() + random() % 10'000, std::byte(random())); break;
    case 7:
      for (auto at = random() % 100; at + 8 < bytes.size(); at += 512) bytes[at] = std::byte{};
      break;
    default:
      if (bytes.size() > 64 && random() % 4 == 0) {
        for (const auto at : {std::size_t{8}, bytes.size() - 56}) {
          bytes[at] = std::byte{2};
          bytes[at + 2] = std::byte{0xfd};
        }
        return true;
      }
      std::ranges::fill(bytes, std::byte(random()));
      break;
  }
  return false;
}

TEST(LogFaults, P6_any_damage_is_refused_or_set_aside_and_never_delivered) {
  const Damaged log;
  std::uint64_t refused = 0, quarantined = 0;
  for (std::uint64_t seed = 1; seed <= rounds(10'000); ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    Damaged damaged = log;
    bool foreign = false;
    for (auto changes = 1 + random() % 3; changes > 0; --changes) foreign |= mutate(damaged.files, random);
    World world(seed);
    damaged.put_into(world);
    if (!world.open()) {
      ASSERT_TRUE(foreign) << world.error;
      ASSERT_THAT(world.error, HasSubstr("of another version"));
      for (auto& [name, bytes] : files_of(world)) {
        if (is_ours(name)) {
          ASSERT_EQ(bytes, damaged.files[name]) << "touched";
        }
      }
      ++refused;
      continue;
    }
    const auto there = world.drain();
    ASSERT_TRUE(world.ordered);
    for (const auto& [sequence, text] : there) {
      ASSERT_EQ(text, body(sequence - 1, 500)) << "entry " << sequence << " is not what was appended";
    }
    quarantined += world.log->stats().quarantined;
    ASSERT_LE(world.files_ending(".bad"), 8u);
    const auto sequence = world.append("new");
    ASSERT_TRUE(sequence) << world.events;
    ASSERT_TRUE(world.log->sync());
    ASSERT_EQ(world.drain(), (std::map<Sequence, std::string>{{*sequence, "new"}}));
    world.crash();
    ASSERT_TRUE(world.open()) << world.error;
    ASSERT_EQ(world.drain()[*sequence], "new");
  }
  EXPECT_GT(refused, 0u);
  EXPECT_GT(quarantined, 0u);
}

TEST(LogFaults, P6_passes_over_damage_in_the_middle_and_keeps_the_file) {
  World world;
  ASSERT_TRUE(world.open());
  for (int i = 0; i < 600; ++i) ASSERT_TRUE(world.append(body(i, 500)));
  ASSERT_TRUE(world.log->sync());
  auto* first = world.files.content("/spool/0000000000000001.seg");
  ASSERT_TRUE(first);
  std::ranges::fill(std::span(*first).subspan(10'000, 2'000), std::byte{0x55});
  const auto there = world.drain(true);
  const auto lost = world.log->stats().lost;
  EXPECT_EQ(there.size() + lost, 600u);
  EXPECT_GE(lost, 4u);
  EXPECT_LE(lost, 12u);
  EXPECT_THAT(world.events, HasSubstr("entries are lost"));
  ASSERT_TRUE(world.log->save_cursor(true));
  EXPECT_TRUE(world.files.content("/spool/0000000000000001.seg.bad"));
  EXPECT_EQ(world.log->stats().entries, 0u);
}

TEST(LogFaults, P10_opens_as_fast_with_a_million_entries_as_with_a_thousand) {
  const auto cost = [](int entries) {
    World world(1, 1 << 30);
    world.options.unsynced_bytes_max = 4 << 20;
    EXPECT_TRUE(world.open());
    for (int i = 0; i < entries; ++i) EXPECT_TRUE(world.append("twenty bytes of text"));
    for (Sequence sequence = 1; sequence <= 100; ++sequence) world.log->acknowledge(sequence);
    world.log.reset();
    const auto before = world.files.bytes_read();
    EXPECT_TRUE(world.open());
    const auto read = world.files.bytes_read() - before;
    ReadBatch batch;
    EXPECT_TRUE(world.log->read(batch, world.now_ms));
    EXPECT_EQ(batch.entries().front().sequence, 101u);
    EXPECT_EQ(world.log->stats().entries, static_cast<std::uint64_t>(entries) - 100);
    return read;
  };
  const auto segment = Options{}.effective_segment_bytes();
  EXPECT_LE(cost(1'000), segment + 10'000);
  EXPECT_LE(cost(fulmar::test::sanitized ? 200'000 : 1'000'000), segment + 10'000);
}

}  // namespace
}  // namespace fulmar::spool::test
