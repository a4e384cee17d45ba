// queue_postgres_worker URL THREADS OUTPUT: claims and completes until there is nothing pending, and writes each completed
// item's id on a line of OUTPUT. Exit code 1 after any error.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "queue/postgres.hpp"

using namespace fulmar::queue;

namespace {

std::atomic<bool> failed = false;

void report(const fulmar::Error& error) {
  std::fprintf(stderr, "%s\n", error.message.c_str());
  failed = true;
}

std::vector<ItemId> work(Repository& store) {
  std::vector<ItemId> done;
  while (!failed) {
    const ClaimRequest request{.worker = "w", .items_max = 16};
    const auto word = store.wake_word("q");
    auto claimed = store.transact(Access::write, Durability::none,
                                  [&](Operations& op) { return op.claim("q", request); });
    if (!claimed) {
      report(claimed.error());
      break;
    }
    if (claimed->leases.empty()) {
      if (!claimed->look_again_in) break;  // nothing pending, nothing processing
      store.wait("q", word,
                 *claimed->look_again_in < std::chrono::milliseconds(50) ? *claimed->look_again_in
                                                                         : std::chrono::milliseconds(50));
      continue;
    }
    std::vector<Completion> completions;
    for (const auto& lease : claimed->leases) completions.push_back({lease.key(), {}});
    auto refused = store.transact(Access::write, Durability::none,
                                  [&](Operations& op) { return op.complete(completions); });
    if (!refused) {
      report(refused.error());
      break;
    }
    for (const auto& refusal : *refused) report(refusal.error);
    for (const auto& lease : claimed->leases) done.push_back(lease.item.id);
  }
  return done;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  auto store = open_postgres(argv[1]);
  if (!store) {
    report(store.error());
    return 1;
  }
  std::ofstream output(argv[3]);
  std::mutex mutex;
  std::vector<std::thread> threads;
  for (int i = 0; i < std::atoi(argv[2]); ++i) {
    threads.emplace_back([&] {
      const auto done = work(**store);
      const std::scoped_lock lock(mutex);
      for (const auto& id : done) output << id << '\n';
    });
  }
  for (auto& thread : threads) thread.join();
  return failed ? 1 : 0;
}
