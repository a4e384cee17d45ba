#pragma once
// Is this a sanitizer's build? Then it proves memory and threads, not time.

namespace fulmar::test {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool sanitized = true;
#else
inline constexpr bool sanitized = false;
#endif

}  // namespace fulmar::test
