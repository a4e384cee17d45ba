#include "queue/contract.hpp"

#include <gmock/gmock.h>

#include <set>
#include <thread>

namespace fulmar::queue {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(QueueContract);

ItemId QueueContract::submit(NewItem item) {
  return must([&](Operations& op) { return op.submit(queue(), {&item, 1}); }).front().id;
}

std::vector<Lease> QueueContract::claim(std::size_t items_max, std::string worker, Repository* store) {
  ClaimRequest request;
  request.worker = std::move(worker);
  request.items_max = items_max;
  return must([&](Operations& op) { return op.claim(queue(), request); }, store).leases;
}

std::vector<Refusal> QueueContract::complete(const Lease& lease, std::string result) {
  const Completion completion{lease.key(), std::move(result)};
  return must([&](Operations& op) { return op.complete({&completion, 1}); });
}

std::vector<Refusal> QueueContract::fail(const Lease& lease, std::string error,
                                         std::optional<Duration> retry_in) {
  const Failure failure{lease.key(), std::move(error), retry_in, false};
  return must([&](Operations& op) { return op.fail({&failure, 1}); });
}

Item QueueContract::get(const ItemId& id) {
  return must([&](Operations& op) { return op.get(id); });
}

Stats QueueContract::stats() {
  return must([&](Operations& op) { return op.stats(queue()); });
}

namespace {

std::vector<ItemId> ids_of(const std::vector<Lease>& leases) {
  std::vector<ItemId> ids;
  for (const auto& lease : leases) ids.push_back(lease.item.id);
  return ids;
}

std::vector<ItemId> ids_of(const std::vector<Item>& items) {
  std::vector<ItemId> ids;
  for (const auto& item : items) ids.push_back(item.id);
  return ids;
}

NewItem with_id(std::string id, std::vector<ItemId> depends_on = {}) {
  NewItem item;
  item.id = std::move(id);
  item.depends_on = std::move(depends_on);
  return item;
}

NewItem with_priority(int priority) {
  NewItem item;
  item.priority = priority;
  return item;
}

NewItem with_key(std::string key) {
  NewItem item;
  item.unique_key = std::move(key);
  return item;
}

NewItem of_type(std::string type) {
  NewItem item;
  item.type = std::move(type);
  return item;
}

}  // namespace

// --- in, and back -----------------------------------------------------------------------------------------------------

TEST_P(QueueContract, keeps_everything_of_an_item_as_it_was_handed_in) {
  NewItem item;
  item.type = "resize";
  item.payload = R"({"name": "Ünï \"quoted\"\n", "n": [1, 2.5, null, true]})";
  item.priority = -7;
  item.scheduled_at = clock_.now() + 1500001us;
  item.max_retries = 9;
  item.metadata = R"({"by": "me"})";
  item.unique_key = "only: one";
  const auto id = submit(item);
  const auto check = [&] {
    const auto kept = get(id);
    EXPECT_EQ(kept.id, id);
    EXPECT_EQ(kept.queue, queue());
    EXPECT_EQ(kept.type, "resize");
    EXPECT_EQ(kept.payload, item.payload);
    EXPECT_EQ(kept.status, Status::pending);
    EXPECT_EQ(kept.priority, -7);
    EXPECT_EQ(kept.created_at, clock_.now());
    EXPECT_EQ(kept.scheduled_at, item.scheduled_at);
    EXPECT_EQ(kept.started_at, std::nullopt);
    EXPECT_EQ(kept.completed_at, std::nullopt);
    EXPECT_EQ(kept.retry_count, 0);
    EXPECT_EQ(kept.max_retries, 9);
    EXPECT_EQ(kept.error_message, "");
    EXPECT_EQ(kept.metadata, item.metadata);
    EXPECT_EQ(kept.unique_key, item.unique_key);
    EXPECT_EQ(kept.lease_owner, "");
  };
  check();
  if (!place_->survives_closing()) return;
  reopen();
  check();
}

TEST_P(QueueContract, gives_new_items_ids_that_sort_in_the_order_of_submission) {
  std::vector<ItemId> ids;
  for (int i = 0; i < 20; ++i) ids.push_back(submit());
  clock_.advance(1s);
  ids.push_back(submit());
  clock_.step_wall(-1h);
  ids.push_back(submit());
  EXPECT_TRUE(std::ranges::is_sorted(ids));
  EXPECT_THAT(std::set<ItemId>(ids.begin(), ids.end()), SizeIs(22));
}

TEST_P(QueueContract, takes_a_batch_wholly_or_not_at_all) {
  submit(with_id("there"));
  std::vector<NewItem> batch{with_id("a"), with_id("there")};
  EXPECT_EQ(error_of([&](Operations& op) { return op.submit(queue(), batch); }).code, Errc::already_exists);
  EXPECT_EQ(stats().counts.total(), 1u);
  batch = {with_id("a"), with_id("a")};
  EXPECT_EQ(error_of([&](Operations& op) { return op.submit(queue(), batch); }).code, Errc::already_exists);
  batch = {with_id("a"), with_id("b")};
  EXPECT_THAT(must([&](Operations& op) { return op.submit(queue(), batch); }), SizeIs(2));
  EXPECT_EQ(stats().counts.pending, 3u);
}

