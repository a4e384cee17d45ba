// bench_ring: what it costs to hand a 128-byte item from producers to one consumer through outbox::Ring,
// beside the plainest ring behind a mutex. Wall time from the first push to the last pop, divided by the
// items; a thread that finds the ring full or empty yields. The consumer adds up every word of what it got:
// an item lost, doubled or torn fails the run.

#include "outbox/ring.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <mutex>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include <CLI/CLI.hpp>

#include "columns.hpp"
#include "harness.hpp"
#include "probes.hpp"
#include "results.hpp"

namespace fulmar::bench {
namespace {

constexpr std::size_t item_bytes = 128;
constexpr std::size_t ring_bytes = std::size_t{8} << 20;
using Item = std::array<std::uint64_t, item_bytes / sizeof(std::uint64_t)>;

class OutboxRing {
 public:
  bool push(const Item& item) {
    std::byte* block = ring_.try_reserve(item_bytes);
    if (block == nullptr) return false;
    std::memcpy(block, item.data(), item_bytes);
    ring_.commit(block, item_bytes);
    return true;
  }
  template <typename Take>
  std::size_t pop_some(Take&& take) {
    std::size_t taken = 0;
    for (auto block = ring_.front(); taken < 256 && !block.empty(); block = ring_.front()) {
      take(*reinterpret_cast<const Item*>(block.data()));
      ring_.pop();
      ++taken;
    }
    return taken;
  }

 private:
  outbox::Ring ring_{ring_bytes, 1'000'000};
};

// `bulk`: the consumer takes up to that many items under one lock.
template <std::size_t bulk>
class MutexRing {
 public:
  bool push(const Item& item) {
    const std::lock_guard lock(mutex_);
    if (head_ - tail_ == items_.size()) return false;
    items_[head_++ % items_.size()] = item;
    return true;
  }
  template <typename Take>
  std::size_t pop_some(Take&& take) {
    const std::lock_guard lock(mutex_);
    const std::size_t count = std::min(bulk, head_ - tail_);
    for (std::size_t i = 0; i < count; ++i) take(items_[tail_++ % items_.size()]);
    return count;
  }

 private:
  std::mutex mutex_;
  std::vector<Item> items_ = std::vector<Item>(ring_bytes / item_bytes);
  std::size_t head_ = 0;
  std::size_t tail_ = 0;
};

// ns per item, or a negative number when items were lost, doubled or torn.
template <typename AnyRing>
double measure(unsigned producers, std::uint64_t items) {
  AnyRing ring;
  const std::uint64_t each = items / producers;
  const auto produce = [&](std::uint64_t count) {
    Item item{};
    for (std::uint64_t i = 1; i <= count; ++i) {
      item.fill(i);
      while (!ring.push(item)) std::this_thread::yield();
    }
  };
  const auto consume = [&](std::uint64_t count) {
    std::uint64_t sum = 0;
    while (count != 0) {
      const auto taken =
          ring.pop_some([&](const Item& item) { sum += std::reduce(item.begin(), item.end()); });
      if (taken == 0) std::this_thread::yield();
      count -= taken;
    }
    return sum;
  };
  const auto round = [&](std::uint64_t count) {
    std::vector<std::jthread> threads;
    for (unsigned producer = 0; producer < producers; ++producer) threads.emplace_back(produce, count);
    return consume(count * producers) == producers * std::tuple_size_v<Item> * (count * (count + 1) / 2);
  };
  bool complete = round(2 * ring_bytes / item_bytes / producers);  // touches all the memory
  const auto begin = std::chrono::steady_clock::now();
  complete &= round(each);
  const std::chrono::duration<double, std::nano> elapsed = std::chrono::steady_clock::now() - begin;
  return complete ? elapsed.count() / static_cast<double>(each * producers) : -1;
}

struct Contestant {
  std::string library;
  std::string version;
  double (*measure)(unsigned producers, std::uint64_t items);
};

int run(std::uint64_t items, unsigned repetitions, bool quick, const std::string& json) {
  const std::array<Contestant, 3> contestants{{
      {std::string(ours), "outbox::Ring", measure<OutboxRing>},
      {"mutex ring", "one pop a lock", measure<MutexRing<1>>},
      {"mutex ring", "bulk pop", measure<MutexRing<256>>},
  }};
  Results results{.suite = "ring",
                  .machine = machine(),
                  .measured = utc_now(),
                  .quick = quick,
                  .busy = busy_elsewhere(std::chrono::milliseconds(500))};
  fmt::print(
      "{}\n{} B items, {} MiB rings, {} items a run, median of {} interleaved repetitions, below it "
      "min-max\n",
      results.machine, item_bytes, ring_bytes >> 20, items, repetitions);
  for (const unsigned producers : {1u, 4u}) {
    std::vector<Row> rows;
    for (const auto& contestant : contestants) {
      rows.push_back({.library = contestant.library,
                      .version = contestant.version,
                      .labels = {{"producers", std::to_string(producers)}},
                      .figures = {}});
    }
    for (unsigned repetition = 0; repetition < repetitions; ++repetition) {
      for (std::size_t i = 0; i < contestants.size(); ++i) {
        const double ns = contestants[i].measure(producers, items);
        if (ns < 0) {
          fmt::print(stderr, "bench_ring: {} {}: items were lost, doubled or torn\n", contestants[i].library,
                     contestants[i].version);
          return 1;
        }
        rows[i].figures["ns_per_item"].push_back(ns);
      }
    }
    fmt::print("\n{} producer{}\n{}", producers, producers == 1 ? "" : "s", table(rows, ring_columns()));
    std::ranges::move(rows, std::back_inserter(results.rows));
  }
  if (json.empty()) return 0;
  if (const auto written = write_json(json, results); !written) {
    fmt::print(stderr, "bench_ring: {}\n", written.error().message);
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace fulmar::bench

int main(int argc, char** argv) {
  std::uint64_t items = 4'000'000;
  unsigned repetitions = 5;
  bool quick = false;
  CLI::App app{"bench_ring: handing 128-byte items between threads, outbox::Ring beside a mutex ring"};
  app.add_option("--items", items, "items a run")
      ->check(CLI::Range(1000, 1'000'000'000))
      ->capture_default_str();
  app.add_option("--repetitions", repetitions, "repetitions")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  std::string json;
  app.add_option("--json", json, "where the figures go");
  app.add_flag("--quick", quick, "a tenth of the items: a look, not a result");
  CLI11_PARSE(app, argc, argv);
  return fulmar::bench::run(quick ? items / 10 : items, repetitions, quick, json);
}
