// The program that `loopfast run` is to start: where it is, and whether a preloaded library can reach it.
#pragma once

#include <string>

namespace loopfast::cli {

/// The file that `name` stands for, found as a shell finds it. Throws Failure with kNotFound or
/// kCannotExecute.
std::string find_program(const std::string& name);

/// Why the dynamic loader would not load us into this file ("statically linked: ..."), or an empty string.
/// A script is judged by its interpreter. What cannot be read is given the benefit of the doubt.
std::string why_not_preloadable(const std::string& path);

/// Whether the program asks the loader for a library whose file name begins with `prefix`. False for what
/// cannot be read.
bool needs_library(const std::string& path, const std::string& prefix);

/// libloopfast.so: LOOPFAST_LIBRARY, or next to this program, or in the lib directories of its prefix.
/// Throws Failure that lists where it was looked for.
std::string find_library();

/// As LD_PRELOAD is to name `library`: so that programs of another libc, which a program may start, do not
/// find it, where it was installed with such a name; else as it is.
std::string preload_name(const std::string& library);

/// This program's own file.
std::string own_path();

}  // namespace loopfast::cli