TEST_P(QueueContract, is_full_at_max_size_counting_live_items_only) {
  Settings settings;
  settings.max_size = 2;
  must([&](Operations& op) { return op.set_settings(queue(), settings); });
  submit();
  submit();
  const NewItem third;
  const auto error = error_of([&](Operations& op) { return op.submit(queue(), {&third, 1}); });
  EXPECT_EQ(error.code, Errc::queue_full);
  EXPECT_THAT(error.message, HasSubstr("max_size 2"));
  const auto leases = claim();
  EXPECT_EQ(error_of([&](Operations& op) { return op.submit(queue(), {&third, 1}); }).code, Errc::queue_full);
  EXPECT_THAT(complete(leases.at(0)), IsEmpty());
  submit();
  EXPECT_EQ(stats().counts.completed, 1u);
}

TEST_P(QueueContract, returns_the_live_item_with_the_same_unique_key) {
  const auto first = submit(with_key("k"));
  const std::vector<NewItem> batch{with_key("k"), with_key("l"), with_key("l")};
  const auto submitted = must([&](Operations& op) { return op.submit(queue(), batch); });
  EXPECT_EQ(submitted[0].id, first);
  EXPECT_FALSE(submitted[0].created);
  EXPECT_TRUE(submitted[1].created);
  EXPECT_FALSE(submitted[2].created);
  EXPECT_EQ(submitted[1].id, submitted[2].id);
  EXPECT_EQ(stats().counts.total(), 2u);
  // Also while it is processed; not when it is done.
  const auto lease = claim().at(0);
  EXPECT_EQ(lease.item.id, first);
  EXPECT_EQ(submit(with_key("k")), first);
  complete(lease);
  EXPECT_NE(submit(with_key("k")), first);
}

TEST_P(QueueContract, keeps_ids_that_it_was_given) {
  EXPECT_EQ(submit(with_id("3f2a9c1e")), "3f2a9c1e");
  EXPECT_EQ(get("3f2a9c1e").id, "3f2a9c1e");
  const auto native = id_text(id_number_at(clock_.now() - 1h, 5));
  EXPECT_EQ(submit(with_id(native)), native);
  EXPECT_EQ(get(native).id, native);
  const auto lease = claim(2);
  EXPECT_THAT(ids_of(lease), ElementsAre("3f2a9c1e", native));
  EXPECT_THAT(complete(lease.at(0)), IsEmpty());
  EXPECT_THAT(complete(lease.at(1)), IsEmpty());
}

TEST_P(QueueContract, says_that_an_id_is_unknown) {
  for (const auto& id : {ItemId("nobody"), id_text(12345), ItemId("'; --")}) {
    const auto error = error_of([&](Operations& op) { return op.get(id); });
    EXPECT_EQ(error.code, Errc::not_found);
    EXPECT_THAT(error.message, HasSubstr(id));
    const auto refusals = must([&](Operations& op) { return op.cancel({&id, 1}); });
    ASSERT_THAT(refusals, SizeIs(1));
    EXPECT_EQ(refusals[0].error.code, Errc::not_found);
  }
}

// --- claims -----------------------------------------------------------------------------------------------------------

TEST_P(QueueContract, claims_by_priority_and_then_in_the_order_of_submission) {
  const auto low = submit(with_priority(1));
  const auto high = submit(with_priority(9));
  const auto high_too = submit(with_priority(9));
  const auto negative = submit(with_priority(-1));
  const auto usual = submit();
  EXPECT_THAT(ids_of(must([&](Operations& op) { return op.peek(queue(), 9); })),
              ElementsAre(high, high_too, low, usual, negative));
  EXPECT_THAT(ids_of(claim(2)), ElementsAre(high, high_too));
  EXPECT_THAT(ids_of(claim(9)), ElementsAre(low, usual, negative));
  EXPECT_THAT(claim(), IsEmpty());
}

TEST_P(QueueContract, a_claim_names_the_worker_the_lease_and_the_time) {
  const auto id = submit();
  clock_.advance(5s);
  const auto leases = claim(1, "me");
  ASSERT_THAT(leases, SizeIs(1));
  EXPECT_EQ(leases[0].item.status, Status::processing);
  EXPECT_EQ(leases[0].item.lease_owner, "me");
  EXPECT_EQ(leases[0].until, clock_.now() + 60s);
  EXPECT_EQ(leases[0].item.lease_until, clock_.now() + 60s);
  EXPECT_EQ(leases[0].item.started_at, clock_.now());
  EXPECT_NE(leases[0].token, 0u);
  EXPECT_EQ(get(id), leases[0].item);
}

TEST_P(QueueContract, does_not_claim_before_the_scheduled_time) {
  NewItem item;
  item.scheduled_at = clock_.now() + 10s;
  const auto id = submit(item);
  ClaimRequest request;
  request.worker = "w";
  auto claimed = must([&](Operations& op) { return op.claim(queue(), request); });
  EXPECT_THAT(claimed.leases, IsEmpty());
  ASSERT_TRUE(claimed.look_again_in);
  EXPECT_LE(*claimed.look_again_in, 10s);
  EXPECT_EQ(stats().scheduled, 1u);
  clock_.advance(10s);
  EXPECT_THAT(must([&](Operations& op) { return op.peek(queue(), 9); }), SizeIs(1));
  EXPECT_EQ(stats().scheduled, 0u);
  EXPECT_THAT(ids_of(claim()), ElementsAre(id));
}

TEST_P(QueueContract, what_was_scheduled_takes_its_place_by_priority_and_submission) {
  NewItem later = with_priority(5);
  later.scheduled_at = clock_.now() + 1s;
  const auto scheduled = submit(later);
  const auto same = submit(with_priority(5));
  const auto higher = submit(with_priority(6));
  clock_.advance(2s);
  EXPECT_THAT(ids_of(claim(9)), ElementsAre(higher, scheduled, same));
}

