// "did you mean": the known word that is nearest to a mistyped one.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace loopfast::cli {

/// @return the word of `known` with the fewest edits to `word`, if that is close enough to be what was
///   meant (a third of its letters, and at least one); else an empty string.
std::string nearest(std::string_view word, const std::vector<std::string>& known);

/// "; did you mean 'X'?" or nothing.
std::string did_you_mean(std::string_view word, const std::vector<std::string>& known);

}  // namespace loopfast::cli
