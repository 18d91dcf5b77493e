# ccache when the machine has it: the sanitizer builds compile everything again.
find_program(LOOPFAST_CCACHE ccache)
mark_as_advanced(LOOPFAST_CCACHE)
if(LOOPFAST_CCACHE)
    set(CMAKE_C_COMPILER_LAUNCHER ${LOOPFAST_CCACHE})
    set(CMAKE_CXX_COMPILER_LAUNCHER ${LOOPFAST_CCACHE})
endif()