TEST_P(QueueContract, claims_only_the_types_that_are_wanted) {
  const auto a = submit(of_type("a"));
  const auto b = submit(of_type("b"));
  const auto c = submit(of_type("c"));
  ClaimRequest request{.worker = "w", .items_max = 9, .types = {"c", "b", "unknown"}};
  EXPECT_THAT(ids_of(must([&](Operations& op) { return op.claim(queue(), request); }).leases),
              ElementsAre(b, c));
  EXPECT_THAT(ids_of(claim(9)), ElementsAre(a));
}

TEST_P(QueueContract, the_same_request_of_the_same_worker_gets_the_same_leases) {
  submit();
  const auto other = submit();
  ClaimRequest request{.worker = "w", .request_id = "r1"};
  const auto ask = [&] { return must([&](Operations& op) { return op.claim(queue(), request); }).leases; };
  const auto first = ask();
  ASSERT_THAT(first, SizeIs(1));
  if (place_->survives_closing()) {
    request.tied_to_process = false;
  }
  const auto again = ask();
  ASSERT_THAT(again, SizeIs(1));
  EXPECT_EQ(again[0].token, first[0].token);
  EXPECT_EQ(again[0].item.id, first[0].item.id);
  EXPECT_THAT(complete(again[0]), IsEmpty());
  EXPECT_THAT(ids_of(ask()), ElementsAre(other));
  request.request_id = "r2";
  EXPECT_THAT(ask(), IsEmpty());
}

TEST_P(QueueContract, hundred_claims_of_one_item_at_the_same_moment_have_one_winner) {
  submit();
  std::atomic<int> winners = 0, errors = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 20; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 5; ++n) {
        ClaimRequest request{.worker = "w"};
        auto claimed = store_->transact(Access::write, Durability::none,
                                        [&](Operations& op) { return op.claim(queue(), request); });
        if (!claimed)
          ++errors;
        else
          winners += static_cast<int>(claimed->leases.size());
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(winners, 1);
  EXPECT_EQ(errors, 0);
}

