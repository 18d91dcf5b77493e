# LOOPFAST_FUZZ=ON, with clang: everything is instrumented for libFuzzer and checked by the sanitizers, and the
# fuzzers in tests/fuzz are built. `./dev fuzz` does it in a tree of its own.
option(LOOPFAST_FUZZ "Build the fuzzers (clang)" OFF)
if(LOOPFAST_FUZZ)
    if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
        message(FATAL_ERROR "LOOPFAST_FUZZ needs clang: -DCMAKE_CXX_COMPILER=clang++")
    endif()
    add_compile_options(-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
        -fno-omit-frame-pointer -g -O1)
    add_link_options(-fsanitize=address,undefined)
    add_compile_definitions(LOOPFAST_SANITIZED)
endif()
