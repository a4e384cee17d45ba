// A process for the tests of the work queue to stop and to kill. Writes a line to standard output for each thing that was
// acknowledged to it:   submitted ID | claimed ID TOKEN | completed ID | refused ID REASON
//
//   queue_actor URL cycle N            N times: submit, claim, complete
//   queue_actor URL submit FIRST       submits items with ids n<FIRST>, n<FIRST+1>, ... until it is killed
//   queue_actor URL work THREADS N     claims N at a time and completes, on THREADS threads, until there is nothing left
//   queue_actor URL churn              submits, claims and completes until it is killed
//   queue_actor URL hold LEASE_MS      claims one item, waits for SIGCONT or SIGTERM, and completes it
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "fulmar/queue.hpp"

namespace {

using namespace fulmar;

void say(const std::string& line) {
  const std::string whole = line + "\n";
  if (::write(STDOUT_FILENO, whole.data(), whole.size()) < 0) std::abort();
}

[[noreturn]] void die(const Error& error) {
  std::fprintf(stderr, "queue_actor: %s\n", error.message.c_str());
  std::exit(1);
}

template <typename T>
T must(Result<T> result) {
  if (!result) die(result.error());
  return std::move(*result);
}

queue::NewItem numbered(std::string id) {
  queue::NewItem item;
  item.id = std::move(id);
  item.payload = "{\"d\":\"" + std::string(100, 'x') + "\"}";
  return item;
}

void finish(Queue& queue, const std::vector<queue::Lease>& leases) {
  for (const auto& lease : leases) {
    if (auto done = queue.complete(lease.key()))
      say("completed " + lease.item.id);
    else if (done.error().code == Errc::io_error)
      die(done.error());
    else
      say("refused " + lease.item.id + " " + std::string(to_string(done.error().code)));
  }
}

void cycle(Queue& queue, int count) {
  for (int i = 0; i < count; ++i) {
    say("submitted " + must(queue.submit(numbered({}))).id);
    finish(queue, must(queue.claim({})));
  }
}

void submit(Queue& queue, unsigned long first) {
  for (;; ++first) say("submitted " + must(queue.submit(numbered("n" + std::to_string(first)))).id);
}

void churn(Queue& queue) {
  for (unsigned i = 0;; ++i) {
    say("submitted " + must(queue.submit(numbered({}))).id);
    if (i % 3 != 0) continue;
    finish(queue, must(queue.claim({.items_max = 3})));
  }
}

void work(Queue& queue, int threads_count, std::size_t items_max) {
  std::vector<std::thread> threads;
  for (int i = 0; i < threads_count; ++i) {
    threads.emplace_back([&queue, items_max] {
      for (;;) {
        const auto leases = must(queue.claim({.items_max = items_max}));
        if (leases.empty()) return;
        finish(queue, leases);
      }
    });
  }
  for (auto& thread : threads) thread.join();
}

void hold(Queue& queue, int lease_ms) {
  sigset_t wanted;
  sigemptyset(&wanted);
  sigaddset(&wanted, SIGTERM);
  sigaddset(&wanted, SIGCONT);
  sigprocmask(SIG_BLOCK, &wanted, nullptr);
  queue::ClaimRequest request;
  request.lease = std::chrono::milliseconds(lease_ms);
  const auto leases = must(queue.wait_claim(request, std::chrono::seconds(60)));
  for (const auto& lease : leases) say("claimed " + lease.item.id);
  int received = 0;
  sigwait(&wanted, &received);
  finish(queue, leases);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  const std::string what = argv[2];
  const auto number = [&](int at) { return argc > at ? std::atol(argv[at]) : 1; };
  fulmar::QueueOptions options;
  if (std::getenv("FULMAR_UNSYNCED")) options.durability = fulmar::queue::Durability::none;
  auto opened = fulmar::Queue::open(argv[1], options);
  if (!opened) die(opened.error());
  if (what == "cycle") cycle(*opened, static_cast<int>(number(3)));
  if (what == "submit") submit(*opened, static_cast<unsigned long>(number(3)));
  if (what == "churn") churn(*opened);
  if (what == "work") work(*opened, static_cast<int>(number(3)), static_cast<std::size_t>(number(4)));
  if (what == "hold") hold(*opened, static_cast<int>(number(3)));
  return 0;
}