TEST_P(QueueContract, threads_that_submit_claim_and_complete_do_each_item_once) {
  constexpr int threads_count = 4, each = 50;
  std::mutex mutex;
  std::multiset<ItemId> done;
  std::atomic<int> errors = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < threads_count; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < each; ++i) {
        const NewItem item = with_priority(i % 3);
        if (!store_->transact(Access::write, Durability::none,
                              [&](Operations& op) { return op.submit(queue(), {&item, 1}); })) {
          ++errors;
        }
        ClaimRequest request{.worker = "w" + std::to_string(t), .items_max = 3};
        auto claimed = store_->transact(Access::write, Durability::none,
                                        [&](Operations& op) { return op.claim(queue(), request); });
        if (!claimed) {
          ++errors;
          continue;
        }
        for (const auto& lease : claimed->leases) {
          const Completion completion{lease.key(), {}};
          auto refused = store_->transact(Access::write, Durability::none,
                                          [&](Operations& op) { return op.complete({&completion, 1}); });
          if (!refused || !refused->empty()) ++errors;
          const std::lock_guard lock(mutex);
          done.insert(lease.item.id);
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(errors, 0);
  for (const auto& lease : claim(1000)) {
    done.insert(lease.item.id);
    complete(lease);
  }
  EXPECT_EQ(done.size(), threads_count * each);
  EXPECT_THAT(std::set<ItemId>(done.begin(), done.end()), SizeIs(threads_count * each));
  EXPECT_EQ(stats().counts.completed, threads_count * each);
}

TEST_P(QueueContract, a_paused_queue_gives_nothing_and_takes_everything) {
  submit();
  const auto lease = claim().at(0);
  must([&](Operations& op) { return op.set_paused(queue(), true); });
  submit();
  EXPECT_THAT(claim(), IsEmpty());
  EXPECT_THAT(must([&](Operations& op) { return op.peek(queue(), 1); }), IsEmpty());
  EXPECT_TRUE(stats().paused);
  EXPECT_THAT(complete(lease), IsEmpty());
  if (place_->survives_closing()) reopen();
  EXPECT_TRUE(must([&](Operations& op) { return op.paused(queue()); }));
  must([&](Operations& op) { return op.set_paused(queue(), false); });
  EXPECT_THAT(claim(), SizeIs(1));
}

// --- attempts ---------------------------------------------------------------------------------------------------------

TEST_P(QueueContract, completes_with_a_result) {
  const auto id = submit();
  const auto lease = claim().at(0);
  clock_.advance(2s);
  EXPECT_THAT(complete(lease, R"({"ok":true})"), IsEmpty());
  const auto item = get(id);
  EXPECT_EQ(item.status, Status::completed);
  EXPECT_EQ(item.completed_at, clock_.now());
  EXPECT_EQ(item.started_at, clock_.now() - 2s);
  EXPECT_EQ(item.result, R"({"ok":true})");
  EXPECT_EQ(item.retry_count, 0);
  EXPECT_EQ(item.lease_owner, "");
  EXPECT_EQ(item.lease_until, std::nullopt);
  EXPECT_THAT(claim(), IsEmpty());
}

TEST_P(QueueContract, a_failed_attempt_comes_back_later_and_the_last_one_is_a_dead_letter) {
  const auto id = submit();
  fail(claim().at(0), "no luck");
  auto item = get(id);
  EXPECT_EQ(item.status, Status::pending);
  EXPECT_EQ(item.retry_count, 1);
  EXPECT_EQ(item.error_message, "no luck");
  ASSERT_TRUE(item.scheduled_at);
  EXPECT_GE(*item.scheduled_at, clock_.now() + 500ms);
  EXPECT_LE(*item.scheduled_at, clock_.now() + 1s);
  EXPECT_THAT(claim(), IsEmpty()) << "no delay on retry";
  clock_.advance(1s);
  fail(claim().at(0), "again", 7s);
  item = get(id);
  EXPECT_EQ(item.retry_count, 2);
  EXPECT_EQ(item.scheduled_at, clock_.now() + 7s);
  clock_.advance(7s);
  fail(claim().at(0), "the end");
  item = get(id);
  EXPECT_EQ(item.status, Status::failed);
  EXPECT_EQ(item.retry_count, 3);
  EXPECT_EQ(item.error_message, "the end");
  EXPECT_EQ(item.completed_at, clock_.now());
  clock_.advance(24h);
  EXPECT_THAT(claim(), IsEmpty());
  EXPECT_EQ(stats().counts.failed, 1u);
}

TEST_P(QueueContract, fails_for_good_when_told) {
  const auto id = submit();
  const Failure failure{claim().at(0).key(), "hopeless", {}, true};
  must([&](Operations& op) { return op.fail({&failure, 1}); });
  EXPECT_EQ(get(id).status, Status::failed);
}

TEST_P(QueueContract, an_expired_lease_counts_an_attempt_and_the_item_comes_back) {
  const auto id = submit();
  const auto lost = claim().at(0);
  clock_.advance(59s);
  EXPECT_THAT(claim(), IsEmpty());
  clock_.advance(1s);
  const auto next = claim().at(0);
  const auto item = get(id);
  EXPECT_EQ(item.status, Status::processing);
  EXPECT_EQ(item.retry_count, 1);
  EXPECT_EQ(item.error_message, "lease expired");
  EXPECT_EQ(item.started_at, clock_.now());
  EXPECT_NE(next.token, lost.token);
  const auto refusals = complete(lost);
  ASSERT_THAT(refusals, SizeIs(1));
  EXPECT_EQ(refusals[0].error.code, Errc::lease_lost);
  EXPECT_THAT(complete(next), IsEmpty());
}

TEST_P(QueueContract, an_item_whose_leases_all_expire_becomes_a_dead_letter) {
  const auto id = submit();
  for (int i = 0; i < 3; ++i) {
    ASSERT_THAT(claim(), SizeIs(1)) << i;
    clock_.advance(60s);
    EXPECT_EQ(must([&](Operations& op) { return op.upkeep(); }).expired, 1u);
    EXPECT_NE(get(id).status, Status::processing);
  }
  EXPECT_THAT(claim(), IsEmpty());
  EXPECT_EQ(get(id).status, Status::failed);
  EXPECT_EQ(get(id).error_message, "lease expired");
}

TEST_P(QueueContract, an_extended_lease_lasts) {
  submit();
  const auto lease = claim().at(0);
  clock_.advance(50s);
  const auto key = lease.key();
  const auto extended = must([&](Operations& op) { return op.extend({&key, 1}, 60s); });
  EXPECT_THAT(extended.refusals, IsEmpty());
  EXPECT_EQ(extended.until, clock_.now() + 60s);
  clock_.advance(50s);
  EXPECT_THAT(claim(), IsEmpty());
  EXPECT_EQ(get(lease.item.id).status, Status::processing);
  EXPECT_THAT(complete(lease), IsEmpty());
}

TEST_P(QueueContract, needs_the_token_of_the_claim) {
  const auto id = submit();
  auto lease = claim().at(0);
  lease.token ^= 1;
  EXPECT_EQ(complete(lease).at(0).error.code, Errc::lease_lost);
  EXPECT_EQ(fail(lease, "x").at(0).error.code, Errc::lease_lost);
  const auto key = lease.key();
  EXPECT_EQ(must([&](Operations& op) { return op.extend({&key, 1}, 1s); }).refusals.at(0).error.code,
            Errc::lease_lost);
  EXPECT_EQ(must([&](Operations& op) { return op.release({&key, 1}); }).at(0).error.code, Errc::lease_lost);
  EXPECT_EQ(get(id).status, Status::processing);
  lease.token ^= 1;
  EXPECT_THAT(complete(lease), IsEmpty());
}

TEST_P(QueueContract, what_is_released_is_claimable_at_once_without_an_attempt_counted) {
  const auto id = submit();
  const auto key = claim().at(0).key();
  EXPECT_THAT(must([&](Operations& op) { return op.release({&key, 1}); }), IsEmpty());
  EXPECT_EQ(get(id).retry_count, 0);
  EXPECT_THAT(ids_of(claim()), ElementsAre(id));
}

TEST_P(QueueContract, a_batch_does_what_it_can_and_names_the_rest) {
  submit();
  submit();
  const auto leases = claim(2);
  const std::vector<Completion> completions{
      {leases[0].key(), {}}, {{"nobody", 1}, {}}, {leases[1].key(), {}}};
  const auto refusals = must([&](Operations& op) { return op.complete(completions); });
  ASSERT_THAT(refusals, SizeIs(1));
  EXPECT_EQ(refusals[0].index, 1u);
  EXPECT_EQ(refusals[0].error.code, Errc::not_found);
  EXPECT_EQ(stats().counts.completed, 2u);
}

TEST_P(QueueContract, a_step_of_the_wall_clock_back_and_time_that_passes_end_a_lease) {
  submit();
  ASSERT_THAT(claim(), SizeIs(1));
  clock_.step_wall(-30min);
  clock_.advance(31min);
  EXPECT_THAT(claim(), SizeIs(1));
}

// --- transitions ------------------------------------------------------------------------------------------------------

TEST_P(QueueContract, refuses_illegal_transitions_and_names_both_states) {
  const auto done = submit();
  auto lease = claim().at(0);
  complete(lease);
  const auto pending = submit();

  auto refused = complete(lease);
  EXPECT_EQ(refused.at(0).error.code, Errc::illegal_transition);
  EXPECT_THAT(refused.at(0).error.message, HasSubstr("completed -> completed"));
  EXPECT_THAT(fail(lease, "x").at(0).error.message, HasSubstr("completed -> failed"));
  const auto by_id = [&](auto verb, const ItemId& id) {
    return must([&](Operations& op) { return (op.*verb)({&id, 1}); });
  };
  EXPECT_THAT(by_id(&Operations::cancel, done).at(0).error.message, HasSubstr("completed -> cancelled"));
  EXPECT_THAT(by_id(&Operations::retry, done).at(0).error.message, HasSubstr("completed -> pending"));
  EXPECT_THAT(by_id(&Operations::retry, pending).at(0).error.message, HasSubstr("pending -> pending"));
  lease.item.id = pending;
  EXPECT_THAT(complete(lease).at(0).error.message, HasSubstr("pending -> completed"));
  lease = claim().at(0);
  EXPECT_THAT(by_id(&Operations::remove, pending).at(0).error.message, HasSubstr("processing -> removed"));
  EXPECT_EQ(get(done).status, Status::completed);
  EXPECT_EQ(get(pending).status, Status::processing);
}

TEST_P(QueueContract, cancels_what_is_pending_or_processing_and_retries_it) {
  const auto a = submit();
  const auto b = submit();
  const auto lease = claim().at(0);
  for (const auto& id : {a, b}) {
    EXPECT_THAT(must([&](Operations& op) { return op.cancel({&id, 1}); }), IsEmpty());
    EXPECT_EQ(get(id).status, Status::cancelled);
    EXPECT_EQ(get(id).completed_at, clock_.now());
  }
  EXPECT_THAT(complete(lease), SizeIs(1)) << "it was taken away";
  EXPECT_THAT(claim(), IsEmpty());
  EXPECT_THAT(must([&](Operations& op) { return op.retry({&a, 1}); }), IsEmpty());
  EXPECT_EQ(get(a).completed_at, std::nullopt);
  EXPECT_THAT(ids_of(claim()), ElementsAre(a));
}

TEST_P(QueueContract, a_retried_dead_letter_has_all_its_attempts_again) {
  NewItem item;
  item.max_retries = 2;
  const auto id = submit(item);
  fail(claim().at(0), "x", 0s);
  fail(claim().at(0), "y", 0s);
  ASSERT_EQ(get(id).status, Status::failed);
  must([&](Operations& op) { return op.retry({&id, 1}); });
  EXPECT_EQ(get(id).retry_count, 0);
  EXPECT_EQ(get(id).scheduled_at, std::nullopt);
  fail(claim().at(0), "z", 0s);
  EXPECT_EQ(get(id).status, Status::pending);
}

TEST_P(QueueContract, does_not_retry_into_a_taken_unique_key_or_a_full_queue) {
  const auto first = submit(with_key("k"));
  must([&](Operations& op) { return op.cancel({&first, 1}); });
  const auto second = submit(with_key("k"));
  auto refused = must([&](Operations& op) { return op.retry({&first, 1}); });
  ASSERT_THAT(refused, SizeIs(1));
  EXPECT_EQ(refused[0].error.code, Errc::already_exists);
  EXPECT_THAT(refused[0].error.message, HasSubstr(second));
  Settings settings;
  settings.max_size = 1;
  must([&](Operations& op) { return op.set_settings(queue(), settings); });
  must([&](Operations& op) { return op.cancel({&second, 1}); });
  submit();
  refused = must([&](Operations& op) { return op.retry({&second, 1}); });
  ASSERT_THAT(refused, SizeIs(1));
  EXPECT_EQ(refused[0].error.code, Errc::queue_full);
}

// --- dependencies -----------------------------------------------------------------------------------------------------

TEST_P(QueueContract, claims_an_item_only_when_what_it_depends_on_is_completed) {
  const std::vector<NewItem> batch{with_id("c", {"a", "b"}), with_id("a"), with_id("b")};
  must([&](Operations& op) { return op.submit(queue(), batch); });
  EXPECT_THAT(get("c").waiting_for, ElementsAre("a", "b"));
  EXPECT_EQ(stats().waiting, 1u);
  const auto leases = claim(9);
  EXPECT_THAT(ids_of(leases), ElementsAre("a", "b"));
  complete(leases[0]);
  EXPECT_THAT(get("c").waiting_for, ElementsAre("b"));
  EXPECT_THAT(claim(), IsEmpty());
  complete(leases[1]);
  EXPECT_THAT(get("c").waiting_for, IsEmpty());
  EXPECT_THAT(get("c").depends_on, ElementsAre("a", "b"));
  EXPECT_EQ(stats().waiting, 0u);
  EXPECT_THAT(ids_of(claim()), ElementsAre("c"));
  // What is completed already is not waited for.
  submit(with_id("d", {"a"}));
  EXPECT_THAT(ids_of(claim()), ElementsAre("d"));
}

TEST_P(QueueContract, a_failed_dependency_is_visible_and_waited_for) {
  submit(with_id("a"));
  submit(with_id("b", {"a"}));
  EXPECT_FALSE(get("b").dependency_failed);
  const Failure failure{claim().at(0).key(), "x", {}, true};
  must([&](Operations& op) { return op.fail({&failure, 1}); });
  EXPECT_TRUE(get("b").dependency_failed);
  EXPECT_THAT(claim(), IsEmpty());
  Filter filter;
  filter.only_waiting_for_dependencies = true;
  EXPECT_THAT(ids_of(must([&](Operations& op) { return op.list(queue(), filter, {}); }).items),
              ElementsAre("b"));
  const ItemId a = "a";
  must([&](Operations& op) { return op.retry({&a, 1}); });
  complete(claim().at(0));
  EXPECT_THAT(ids_of(claim()), ElementsAre("b"));
}

TEST_P(QueueContract, refuses_a_cycle_with_its_path) {
  std::vector<NewItem> batch{with_id("A", {"B"}), with_id("B", {"A"})};
  const auto error = error_of([&](Operations& op) { return op.submit(queue(), batch); });
  EXPECT_EQ(error.code, Errc::invalid_item);
  EXPECT_THAT(error.message, HasSubstr("A -> B -> A"));
  batch = {with_id("A", {"C"}), with_id("B", {"A"}), with_id("C", {"B"})};
  EXPECT_THAT(error_of([&](Operations& op) { return op.submit(queue(), batch); }).message,
              HasSubstr("A -> C -> B -> A"));
  EXPECT_EQ(stats().counts.total(), 0u);
}

TEST_P(QueueContract, refuses_a_dependency_that_nobody_knows) {
  const auto item = with_id("a", {"typo"});
  const auto error = error_of([&](Operations& op) { return op.submit(queue(), {&item, 1}); });
  EXPECT_EQ(error.code, Errc::not_found);
  EXPECT_THAT(error.message, HasSubstr("typo"));
}

TEST_P(QueueContract, does_not_remove_what_others_depend_on) {
  submit(with_id("a"));
  submit(with_id("b", {"a"}));
  const ItemId a = "a", b = "b";
  EXPECT_EQ(must([&](Operations& op) { return op.remove({&a, 1}); }).at(0).error.code,
            Errc::illegal_transition);
  complete(claim().at(0));
  EXPECT_THAT(must([&](Operations& op) { return op.remove({&a, 1}); }), SizeIs(1));
  complete(claim().at(0));
  EXPECT_THAT(must([&](Operations& op) { return op.remove({&a, 1}); }), IsEmpty());
  EXPECT_THAT(must([&](Operations& op) { return op.remove({&b, 1}); }), IsEmpty());
  EXPECT_EQ(stats().counts.total(), 0u);
}

// --- transactions -----------------------------------------------------------------------------------------------------

TEST_P(QueueContract, a_transaction_that_fails_has_changed_nothing) {
  const auto kept = submit();
  const auto lease = claim().at(0);
  const auto result =
      store_->transact(Access::write_alone, Durability::commit, [&](Operations& op) -> Result<void> {
        const NewItem item;
        EXPECT_TRUE(op.submit(queue(), {&item, 1}));
        const Completion completion{lease.key(), {}};
        EXPECT_TRUE(op.complete({&completion, 1}));
        EXPECT_EQ(op.get(kept)->status, Status::completed);
        return fulmar::fail(Errc::cancelled, "I have changed my mind");
      });
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().message, "I have changed my mind");
  EXPECT_EQ(get(kept).status, Status::processing);
  EXPECT_EQ(stats().counts.total(), 1u);
  EXPECT_THAT(complete(lease), IsEmpty());
}

