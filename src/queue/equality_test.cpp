// Any sequence of verbs leaves SQLite and the plain table in the same state, and tells the caller the same.
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <unistd.h>

#include <algorithm>

#include "queue/contract.hpp"
#include "queue/memory_repository.hpp"
#include "queue/sqlite_repository.hpp"
#include "tests/support/temp_dir.hpp"

namespace fulmar::queue {
namespace {

using namespace std::chrono_literals;

// What both said, as text. Ids that they made themselves are told by their order.
class Twin {
  struct Side {
    std::unique_ptr<Repository> store;
    std::vector<ItemId> ids;  // in the order of submission
    std::vector<LeaseKey> leases;
  };

  template <typename Function>
  static auto write(Side& side, Function&& function) {
    return side.store->transact(Access::write, Durability::none, function);
  }

 public:
  explicit Twin(const std::string& path) {
    RepositoryOptions options;
    options.clock = &clock_;
    options.seed = 11;
    table_.store = std::make_unique<MemoryRepository>(options);
    sqlite_.store = *open_repository("sqlite:" + path, options);
    for (auto* side : {&table_, &sqlite_}) {
      Settings settings;
      settings.max_size = 6;
      settings.lease = 10s;
      settings.backoff_min = settings.backoff_max = 1us;  // the only jitter there is: 0 or 1 us
      settings.keep_completed = 30s;
      settings.keep_failed = 60s;
      settings.keep_finished_max = 4;
      (void)write(*side, [&](Operations& op) { return op.set_settings("default", settings); });
    }
  }

  void step() {
    const auto kind = *rc::gen::inRange(0, 12);
    const auto which = *rc::gen::inRange(0, 12);
    const auto number = *rc::gen::inRange(0, 4);
    if (kind == 0) {
      clock_.advance(std::chrono::seconds(which));
      return;
    }
    RC_ASSERT(told(table_, kind, which, number) == told(sqlite_, kind, which, number));
    RC_ASSERT(picture(table_) == picture(sqlite_));
  }

 private:
  static std::string say(const Side& side, const ItemId& id) {
    const auto at = std::ranges::find(side.ids, id);
    return "#" + std::to_string(at - side.ids.begin());
  }
  static std::string say(const Error& error) { return std::string("!") + std::string(to_string(error.code)); }
  static std::string say(const Result<std::vector<Refusal>>& refusals) {
    if (!refusals) return say(refusals.error());
    std::string text;
    for (const auto& refusal : *refusals) text += std::to_string(refusal.index) + say(refusal.error) + " ";
    return text;
  }

  ItemId id_at(const Side& side, int which) {
    return side.ids.empty() ? ItemId("nobody") : side.ids[static_cast<std::size_t>(which) % side.ids.size()];
  }

