// The shells' completion scripts, as `loopfast completion SHELL` prints them. They are the files in
// completion/, taken in when the program is built.
#pragma once

#include <string_view>

namespace loopfast::cli {

/// @return the script for "bash", "zsh" or "fish"; empty for any other shell.
std::string_view completion_script(std::string_view shell);

}  // namespace loopfast::cli