TEST_P(QueueContract, a_verb_that_fails_within_a_transaction_leaves_the_rest_of_it) {
  must([&](Operations& op) -> Result<void> {
    const std::vector<NewItem> good{with_id("a")};
    EXPECT_TRUE(op.submit(queue(), good));
    const std::vector<NewItem> bad{with_id("b"), with_id("a")};
    EXPECT_FALSE(op.submit(queue(), bad));
    return {};
  });
  EXPECT_EQ(stats().counts.total(), 1u);
  EXPECT_EQ(get("a").status, Status::pending);
}

TEST_P(QueueContract, finishes_and_claims_in_one_transaction) {
  submit();
  const auto second = submit();
  const auto lease = claim().at(0);
  ClaimRequest request{.worker = "w"};
  const auto next = must([&](Operations& op) -> Result<Claimed> {
    const Completion completion{lease.key(), {}};
    if (auto done = op.complete({&completion, 1}); !done) return std::unexpected(done.error());
    return op.claim(queue(), request);
  });
  EXPECT_THAT(ids_of(next.leases), ElementsAre(second));
}

TEST_P(QueueContract, what_was_committed_is_there_after_opening_again) {
  if (!place_->survives_closing()) GTEST_SKIP();
  const auto a = submit();
  const auto b = submit();
  ClaimRequest request{.worker = "w", .tied_to_process = false};
  const auto lease = must([&](Operations& op) { return op.claim(queue(), request); }).leases.at(0);
  Settings settings;
  settings.lease = 17s;
  settings.keep_failed = 3h;
  settings.max_size = 99;
  settings.durability = Durability::interval;
  settings.durable_claim = true;
  settings.keep_finished_max.reset();
  must([&](Operations& op) { return op.set_settings(queue(), settings); });
  ASSERT_TRUE(store_->sync());
  reopen();
  EXPECT_EQ(get(a).status, Status::processing);
  EXPECT_EQ(get(b).status, Status::pending);
  EXPECT_THAT(complete(lease), IsEmpty());
  EXPECT_EQ(must([&](Operations& op) { return op.settings(queue()); }), settings);
}

