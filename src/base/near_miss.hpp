#pragma once
// near_miss: the word that was probably meant, for "did you mean ...?" hints.
// Thread-safety: pure function.

#include <span>
#include <string_view>

namespace fulmar {

// The candidate with the smallest edit distance (insert, delete, replace, swap of neighbours) to `word`; empty when
// none is nearer than a third of the word's length (at least 1, at most 3 edits).
std::string_view near_miss(std::string_view word, std::span<const std::string_view> candidates);

}  // namespace fulmar
