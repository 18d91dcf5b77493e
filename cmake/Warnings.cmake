# The warnings that our own code is built with, as a target to link with: loopfast_warnings.
add_library(loopfast_warnings INTERFACE)
target_compile_options(loopfast_warnings INTERFACE
    -Wall -Wextra -Wshadow $<$<COMPILE_LANGUAGE:CXX>:-Wnon-virtual-dtor> -Wvla)
option(LOOPFAST_WERROR "Warnings are errors" ON)
if(LOOPFAST_WERROR)
    target_compile_options(loopfast_warnings INTERFACE -Werror)
endif()