// --- the whole --------------------------------------------------------------------------------------------------------

TEST_P(QueueContract, lists_by_filter_and_in_pages) {
  std::vector<ItemId> ids;
  for (int i = 0; i < 10; ++i) ids.push_back(submit(of_type(i % 2 ? "odd" : "even")));
  complete(claim().at(0));
  std::vector<ItemId> seen;
  Page page;
  page.items_max = 3;
  int pages = 0;
  do {
    auto listed = must([&](Operations& op) { return op.list(queue(), {}, page); });
    for (const auto& item : listed.items) seen.push_back(item.id);
    page.after = listed.next;
    ++pages;
  } while (!page.after.empty() && pages < 9);
  EXPECT_EQ(seen, ids);
  EXPECT_EQ(pages, 4);
  page.after.clear();
  page.newest_first = true;
  auto newest = must([&](Operations& op) { return op.list(queue(), {}, page); });
  EXPECT_THAT(ids_of(newest.items), ElementsAre(ids[9], ids[8], ids[7]));
  page.after = newest.next;
  newest = must([&](Operations& op) { return op.list(queue(), {}, page); });
  EXPECT_THAT(ids_of(newest.items), ElementsAre(ids[6], ids[5], ids[4]));
  Filter filter;
  filter.statuses = {Status::completed, Status::failed};
  EXPECT_THAT(ids_of(must([&](Operations& op) { return op.list(queue(), filter, {}); }).items),
              ElementsAre(ids[0]));
  filter = {};
  filter.types = {"odd"};
  EXPECT_THAT(must([&](Operations& op) { return op.list(queue(), filter, {}); }).items, SizeIs(5));
  filter = {};
  filter.created_before = clock_.now();
  EXPECT_THAT(must([&](Operations& op) { return op.list(queue(), filter, {}); }).items, IsEmpty());
  page = {};
  page.after = "nonsense";
  EXPECT_EQ(error_of([&](Operations& op) { return op.list(queue(), {}, page); }).code, Errc::invalid_item);
}

