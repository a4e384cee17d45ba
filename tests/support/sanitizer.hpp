#pragma once
// Is this a sanitizer's build? Then it proves memory and threads, not time.

#include <cstddef>

namespace fulmar::test {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool sanitized = true;
#else
inline constexpr bool sanitized = false;
#endif

// TSan has a thread of its own from the first one on.
inline constexpr std::size_t without_sanitizers_thread(std::size_t threads) {
#if defined(__SANITIZE_THREAD__)
  return threads > 1 ? threads - 1 : threads;
#else
  return threads;
#endif
}

}  // namespace fulmar::test
