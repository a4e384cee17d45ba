#include "base/ulid.hpp"

#include <pthread.h>
#include <sys/random.h>

#include <chrono>
#include <random>
#include <string>

#include "fulmar/envelope.hpp"

namespace fulmar {
namespace {

constinit UlidSequence sequence;
constinit std::atomic<unsigned> forks{
    0};  // what a thread fetched before a fork, its copy in the child must not use

struct Pool {
  std::array<std::uint64_t, 64> words{};
  std::size_t used = words.size();
  unsigned fork = 0;

  void refill() {
    // GRND_INSECURE does not wait for the kernel's pool, which early at boot may take seconds. Kernels before 5.6 and some
    // sandboxes have neither.
    if (getrandom(words.data(), sizeof words, GRND_INSECURE) != static_cast<ssize_t>(sizeof words)) {
      std::random_device device;
      for (auto& word : words) word = std::uint64_t{device()} << 32 | device();
    }
    used = 0;
  }
};

}  // namespace

std::array<char, 26> ulid_text(std::uint64_t high, std::uint64_t low) {
  static constexpr char digits[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
  std::array<char, 26> text{};
  for (std::size_t i = text.size(); i-- > 0;) {
    text[i] = digits[low & 31];
    low = low >> 5 | high << 59;
    high >>= 5;
  }
  return text;
}

std::uint64_t random_bits() {
  [[maybe_unused]] static const int registered =
      pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1, std::memory_order_relaxed); });
  static thread_local Pool pool;
  const unsigned fork = forks.load(std::memory_order_relaxed);
  if (pool.used == pool.words.size() || pool.fork != fork) {
    pool.refill();
    pool.fork = fork;
  }
  return pool.words[pool.used++];
}

std::string new_ulid() {
  const auto wall_ms = [] {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
    return static_cast<std::uint64_t>(ms) & 0xffff'ffff'ffff;
  };
  const auto text = ulid_text(sequence.next(wall_ms, random_bits()), random_bits());
  return {text.data(), text.size()};
}

}  // namespace fulmar