TEST_P(QueueContract, purges_what_the_filter_matches_in_steps) {
  for (int i = 0; i < 5; ++i) submit();
  for (const auto& lease : claim(4)) complete(lease);
  Filter filter;
  filter.statuses = {Status::completed};
  EXPECT_EQ(must([&](Operations& op) { return op.purge(queue(), filter, 3); }), 3u);
  EXPECT_EQ(must([&](Operations& op) { return op.purge(queue(), filter, 3); }), 1u);
  EXPECT_EQ(must([&](Operations& op) { return op.purge(queue(), filter, 3); }), 0u);
  EXPECT_EQ(stats().counts.total(), 1u);
  claim();
  EXPECT_EQ(must([&](Operations& op) { return op.purge(queue(), {}, 9); }), 0u) << "processing stays";
}

TEST_P(QueueContract, statistics_are_exact) {
  for (int i = 0; i < 6; ++i) submit(of_type(i < 4 ? "a" : "b"));
  NewItem later;
  later.type = "b";
  later.scheduled_at = clock_.now() + 1h;
  submit(later);
  clock_.advance(3s);
  const auto leases = claim(3);
  complete(leases[0]);
  const Failure failure{leases[1].key(), "x", {}, true};
  must([&](Operations& op) { return op.fail({&failure, 1}); });
  const auto stats = this->stats();
  EXPECT_EQ(stats.counts,
            (Counts{.pending = 4, .processing = 1, .completed = 1, .failed = 1, .cancelled = 0}));
  EXPECT_EQ(stats.scheduled, 1u);
  EXPECT_EQ(stats.oldest_pending_age, 3s);
  EXPECT_EQ(stats.claim_latency_p50, 3s);
  EXPECT_EQ(stats.claim_latency_max, 3s);
  EXPECT_EQ(stats.by_type.at("a"),
            (Counts{.pending = 1, .processing = 1, .completed = 1, .failed = 1, .cancelled = 0}));
  EXPECT_EQ(stats.by_type.at("b"),
            (Counts{.pending = 3, .processing = 0, .completed = 0, .failed = 0, .cancelled = 0}));
}

TEST_P(QueueContract, retention_removes_by_age_and_number_and_nothing_that_lives) {
  Settings settings;
  settings.keep_completed = 1h;
  settings.keep_finished_max = 3;
  must([&](Operations& op) { return op.set_settings(queue(), settings); });
  std::vector<ItemId> ids;
  for (int i = 0; i < 8; ++i) ids.push_back(submit());
  for (int i = 0; i < 6; ++i) {
    complete(claim().at(0));
    clock_.advance(1s);
  }
  auto upkeep = must([&](Operations& op) { return op.upkeep(); });
  EXPECT_EQ(upkeep.removed, 3u);
  EXPECT_EQ(stats().counts.completed, 3u);
  EXPECT_EQ(get(ids[5]).status, Status::completed);
  clock_.advance(2h);
  upkeep = must([&](Operations& op) { return op.upkeep(); });
  EXPECT_EQ(upkeep.removed, 3u);
  EXPECT_FALSE(upkeep.more);
  EXPECT_EQ(stats().counts.total(), 2u);
}