  std::string told(Side& side, int kind, int which, int number) {
    const ItemId id = id_at(side, which);
    LeaseKey lease{"nobody", 1};
    if (!side.leases.empty()) lease = side.leases[static_cast<std::size_t>(which) % side.leases.size()];
    switch (kind) {
      case 1:
      case 2: {
        std::vector<NewItem> items(static_cast<std::size_t>(number % 2 + 1));
        for (auto& item : items) {
          item.priority = which % 3;
          item.type = which % 2 ? "odd" : "even";
          item.max_retries = 2;
          if (number == 3) item.unique_key = "k" + std::to_string(which % 2);
          if (which == 5) item.scheduled_at = clock_.now() + 3s;
          if (which > 8) item.depends_on = {id};
        }
        const auto submitted = write(side, [&](Operations& op) { return op.submit("default", items); });
        if (!submitted) return say(submitted.error());
        std::string text;
        for (const auto& one : *submitted) {
          if (std::ranges::find(side.ids, one.id) == side.ids.end()) side.ids.push_back(one.id);
          text += say(side, one.id) + (one.created ? "+ " : "= ");
        }
        return text;
      }
      case 3:
      case 4: {
        ClaimRequest request{.worker = "w", .items_max = static_cast<std::size_t>(number + 1)};
        if (which > 9) request.types = {"odd"};
        if (which == 8) request.request_id = "r";
        const auto claimed = write(side, [&](Operations& op) { return op.claim("default", request); });
        if (!claimed) return say(claimed.error());
        std::string text;
        for (const auto& got : claimed->leases) {
          side.leases.push_back(got.key());
          text += say(side, got.item.id) + " ";
        }
        return text;
      }
      case 5: {
        const Completion completion{lease, number == 0 ? "[1]" : ""};
        return say(write(side, [&](Operations& op) { return op.complete({&completion, 1}); }));
      }
      case 6: {
        const Failure failure{lease, "no", std::chrono::seconds(number), number == 3};
        return say(write(side, [&](Operations& op) { return op.fail({&failure, 1}); }));
      }
      case 7: {
        const auto extended = write(side, [&](Operations& op) { return op.extend({&lease, 1}, 5s); });
        return extended ? std::to_string(extended->refusals.size()) : say(extended.error());
      }
      case 8: return say(write(side, [&](Operations& op) { return op.cancel({&id, 1}); }));
      case 9: return say(write(side, [&](Operations& op) { return op.retry({&id, 1}); }));
      case 10: return say(write(side, [&](Operations& op) { return op.remove({&id, 1}); }));
      default: {
        if (number == 0) return say(write(side, [&](Operations& op) { return op.release({&lease, 1}); }));
        if (number == 1) {
          (void)write(side, [&](Operations& op) { return op.set_paused("default", which % 2 == 0); });
          return {};
        }
        const auto upkeep = write(side, [&](Operations& op) { return op.upkeep(); });
        return upkeep ? std::to_string(upkeep->expired) + "/" + std::to_string(upkeep->removed)
                      : say(upkeep.error());
      }
    }
  }

  std::string picture(Side& side) {
    const auto listed = write(side, [](Operations& op) { return op.list("default", {}, {}); });
    if (!listed) return say(listed.error());
    std::string text;
    for (const auto& item : listed->items) {
      text += say(side, item.id) + " " + std::string(to_string(item.status)) + " p" +
              std::to_string(item.priority) + " r" + std::to_string(item.retry_count) + " " + item.type +
              " " + item.error_message + " " + item.result + " " + item.lease_owner + " " + item.unique_key;
      for (const auto& time :
           {std::optional(item.created_at), item.started_at, item.completed_at, item.lease_until}) {
        text += time ? " " + format_time(*time) : " -";
      }
      // Within the jitter.
      text += item.scheduled_at ? " " + std::to_string(item.scheduled_at->time_since_epoch() / 10us) : " -";
      for (const auto& id : item.waiting_for) text += " <" + say(side, id);
      text += item.dependency_failed ? " stuck\n" : "\n";
    }
    const auto stats = write(side, [](Operations& op) { return op.stats("default"); });
    if (!stats) return say(stats.error());
    const auto& counts = stats->counts;
    for (const auto count : {counts.pending, counts.processing, counts.completed, counts.failed,
                             counts.cancelled, stats->scheduled, stats->waiting}) {
      text += std::to_string(count) + " ";
    }
    const auto next = write(side, [](Operations& op) { return op.peek("default", 9); });
    for (const auto& item : *next) {
      text += say(side, item.id) + " ";
    }
    return text;
  }

  ManualClock clock_;
  Side table_, sqlite_;
};

TEST(QueueEquality, sqlite_does_what_the_plain_table_does) {
  // In memory, where that is: a hundred databases are made.
  const auto memory = std::filesystem::path("/dev/shm");
  const test::TempDir on_disk;
  const auto directory = (std::filesystem::is_directory(memory) ? memory : on_disk.path()) /
                         ("fulmar-equality-" + std::to_string(::getpid()));
  std::filesystem::create_directory(directory);
  int runs = 0;
  const bool same = rc::check("sqlite == table", [&] {
    Twin twin((directory / (std::to_string(runs++) + ".db")).string());
    const auto steps = *rc::gen::inRange(1, 60);
    for (int i = 0; i < steps; ++i) twin.step();
  });
  EXPECT_TRUE(same);
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace fulmar::queue