TEST_P(QueueContract, imports_items_as_they_are) {
  Item item;
  item.id = "old-1";
  item.type = "t";
  item.payload = R"({"a":1})";
  item.status = Status::failed;
  item.priority = 100;
  item.created_at = clock_.now() - 24h;
  item.started_at = clock_.now() - 23h;
  item.completed_at = clock_.now() - 22h;
  item.retry_count = 3;
  item.error_message = "boom";
  item.metadata = R"({"m":2})";
  item.depends_on = {"gone"};
  item.waiting_for = {"gone"};
  Item processing;
  processing.id = "old-2";
  processing.status = Status::processing;
  processing.created_at = clock_.now() - 1h;
  processing.lease_owner = "somebody";
  processing.lease_until = clock_.now() + 1h;
  Item completed = item;
  completed.id = "old-3";
  completed.status = Status::completed;
  completed.result = "[1]";
  completed.depends_on.clear();
  completed.waiting_for.clear();
  const std::vector<Item> items{item, processing, completed};
  const auto report = must([&](Operations& op) { return op.import(queue(), items, OnConflict::refuse); });
  EXPECT_EQ(report.added, 3u);
  item.queue = completed.queue = queue();
  EXPECT_EQ(get("old-1"), item);
  EXPECT_EQ(get("old-3"), completed);
  EXPECT_EQ(get("old-2").status, Status::pending);
  EXPECT_EQ(get("old-2").lease_owner, "");
  // By their time, before what is submitted now.
  const auto fresh = submit();
  EXPECT_THAT(ids_of(claim(9)), ElementsAre("old-2", fresh));

  EXPECT_EQ(error_of([&](Operations& op) { return op.import(queue(), items, OnConflict::refuse); }).code,
            Errc::already_exists);
  EXPECT_EQ(must([&](Operations& op) { return op.import(queue(), items, OnConflict::skip); }).skipped, 3u);
  EXPECT_EQ(must([&](Operations& op) { return op.import(queue(), items, OnConflict::replace); }).replaced,
            3u);
  EXPECT_EQ(get("old-2").status, Status::pending);
  EXPECT_EQ(stats().counts.total(), 4u);
}

TEST_P(QueueContract, an_import_that_fails_changes_nothing) {
  Item a, b;
  a.id = "A";
  a.depends_on = {"B"};
  b.id = "B";
  b.depends_on = {"A"};
  a.created_at = b.created_at = clock_.now();
  std::vector<Item> items{a, b};
  EXPECT_THAT(error_of([&](Operations& op) { return op.import(queue(), items, OnConflict::refuse); }).message,
              HasSubstr("A -> B -> A"));
  items = {a, a};
  items[0].depends_on = items[1].depends_on = {};
  EXPECT_EQ(error_of([&](Operations& op) { return op.import(queue(), items, OnConflict::refuse); }).code,
            Errc::already_exists);
  EXPECT_EQ(stats().counts.total(), 0u);
}

TEST_P(QueueContract, an_imported_item_waits_for_one_that_comes_later) {
  Item a;
  a.id = "a";
  a.depends_on = {"b"};
  a.created_at = clock_.now();
  must([&](Operations& op) { return op.import(queue(), {&a, 1}, OnConflict::refuse); });
  EXPECT_THAT(get("a").waiting_for, ElementsAre("b"));
  EXPECT_THAT(claim(), IsEmpty());
  submit(with_id("b"));
  complete(claim().at(0));
  EXPECT_THAT(ids_of(claim()), ElementsAre("a"));
}

TEST_P(QueueContract, queues_of_one_store_do_not_see_each_other) {
  if (!place_->has_many_queues()) GTEST_SKIP();
  const NewItem item = with_key("k");
  const auto here = submit(with_key("k"));
  const auto there = must([&](Operations& op) { return op.submit("other", {&item, 1}); }).front();
  EXPECT_TRUE(there.created);
  EXPECT_THAT(ids_of(claim(9)), ElementsAre(here));
  EXPECT_EQ(must([&](Operations& op) { return op.stats("other"); }).counts.pending, 1u);
  EXPECT_THAT(must([&](Operations& op) { return op.queues(); }),
              testing::IsSupersetOf({queue(), std::string("other")}));
  // But may depend on each other.
  const NewItem dependent = with_id("d", {there.id});
  must([&](Operations& op) { return op.submit(queue(), {&dependent, 1}); });
  EXPECT_THAT(claim(), IsEmpty());
}

TEST_P(QueueContract, who_waits_is_woken_by_work_and_not_kept_waiting) {
  const auto seen = store_->wake_word(queue());
  std::atomic<bool> woken = false;
  std::thread waiter([&] {
    while (store_->wake_word(queue()) == seen) store_->wait(queue(), seen, 10s);
    woken = true;
  });
  submit();
  waiter.join();
  EXPECT_TRUE(woken);
  // The word has changed already: no waiting.
  const auto began = std::chrono::steady_clock::now();
  store_->wait(queue(), seen, 10s);
  EXPECT_LT(std::chrono::steady_clock::now() - began, 5s);
  store_->wait(queue(), store_->wake_word(queue()), 1ms);
}

}  // namespace fulmar::queue
